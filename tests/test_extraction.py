"""Extraction from end to end in one process: what it makes, what it asks, and what it does not do twice.

The stand-in answers on a loopback port, the scripted engine describes small real clips, and Ray is real.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lgsrr.catalog import load_dataset, summarise
from lgsrr.errors import ConfigError, DataError
from lgsrr.extracted import DESCRIPTIONS_FOLDER, QUARANTINE_FOLDER, RANKINGS_FOLDER
from pipelines import describing_stage, llm_setup
from pipelines.answers import AnswerStore
from pipelines.asking import RetryPolicy
from pipelines.calls import ExtractionError
from pipelines.engines import EngineConfig, Scripted
from pipelines.extraction import Extracted, Extraction
from pipelines.extraction_print import print_explanation, print_result
from pipelines.job import Job
from pipelines.manifest import StageReport
from pipelines.output import Output
from pipelines.settings import ExtractConfig
from pipelines.stand_in.faults import Fault, Kind, faults
from pipelines.stand_in.server import StandIn, serve
from pipelines.why import story
from tests.clip_files import empty, text_as, truncated, with_bad_packets
from tests.clips import moving_square, write_clip, write_sound
from tests.conftest import tracked_in_memory
from tests.extraction_runs import (
    LABELS,
    assert_nothing_twice,
    charge,
    content,
    ids_of,
    is_ranking,
    names_of,
    rows_of,
    run,
    says,
    settings,
    write_clips,
    write_table,
)
from tests.tables_on_disk import ASPECTS

pytestmark = pytest.mark.usefixtures("ray_cluster")
COUNTS: dict[Any, int] = {"train": 6, "dev": 2, "test": 2}
NAMES = names_of(COUNTS)
TRAIN = [name for name, split in NAMES.items() if split == "train"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chain:
    """One whole run, and what its server saw."""

    config: ExtractConfig
    server: StandIn
    result: Extracted
    explained: str
    said: str


@pytest.fixture(scope="module", autouse=True)
def short_pauses() -> Iterator[None]:
    """Between two tries: the policy travels to the actors with the job. What is recorded stays in memory."""
    with pytest.MonkeyPatch.context() as patched, tracked_in_memory():
        patched.setattr(llm_setup, "RetryPolicy", functools.partial(RetryPolicy, base_s=0.05))
        yield


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clips(tmp_path_factory.mktemp("clips"), list(NAMES))


@pytest.fixture(scope="module")
def chain(ray_cluster: None, clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    folder = tmp_path_factory.mktemp("chain")
    with serve() as server:
        table = write_table(folder / "table.jsonl", COUNTS)
        config = settings(table, folder / "out", server.base_url, videos=str(clips))
        explained = explain(config)
        result, said = run(config)
        yield Chain(config=config, server=server, result=result, explained=explained, said=said)


def explain(config: ExtractConfig) -> str:
    text = io.StringIO()
    print_explanation(Extraction(config, Console(file=io.StringIO())), Console(file=text, width=200))
    return text.getvalue()


def explained_row(text: str, stage: str) -> dict[str, str]:
    """One line of the table that --explain prints."""
    lines = [line.split() for line in text.replace("set aside", "set_aside").splitlines()]
    head = next(words for words in lines if words[:1] == ["stage"])
    return dict(zip(head, next(words for words in lines if words[:1] == [stage]), strict=False))


def report(result: Extracted, stage: str) -> StageReport:
    return next(r for r in result.stages if r.stage == stage)


def rank_only(folder: Path, base_url: str, count: int = 6, **changes: Any) -> ExtractConfig:
    """Ranking alone, of descriptions that came with the data."""
    table = write_table(folder / "described.jsonl", {"train": count}, described=True)
    return settings(table, folder / "out", base_url, stages="rank", **changes)


@pytest.fixture
def copied(chain: Chain, tmp_path: Path) -> Callable[..., ExtractConfig]:
    """The finished chain in a folder of the test's own, and its settings with some changed."""

    def copy(**changes: Any) -> ExtractConfig:
        out = tmp_path / "out"
        if not out.exists():
            shutil.copytree(chain.config.out, out)
        return dataclasses.replace(chain.config, out=str(out), **changes)

    return copy


