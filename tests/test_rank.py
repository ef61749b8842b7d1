"""Ranking: what is asked, in which order aspects are shown, and which answers are taken."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lgsrr.records import Utterance
from pipelines.calls import Answer, Refused, Request, Usage
from pipelines.plan import work_text
from pipelines.rank import (
    RankAsk,
    RankWork,
    parse_ranking,
    position_bias,
    rank_request,
    rank_work,
    ranking_schema,
    shuffled,
)
from pipelines.rank_rows import rank_one, work_from_text

ASPECTS = ("Speakers' Actions", "Facial Expressions", "Interaction with Others")
ASK = RankAsk(model="m")


def utterance(name: str, split: str = "train", label: str | None = "Praise") -> Utterance:
    return Utterance(id=name, text=f"text of {name}", split=split, label=label)  # type: ignore[arg-type]


def described(names: Sequence[str]) -> dict[str, dict[str, str]]:
    return {name: {aspect: f"{name}: {aspect} as seen" for aspect in ASPECTS} for name in names}


def one_work() -> RankWork:
    return rank_work([utterance("u")], described(["u"]), ASPECTS, seed=0)[0]


class Says:
    """An asker that gives its answers one after the other and keeps what it was asked."""

    def __init__(self, *texts: str | Refused) -> None:
        self.texts, self.asked = list(texts), list[Request]()

    async def ask(self, request: Request) -> Answer:
        self.asked.append(request)
        text = self.texts.pop(0)
        if isinstance(text, Refused):
            raise text
        usage = Usage(input_tokens=10, output_tokens=5, cost_usd=0.01)
        return Answer(fingerprint=request.fingerprint, text=text, model="m-1", usage=usage, created_at=1.0)


def ranking(*names: str) -> str:
    return json.dumps({"ranking": names})


def test_dev_and_test_utterances_and_those_without_a_label_or_description_are_not_ranked() -> None:
    data = [utterance("a"), utterance("b", "dev"), utterance("c", "test"), utterance("d", label=None), utterance("e")]
    works = rank_work(data, described(["a", "b", "c", "d"]), ASPECTS, seed=0)
    assert [work.id for work in works] == ["a"]


def test_the_order_shown_is_drawn_for_each_utterance_and_is_the_same_every_time() -> None:
    orders = [tuple(shuffled(ASPECTS, f"u{i}", seed=0)) for i in range(600)]
    assert orders == [tuple(shuffled(ASPECTS, f"u{i}", seed=0)) for i in range(600)]
    counts = Counter(orders)
    assert len(counts) == 6
    assert min(counts.values()) > 60
    assert orders != [tuple(shuffled(ASPECTS, f"u{i}", seed=1)) for i in range(600)]


def test_the_request_holds_text_label_and_descriptions_in_the_order_shown() -> None:
    work = one_work()
    request = rank_request(work, ASK)
    question = request.messages[1]["content"]
    assert "text of u" in question
    assert "Intent: Praise" in question
    places = [question.index(text) for _, text in work.descriptions]
    assert places == sorted(places)
    assert request.schema == ranking_schema(sorted(ASPECTS))


def test_anything_that_could_change_the_answer_changes_the_fingerprint() -> None:
    work = one_work()
    marks = {
        rank_request(work, ASK).fingerprint,
        rank_request(work, RankAsk(model="other")).fingerprint,
        rank_request(work, RankAsk(model="m", temperature=1.0)).fingerprint,
        rank_request(rank_work([utterance("u")], described(["u"]), ASPECTS, seed=3)[0], ASK).fingerprint,
    }
    assert len(marks) == 4
    assert rank_request(one_work(), ASK).fingerprint in marks


@given(st.permutations(ASPECTS))
def test_every_permutation_is_read_back(order: list[str]) -> None:
    assert parse_ranking(ranking(*order), ASPECTS) == tuple(order)


def test_aliases_and_words_around_the_json_are_understood() -> None:
    said = 'Sure! ```json\n{"ranking": ["speakers actions", "Emotions and Facial Expressions", "I"]}\n```'
    assert parse_ranking(said, ASPECTS) == ASPECTS


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (ranking(*ASPECTS[:2]), "'Interaction with Others' is not ranked"),
        (ranking(ASPECTS[0], ASPECTS[0], ASPECTS[1]), "ranked twice"),
        (ranking(*ASPECTS, "Weather"), "'Weather' is none of the aspects"),
        ('{"ranking": ["Speakers', "not JSON"),
        ('{"order": []}', "list 'ranking'"),
        ("", "not JSON"),
    ],
)
def test_what_is_no_permutation_is_refused_with_its_reason(text: str, problem: str) -> None:
    with pytest.raises(Refused, match=problem):
        parse_ranking(text, ASPECTS)


def test_a_bad_answer_is_asked_for_once_more_with_what_was_wrong() -> None:
    asker = Says(ranking(*ASPECTS[:2]), ranking(*ASPECTS))
    outcome = asyncio.run(rank_one(one_work(), ASK, asker))
    assert (outcome.status, outcome.aspects) == ("done", ASPECTS)
    assert "is not ranked" in asker.asked[1].messages[-1]["content"]
    receipt = outcome.receipts[0]
    assert receipt.fingerprint == asker.asked[0].fingerprint
    assert (receipt.attempts, receipt.input_tokens, receipt.cost_usd) == (2, 20, 0.02)


def test_two_bad_answers_set_the_row_aside_with_the_raw_answer_and_its_cost() -> None:
    outcome = asyncio.run(rank_one(one_work(), ASK, Says("no", "never")))
    assert (outcome.status, outcome.reason) == ("quarantined", "ranking")
    assert outcome.receipts[0].raw_answer == "never"
    assert outcome.receipts[0].cost_usd == 0.02
    assert "--retry-quarantined" in outcome.advice or "--llm" in outcome.advice


def test_a_refusal_sets_the_row_aside_and_what_it_cost_is_kept() -> None:
    refusal = Refused("I cannot", kind="refusal", usage=Usage(cost_usd=0.5))
    outcome = asyncio.run(rank_one(one_work(), ASK, Says(refusal)))
    assert (outcome.status, outcome.reason, outcome.usage.cost_usd) == ("quarantined", "refusal", 0.5)


def test_work_travels_as_text_unchanged() -> None:
    assert work_from_text(work_text(one_work())) == one_work()


def test_position_bias_is_none_of_a_fair_judge_and_full_of_one_who_leaves_all_as_shown() -> None:
    shown = [shuffled(ASPECTS, f"u{i}", seed=0) for i in range(900)]
    fair = position_bias([(order, ASPECTS) for order in shown])
    lazy = position_bias([(order, order) for order in shown])
    assert fair is not None
    assert lazy is not None
    assert fair.first_first == pytest.approx(1 / 3, abs=0.05)
    assert fair.correlation == pytest.approx(0.0, abs=0.08)
    assert (lazy.first_first, lazy.correlation) == (1.0, 1.0)
    assert sum(map(sum, fair.counts)) == 2700
    assert position_bias([]) is None
