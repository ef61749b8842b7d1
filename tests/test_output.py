"""The output of an extraction: parts that are whole, rows that stand once, and work that is not done twice."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lgsrr.errors import DataError
from lgsrr.extracted import DESCRIPTIONS_FOLDER, QUARANTINE_FOLDER, RANKINGS_FOLDER, read_extracted
from lgsrr.records import Utterance
from pipelines.answers import AnswerStore
from pipelines.calls import Answer, ExtractionError, Usage
from pipelines.lease import leased
from pipelines.outcomes import Outcome, Receipt
from pipelines.output import Output
from pipelines.plan import Candidate, Row, plan_stage

ASPECTS = ("Speakers' Actions", "Facial Expressions")


def described(name: str, mark: str = "f", cost: float = 0.5) -> Outcome:
    receipt = Receipt(fingerprint=mark, model="m", cost_usd=cost, input_tokens=7, attempts=1, created_at=5.0)
    texts = tuple(f"{name} {aspect} {mark}" for aspect in ASPECTS)
    return Outcome(id=name, stage="describe", status="done", receipts=(receipt,), aspects=ASPECTS, texts=texts)


def ranked(name: str, mark: str = "r") -> Outcome:
    receipt = Receipt(fingerprint=mark, model="m", created_at=5.0)
    return Outcome(id=name, stage="rank", status="done", receipts=(receipt,), aspects=ASPECTS[::-1], shown=ASPECTS)


def bad(name: str, mark: str = "f") -> Outcome:
    receipt = Receipt(fingerprint=mark, model="m", cost_usd=0.25, raw_answer="nonsense")
    return Outcome(
        id=name, stage="describe", status="quarantined", receipts=(receipt,), reason="sections", detail="d", advice="a"
    )


@pytest.fixture
def output(tmp_path: Path) -> Output:
    return Output(str(tmp_path / "out"))


def parts(output: Output, folder: str) -> list[Path]:
    return sorted(Path(output.path(folder)).glob("*.parquet"))


def test_an_outcome_travels_as_text_unchanged() -> None:
    for outcome in (described("u"), ranked("u"), bad("u"), Outcome(id="u", stage="rank", status="stopped")):
        assert Outcome.from_text(outcome.to_text()) == outcome


def test_what_is_committed_is_read_by_the_library(output: Output) -> None:
    utterances = [Utterance(id=f"u{i}", text="t", split="train", label="l") for i in range(2)]
    output.write_utterances(utterances)
    output.write_json("aspects.json", {"aspects": [{"name": a, "instruction": "", "frequency": 1} for a in ASPECTS]})
    output.commit([described("u0"), described("u1")])
    output.commit([ranked("u0")])
    draft = read_extracted("mine", output.out)
    assert len(draft.descriptions) == 4
    assert [r.aspects for r in draft.rankings] == [ASPECTS[::-1]]


def test_the_cost_of_one_answer_stands_once_though_it_made_two_rows(output: Output) -> None:
    output.commit([described("u0"), described("u1"), bad("u2")])
    assert output.cost_usd() == pytest.approx(1.25)
    tokens = output.table(DESCRIPTIONS_FOLDER, ["input_tokens"]).column("input_tokens").to_pylist()
    assert tokens == [7, 0, 7, 0]


def test_tidying_joins_parts_and_drops_what_stands_twice(output: Output) -> None:
    for name in ("a", "b", "c"):
        output.commit([described(name)])
    output.commit([described("b")])  # as after a kill between writing a joined part and removing the old ones
    assert output.tidy("describe", {}) == 0.0
    assert len(parts(output, DESCRIPTIONS_FOLDER)) == 1
    assert output.table(DESCRIPTIONS_FOLDER, ["id"]).column("id").to_pylist() == list("aabbcc")


def test_tidying_drops_work_that_newer_work_has_replaced_and_keeps_count_of_its_cost(output: Output) -> None:
    output.commit([described("a", "old"), described("b", "old")])
    output.commit([described("a", "new")])
    assert output.tidy("describe", {"a": "new"}) == pytest.approx(0.5)
    assert output.done("describe") == {"a": "new", "b": "old"}
    assert output.descriptions()["a"][ASPECTS[0]].endswith("new")


def test_old_rows_stay_while_the_new_ones_are_not_there(output: Output) -> None:
    output.commit([described("a", "old")])
    output.tidy("describe", {"a": "new"})
    assert output.done("describe") == {"a": "old"}


def test_tidying_twice_changes_nothing_the_second_time(output: Output) -> None:
    output.commit([described("a")])
    output.commit([described("b")])
    output.tidy("describe", {})
    before = parts(output, DESCRIPTIONS_FOLDER)
    output.tidy("describe", {})
    assert parts(output, DESCRIPTIONS_FOLDER) == before


def test_a_row_that_succeeds_leaves_the_quarantine(output: Output) -> None:
    output.commit([bad("a"), bad("b")])
    output.commit([described("a")])
    output.tidy("describe", {"a": "f", "b": "f"})
    assert output.quarantined("describe") == {"b": "f"}


def test_quarantine_names_reason_advice_and_raw_answer(output: Output) -> None:
    output.commit([bad("a")])
    row = output.table(QUARANTINE_FOLDER).to_pylist()[0]
    assert (row["reason"], row["advice"], row["raw_answer"], row["stage"]) == ("sections", "a", "nonsense", "describe")


def test_utterances_of_an_earlier_run_are_not_lost_by_a_smaller_limit(output: Output) -> None:
    many = [Utterance(id=f"u{i}", text="t", split="train", label="l") for i in range(5)]
    output.write_utterances(many)
    output.write_utterances(many[:2])
    assert [row["id"] for row in output.utterances()] == [f"u{i}" for i in range(5)]


def test_parts_have_the_written_schema(output: Output) -> None:
    output.commit([ranked("a")])
    schema = pq.read_schema(parts(output, RANKINGS_FOLDER)[0])
    assert schema.names[:3] == ["id", "aspects", "shown"]
    assert {"fingerprint", "model", "cost_usd", "packages"} <= set(schema.names)


def test_a_second_extraction_on_the_same_output_is_refused_and_the_first_one_named(tmp_path: Path) -> None:
    with (
        leased(str(tmp_path)),
        pytest.raises(ExtractionError, match=r"process \d+ on .* writes to this output"),
        leased(str(tmp_path)),
    ):
        pass
    with leased(str(tmp_path)):
        pass


def test_an_output_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"), leased(str(tmp_path / "file" / "out")):
        pass


def test_an_answer_is_found_again_by_the_fingerprint_of_its_request(tmp_path: Path) -> None:
    store = AnswerStore(str(tmp_path))
    answer = Answer(fingerprint="ab12", text="ja ✓", model="m", usage=Usage(input_tokens=3), frames=(1, 2))
    assert store.get("ab12") is None
    store.put(answer)
    assert AnswerStore(str(tmp_path)).get("ab12") == answer
    assert store.fingerprints() == {"ab12"}


def test_an_answer_cut_in_the_middle_is_none(tmp_path: Path) -> None:
    store = AnswerStore(str(tmp_path))
    store.put(Answer(fingerprint="ab12", text="x", model="m"))
    path = tmp_path / "answers" / "ab" / "ab12.json"
    path.write_text(path.read_text()[:20])
    assert store.get("ab12") is None
    path.write_text(json.dumps({"text": "x"}))
    assert store.get("ab12") is None


def candidate(name: str, mark: str) -> Candidate:
    row = Row(id=name, fingerprint=mark, work="", calls=(mark,), tokens=10, cost_usd=1.0)
    return Candidate(id=name, fingerprint=mark, row=lambda: row)


def candidates(*marks: tuple[str, str]) -> list[Candidate]:
    return [candidate(name, mark) for name, mark in marks]


def test_a_plan_tells_done_from_answered_set_aside_outdated_and_new() -> None:
    plan = plan_stage(
        "rank",
        candidates(("done", "1"), ("answered", "2"), ("bad", "3"), ("old", "4"), ("new", "5"), ("bad_otherwise", "6")),
        done={"done": "1", "old": "other"},
        quarantined={"bad": "3", "bad_otherwise": "other"},
        answers={"2"},
        retry_quarantined=False,
    )
    assert [row.id for row in plan.rows] == ["answered", "old", "new", "bad_otherwise"]
    assert (plan.done, plan.set_aside, plan.answered, plan.outdated, plan.new) == (1, 1, 1, 1, 3)
    assert (plan.tokens, plan.cost_usd) == (30, 3.0)


def test_of_rows_that_are_done_nothing_but_their_fingerprints_is_made() -> None:
    def not_made() -> Row:
        raise AssertionError("made, and it is done")

    done = Candidate(id="done", fingerprint="1", row=not_made)
    plan = plan_stage(
        "rank",
        [done, candidate("new", "2")],
        done={"done": "1"},
        quarantined={},
        answers=set(),
        retry_quarantined=False,
    )
    assert plan.wanted == {"done": "1", "new": "2"}
    assert [row.id for row in plan.rows] == ["new"]


def test_set_aside_rows_are_taken_up_when_asked_to() -> None:
    plan = plan_stage(
        "rank", candidates(("bad", "3")), done={}, quarantined={"bad": "3"}, answers=set(), retry_quarantined=True
    )
    assert [row.id for row in plan.rows] == ["bad"]