# ---- the whole chain -----------------------------------------------------------------------------------------------


def test_the_catalog_reads_what_the_chain_wrote(chain: Chain) -> None:
    dataset = load_dataset("mine", chain.config.out)
    assert {u.id: u.split for u in dataset.utterances} == NAMES
    assert len(dataset.aspects) == 3
    assert all(len(u.descriptions) == 3 for u in dataset.utterances)
    assert [u.id for u in dataset.utterances if u.ranking] == TRAIN
    assert summarise(dataset)["splits"] == COUNTS
    assert not rows_of(chain.config.out, QUARANTINE_FOLDER)
    assert_nothing_twice(chain.config.out)


def test_every_row_has_a_complete_receipt(chain: Chain) -> None:
    for folder in (DESCRIPTIONS_FOLDER, RANKINGS_FOLDER):
        for row in rows_of(chain.config.out, folder):
            assert all(row[name] for name in ("fingerprint", "model", "prompt_version", "raw_answer", "created_at"))
            assert json.loads(row["packages"])
    rankings = rows_of(chain.config.out, RANKINGS_FOLDER)
    assert all(row["input_tokens"] and row["output_tokens"] and row["cost_usd"] for row in rankings)
    assert all(sorted(row["shown"]) == sorted(row["aspects"]) for row in rankings)
    assert all(len(row["frames"]) == 4 for row in rows_of(chain.config.out, DESCRIPTIONS_FOLDER))
    found = (Output(chain.config.out).aspects() or {})["found"]
    assert found["answers"] == 4
    assert len(found["table"]) >= 3


def test_the_manifest_counts_all_that_the_server_charged(chain: Chain) -> None:
    manifest = Output(chain.config.out).manifest() or {}
    charged = charge(chain.server.seen.bodies, chain.server.seen.paid_by_body)
    assert charged > 0.1
    assert manifest["cost_usd"] == pytest.approx(charged)
    assert chain.result.cost_usd == pytest.approx(charged)
    assert sum(r.usage.cost_usd for r in chain.result.stages) == pytest.approx(charged)
    assert manifest["counts"]["describe"] == {"done": 10, "quarantined": 0}
    assert manifest["counts"]["rank"] == {"done": 6, "quarantined": 0}


def test_why_tells_the_story_of_one_row_and_names_an_id_that_it_does_not_know(chain: Chain) -> None:
    output = Output(chain.config.out)
    told = "\n".join(story(output, "u00"))
    for words in (says("u00"), "train", "described", "ranked", "took      1 call", "frames", "prompt rank-1"):
        assert words in told
    assert "ranked" not in "\n".join(story(output, "u09"))
    with pytest.raises(DataError, match="knows no utterance 'u99'"):
        list(story(output, "u99"))


def test_what_explain_announced_is_what_the_run_did(chain: Chain) -> None:
    assert explained_row(chain.explained, "discover")["new"] == "1"
    described = explain(dataclasses.replace(chain.config, out=f"{chain.config.out}-fresh", aspects="A,E,I"))
    assert explained_row(described, "describe")["new"] == str(report(chain.result, "describe").done)
    assert explained_row(described, "rank")["new"] == str(report(chain.result, "rank").done)
    assert explained_row(described, "rank")["calls"] == "6"


def test_explain_starts_nothing_and_writes_nothing(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Job, "board", lambda self: pytest.fail("Ray is started"))
    calls = chain.server.seen.calls
    explain(dataclasses.replace(chain.config, out=f"{chain.config.out}-fresh"))
    explain(chain.config)
    assert chain.server.seen.calls == calls
    assert not Path(f"{chain.config.out}-fresh").exists()


def test_the_same_command_again_does_nothing_and_says_so(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Job, "board", lambda self: pytest.fail("Ray is started"))
    calls, before = chain.server.seen.calls, files_of(chain.config.out)
    result, _ = run(chain.config)
    assert result.nothing_to_do
    assert chain.server.seen.calls == calls
    assert files_of(chain.config.out) == before
    text = io.StringIO()
    print_result(result, Console(file=text, width=200))
    assert "everything is done already; nothing was asked" in text.getvalue()
    again = explain(chain.config)
    assert [explained_row(again, stage)["new"] for stage in ("discover", "describe", "rank")] == ["0", "0", "0"]


def test_a_manifest_that_a_killed_run_left_behind_is_made_up_for(copied: Callable[..., ExtractConfig]) -> None:
    """As where an earlier run had finished, and this one was killed between its last row and its manifest."""
    output = Output(copied().out)
    whole = output.manifest() or {}
    output.write_json("manifest.json", {**whole, "counts": {}, "cost_usd": 0.0})
    assert run(copied())[0].nothing_to_do
    mended = output.manifest() or {}
    assert (mended["counts"], mended["cost_usd"]) == (whole["counts"], whole["cost_usd"])


def files_of(out: str) -> dict[str, bytes]:
    """Every file of an output but the lease."""
    files = (path for path in Path(out).rglob("*") if path.is_file() and path.name != "_lease.json")
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def test_nothing_of_dev_and_test_is_asked_of_the_language_model(chain: Chain) -> None:
    wire = [json.dumps(body) for body in chain.server.seen.bodies]
    assert len(wire) >= 10
    for name, split in NAMES.items():
        seen_in = [text for text in wire if says(name) in text]
        assert bool(seen_in) == (split == "train"), name
    ranked = [text for text in wire if "Intent: " in text]
    assert len(ranked) == len(TRAIN)


def test_other_labels_of_dev_and_test_change_no_byte_on_the_wire(chain: Chain, tmp_path: Path) -> None:
    """All of them are turned round, so that a label of theirs that found its way into any prompt would show."""
    shifted = write_table(tmp_path / "table.jsonl", COUNTS, shift=1)
    with serve() as server:
        aspects = [a["name"] for a in (Output(chain.config.out).aspects() or {})["aspects"]]
        shutil.copytree(Path(chain.config.out) / "descriptions", tmp_path / "out" / "descriptions")
        config = dataclasses.replace(
            chain.config, data=str(shifted), out=str(tmp_path / "out"), base_url=server.base_url,
            stages="discover,rank",
        )  # fmt: skip
        run(config)
        assert aspects
        assert sent(server) == sent(chain.server)


def sent(server: StandIn) -> list[str]:
    return sorted(json.dumps(body, sort_keys=True) for body in server.seen.bodies)


# ---- what a change reruns ------------------------------------------------------------------------------------------


def test_another_language_model_ranks_anew_and_describes_nothing(copied: Callable[..., ExtractConfig]) -> None:
    before = content(copied().out)
    with serve() as server:
        result, _ = run(copied(llm="other", base_url=server.base_url, stages="describe,rank"))
        assert (report(result, "describe").done, report(result, "rank").done) == (0, 6)
        assert server.seen.paid == 6
    after = content(copied().out)
    assert after[DESCRIPTIONS_FOLDER] == before[DESCRIPTIONS_FOLDER]
    assert not after[RANKINGS_FOLDER] & before[RANKINGS_FOLDER]
    assert_nothing_twice(copied().out)


@pytest.mark.slow
def test_going_back_to_earlier_settings_asks_nothing_and_counts_no_dollar_twice(
    copied: Callable[..., ExtractConfig],
) -> None:
    first, cost = content(copied().out), Output(copied().out).cost_usd()
    with serve() as server:
        other, _ = run(copied(prompting="separate", base_url=server.base_url))
        assert (report(other, "describe").done, report(other, "rank").done) == (10, 6)
        charged = charge(server.seen.bodies, server.seen.paid_by_body)
        assert server.seen.paid == 6
        assert other.cost_usd == pytest.approx(cost + charged)
        back, _ = run(copied(base_url=server.base_url))
        assert (report(back, "describe").done, report(back, "rank").done) == (10, 6)
        assert server.seen.calls == 6
    assert content(copied().out) == first
    assert back.cost_usd == pytest.approx(cost + charged)
    assert (Output(copied().out).manifest() or {})["cost_usd"] == pytest.approx(cost + charged)


@pytest.mark.slow
def test_another_clip_reruns_its_own_utterance_and_no_other(
    copied: Callable[..., ExtractConfig], clips: Path, tmp_path: Path
) -> None:
    changed = Path(shutil.copytree(clips, tmp_path / "clips"))
    write_clip(changed / "u02.mp4", moving_square(20, seed=40) // 8)
    with serve() as server:
        config = copied(videos=str(changed), base_url=server.base_url)
        assert explained_row(explain(config), "describe")["new"] == "1"
        result, _ = run(config)
        assert (report(result, "describe").done, report(result, "rank").done) == (1, 1)
        assert all(says("u02") in json.dumps(body) for body in server.seen.bodies)
    assert_nothing_twice(copied().out)


@pytest.mark.slow
def test_a_limit_that_grows_adds_and_one_that_shrinks_takes_nothing_away(chain: Chain, tmp_path: Path) -> None:
    with serve() as server:
        config = dataclasses.replace(
            chain.config, out=str(tmp_path / "out"), base_url=server.base_url, aspects="A,E,I", limit=1
        )
        first, _ = run(config)
        assert (report(first, "describe").done, report(first, "rank").done) == (3, 1)
        second, _ = run(dataclasses.replace(config, limit=2))
        assert (report(second, "describe").done, report(second, "rank").done) == (3, 1)
        third, _ = run(config)
        assert third.nothing_to_do
        assert server.seen.calls == 2
    assert len(ids_of(config.out, DESCRIPTIONS_FOLDER)) == 6
    assert ids_of(config.out, RANKINGS_FOLDER) == {"u00", "u01"}


# ---- the server ----------------------------------------------------------------------------------------------------

PASSING: dict[str, Fault] = {
    "u00": Fault(kind="retry_after_seconds", retry_after_s=1, first=1),
    "u01": Fault(kind="retry_after_date", retry_after_s=1, first=1),
    "u02": Fault(kind="retry_after_ms", retry_after_s=0.2, first=1),
    "u03": Fault(kind="server_error", first=2),
    "u04": Fault(kind="cut_before", first=1),
    "u05": Fault(kind="cut_within", first=1),
    "u06": Fault(kind="truncated_json", first=1),
    "u07": Fault(kind="hang", first=1),
    "u08": Fault(kind="ranking_missing", first=1),
    "u09": Fault(kind="ranking_repeated", first=1),
    "u10": Fault(kind="ranking_invented", first=1),
    "u11": Fault(kind="not_json", first=1),
}
"""What passes when it is asked again. A spoilt ranking is asked for again by another request, whose first arrival
must not be spoilt as well: `once` below."""
LASTING: dict[str, Kind] = {
    "u12": "refusal",
    "u13": "length",
    "u14": "content_filter",
    "u15": "bad_request",
    "u16": "context_length",
    "u17": "ranking_missing",
    "u18": "ranking_repeated",
    "u19": "ranking_invented",
    "u20": "not_json",
    "u21": "server_error",
}
REASONS = {
    "u12": "refusal", "u13": "length", "u14": "content_filter", "u15": "bad_request", "u16": "length",
    "u17": "ranking", "u18": "ranking", "u19": "ranking", "u20": "ranking", "u21": "attempts",
}  # fmt: skip


def once(name: str, fault: Fault) -> Fault:
    """A fault for one utterance; a spoilt ranking only in the first request, not where the answer is corrected."""
    spoils = fault.kind.startswith("ranking_") or fault.kind == "not_json"
    return dataclasses.replace(fault, text=says(name), times=1 if spoils else None)


@pytest.mark.slow
def test_faults_of_the_server_that_pass_cost_no_row_and_those_that_last_cost_only_their_own(tmp_path: Path) -> None:
    rules = [*(once(name, fault) for name, fault in PASSING.items())]
    rules += [Fault(kind=kind, text=says(name)) for name, kind in LASTING.items()]
    with serve(faults=faults(*rules)) as server:
        config = rank_only(tmp_path, server.base_url, 24, timeout_s=4.0, attempts=3)
        result, _ = run(config)
        calls = server.seen.calls
    assert report(result, "rank").done == 24 - len(LASTING)
    assert report(result, "rank").reasons == {"refusal": 1, "length": 2, "content_filter": 1, "bad_request": 1,
                                              "ranking": 4, "attempts": 1}  # fmt: skip
    quarantine = {row["id"]: row for row in rows_of(config.out, QUARANTINE_FOLDER)}
    assert {name: row["reason"] for name, row in quarantine.items()} == REASONS
    assert all(row["detail"] and row["advice"] and row["stage"] == "rank" for row in quarantine.values())
    assert all(quarantine[name]["raw_answer"] for name in ("u17", "u18", "u19", "u20"))
    assert "Weather" in quarantine["u19"]["raw_answer"]
    assert all(quarantine[name]["attempts"] == 2 for name in ("u17", "u18", "u19", "u20"))
    assert_nothing_twice(config.out)
    assert ids_of(config.out, RANKINGS_FOLDER) == set(names_of({"train": 24})) - set(LASTING)

    with serve() as healthy:
        same = dataclasses.replace(config, base_url=healthy.base_url)
        again, _ = run(same)
        assert again.nothing_to_do
        assert healthy.seen.calls == 0
        retried, _ = run(dataclasses.replace(same, retry_quarantined=True))
        assert healthy.seen.calls < calls
    left = {"u17", "u18", "u19", "u20"}
    assert ids_of(config.out, QUARANTINE_FOLDER) == left, (
        "what was answered twice, and badly, is not asked a third time"
    )
    assert report(retried, "rank").done == len(LASTING) - len(left)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "says_so"),
    [
        ("wrong_key", "rejected the key"),
        ("insufficient_quota", "no quota left"),
        ("model_not_found", "Check the model's name"),
    ],
)
def test_what_no_request_survives_ends_the_job_at_once_and_the_rerun_pays_for_the_rest_alone(
    kind: Kind, says_so: str, tmp_path: Path
) -> None:
    with serve(faults=faults(Fault(kind=kind, requests=tuple(range(4, 1000))))) as server:
        config = rank_only(tmp_path, server.base_url, 30, concurrency=2)
        with pytest.raises(ExtractionError) as ended:
            run(config)
        paid, calls = server.seen.paid, server.seen.calls
    assert (paid, ended.value.exit_code) == (3, 1)
    assert calls <= 3 + 2, "nobody goes on asking"
    for words in (says_so, "safe", "cost", "continue"):
        assert words in str(ended.value)
    with serve() as healthy:
        result, _ = run(dataclasses.replace(config, base_url=healthy.base_url))
        assert healthy.seen.calls == 30 - paid
        assert ids_of(config.out, RANKINGS_FOLDER) == set(names_of({"train": 30}))
    assert_nothing_twice(config.out)
    assert not result.nothing_to_do


def test_a_wrong_key_at_discovery_ends_the_job_with_the_same_three_lines(chain: Chain, tmp_path: Path) -> None:
    with serve(faults=faults(Fault(kind="wrong_key"))) as server:
        config = dataclasses.replace(chain.config, out=str(tmp_path / "out"), base_url=server.base_url)
        with pytest.raises(ExtractionError) as ended:
            run(config)
    for words in ("discover ended early", "rejected the key", "safe", "cost", "continue"):
        assert words in str(ended.value)


@pytest.mark.slow
def test_a_budget_that_is_too_small_stops_and_is_never_exceeded_and_a_larger_one_goes_on(tmp_path: Path) -> None:
    with serve(latency_s=0.01) as server:
        config = rank_only(tmp_path, server.base_url, 20, budget_usd=4.0, callers=2)
        with pytest.raises(ExtractionError, match=r"budget used up.*larger --budget-usd goes on"):
            run(config)
        spent = charge(server.seen.bodies, server.seen.paid_by_body)
        assert 0 < spent <= 4.0
        assert 0 < server.seen.paid < 20
        with pytest.raises(ExtractionError, match="budget used up"):
            run(config)
        assert charge(server.seen.bodies, server.seen.paid_by_body) <= 4.0
        result, _ = run(dataclasses.replace(config, budget_usd=100.0))
        assert server.seen.paid == 20
        assert result.cost_usd == pytest.approx(charge(server.seen.bodies, server.seen.paid_by_body))
    assert ids_of(config.out, RANKINGS_FOLDER) == set(names_of({"train": 20}))
    assert_nothing_twice(config.out)


@pytest.mark.slow
def test_a_budget_counts_answers_that_were_paid_for_and_are_on_no_receipt_yet(tmp_path: Path) -> None:
    """As after a run that was killed before it wrote a row, and had no budget."""
    with serve() as server:
        config = rank_only(tmp_path, server.base_url, 10)
        first, _ = run(config)
        shutil.rmtree(Path(config.out) / RANKINGS_FOLDER)
        more = rank_only(tmp_path, server.base_url, 12, budget_usd=first.cost_usd)
        with pytest.raises(ExtractionError, match="budget used up"):
            run(more)
        assert server.seen.calls == 10


@pytest.mark.slow
def test_a_refusal_that_is_asked_for_again_stands_once_and_is_counted_twice(tmp_path: Path) -> None:
    with serve(faults=faults(Fault(kind="refusal", text=says("u01")))) as server:
        config = rank_only(tmp_path, server.base_url, 3)
        first, _ = run(config)
        refused = rows_of(config.out, QUARANTINE_FOLDER)[0]["cost_usd"]
        second, _ = run(dataclasses.replace(config, retry_quarantined=True))
        assert server.seen.paid == 4
    assert refused > 0
    assert second.cost_usd == pytest.approx(first.cost_usd + refused)
    assert_nothing_twice(config.out)


# ---- clips and engines ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_bad_clips_are_set_aside_with_reason_and_advice_and_the_others_are_done(tmp_path: Path) -> None:
    names = names_of({"train": 10})
    clips = write_clips(tmp_path / "clips", list(names))
    truncated(clips / "u01.mp4", clips / "cut.tmp").replace(clips / "u01.mp4")
    empty(clips / "u02.mp4")
    text_as(clips / "u03.mp4")
    write_sound(clips / "sound.wav").replace(clips / "u04.mp4")
    with_bad_packets(clips / "u05.mp4")
    os.remove(clips / "u06.mp4")
    write_clip(clips / "u07.mp4", moving_square(1))
    (clips / "u08.mp4").rename(clips / "a name with 'quotes' and \"blanks\".mp4")
    table = write_table(tmp_path / "table.jsonl", {"train": 10})
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    rows[8]["video"] = "a name with 'quotes' and \"blanks\".mp4"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with serve() as server:
        config = settings(table, tmp_path / "out", server.base_url, videos=str(clips), aspects="A,E,I")
        result, _ = run(config)
        bad = {"u01", "u02", "u03", "u04", "u05", "u06"}
        assert ids_of(config.out, QUARANTINE_FOLDER) == bad
        assert ids_of(config.out, DESCRIPTIONS_FOLDER) == ids_of(config.out, RANKINGS_FOLDER) == set(names) - bad
        quarantine = {row["id"]: row for row in rows_of(config.out, QUARANTINE_FOLDER)}
        assert quarantine["u06"]["reason"] == "no_clip"
        assert all(quarantine[name]["reason"] == "clip" for name in bad - {"u06"})
        assert all(row["detail"] and "--retry-quarantined" in row["advice"] for row in quarantine.values())
        assert report(result, "describe").reasons == {"clip": 5, "no_clip": 1}
        assert run(config)[0].nothing_to_do

        write_clip(clips / "u06.mp4", moving_square(8, seed=3))  # a clip that is mended is taken up without a flag
        mended, _ = run(config)
        assert (report(mended, "describe").done, report(mended, "rank").done) == (1, 1)
        assert ids_of(config.out, QUARANTINE_FOLDER) == bad - {"u06"}


@pytest.mark.slow
def test_a_clip_on_which_engine_after_engine_dies_is_set_aside_and_its_neighbours_are_done(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = describing_stage.engine_config

    def deadly(config: ExtractConfig) -> EngineConfig:
        scripted = Scripted(faults={"u03": "die", "u05": "malformed", "u06": "malformed once", "u07": "raise"})
        return dataclasses.replace(plain(config), scripted=scripted)

    monkeypatch.setattr(describing_stage, "engine_config", deadly)
    config = dataclasses.replace(chain.config, out=str(tmp_path / "out"), aspects="A,E,I", stages="describe")
    result, _ = run(config)
    quarantine = {row["id"]: row for row in rows_of(config.out, QUARANTINE_FOLDER)}
    assert {name: row["reason"] for name, row in quarantine.items()} == {
        "u03": "engine", "u05": "sections", "u07": "engine",
    }  # fmt: skip
    assert "the engine died 3 times" in quarantine["u03"]["detail"]
    assert quarantine["u05"]["raw_answer"]
    assert ids_of(config.out, DESCRIPTIONS_FOLDER) == set(NAMES) - set(quarantine)
    assert_nothing_twice(config.out)
    assert report(result, "describe").done == 7


@pytest.mark.slow
def test_a_remote_engine_that_fails_on_the_way_is_asked_again_and_never_twice_for_what_it_answered(
    chain: Chain, tmp_path: Path
) -> None:
    rules = (
        Fault(kind="server_error", text=says("u01"), times=2),
        Fault(kind="retry_after_ms", retry_after_s=0.1, text=says("u02"), times=1),
        Fault(kind="truncated_json", text=says("u03"), times=1),
        Fault(kind="refusal", text=says("u04")),
    )
    with serve(faults=faults(*rules)) as server:
        config = dataclasses.replace(
            chain.config, out=str(tmp_path / "out"), aspects="A,E", stages="describe", engine="remote", model="seer",
            model_url=server.base_url, prompting="separate",
        )  # fmt: skip
        result, _ = run(config)
        assert report(result, "describe").reasons == {"refusal": 1}
        assert ids_of(config.out, DESCRIPTIONS_FOLDER) == set(NAMES) - {"u04"}
        wire = [json.dumps(body) for body in server.seen.bodies]
        assert all("data:image/jpeg;base64," in text for text in wire)
        assert not any(label in text for text in wire for label in LABELS)
        calls = server.seen.calls
        shutil.rmtree(Path(config.out) / DESCRIPTIONS_FOLDER)
        again, _ = run(config)
        assert report(again, "describe").done == len(NAMES) - 1
        assert server.seen.calls == calls
    assert_nothing_twice(config.out)


@pytest.mark.slow
def test_an_engine_that_cannot_start_ends_the_job_with_its_own_words(chain: Chain, tmp_path: Path) -> None:
    config = dataclasses.replace(
        chain.config, out=str(tmp_path / "out"), aspects="A,E", stages="describe", engine="vllm", model=str(tmp_path)
    )
    with pytest.raises(ExtractionError, match="describe ended early") as ended:
        run(config)
    words = str(ended.value).lower()
    assert "vllm" in words or "config.json" in words or str(tmp_path).lower() in words  # is it installed?
    assert "Traceback" not in str(ended.value)
    assert len(str(ended.value).splitlines()) <= 6


def test_a_model_folder_that_is_not_there_is_refused_before_anything_starts(chain: Chain, tmp_path: Path) -> None:
    config = dataclasses.replace(
        chain.config, out=str(tmp_path / "out"), aspects="A,E", stages="describe", engine="vllm", model="/nowhere"
    )
    with pytest.raises(ConfigError, match="no such folder"):
        run(config)


def test_a_row_set_aside_by_new_settings_stays_so_though_older_work_on_it_stands(
    copied: Callable[..., ExtractConfig],
) -> None:
    """The old ranking is kept until a new one is there; the refusal is remembered all the same."""
    with serve(faults=faults(Fault(kind="refusal", text=says("u01")))) as server:
        config = copied(llm="other", base_url=server.base_url, stages="describe,rank")
        result, _ = run(config)
        assert (report(result, "rank").done, report(result, "rank").set_aside) == (5, 1)
        calls, cost = server.seen.calls, result.cost_usd
        again, _ = run(config)
        assert again.nothing_to_do
        assert server.seen.calls == calls
        assert again.cost_usd == pytest.approx(cost)


@pytest.mark.slow
def test_answers_that_were_kept_and_not_written_down_are_not_asked_for_again(tmp_path: Path) -> None:
    with serve() as server:
        config = rank_only(tmp_path, server.base_url)
        first, _ = run(config)
        before = content(config.out)
        for name in (RANKINGS_FOLDER, "manifest.json"):
            path = Path(config.out) / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        assert explained_row(explain(config), "rank")["calls"] == "0"
        second, _ = run(config)
        assert server.seen.calls == 6
    assert content(config.out) == before
    assert second.cost_usd == pytest.approx(first.cost_usd)
    assert len(AnswerStore(config.out).fingerprints()) == 6
    assert is_ranking(server.seen.bodies[0])
    assert set(rows_of(config.out, RANKINGS_FOLDER)[0]["aspects"]) == set(ASPECTS)
