"""Discovery: what is asked, how names are merged and counted, and what is kept."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from lgsrr.errors import ConfigError
from lgsrr.records import Utterance
from pipelines.calls import Answer, ExtractionError, Refused, Request, Usage
from pipelines.discover import DiscoverAsk, by_hand, discover, fingerprint, requests

LABELS = ("Praise", "Taunt")
DATA = [
    Utterance(id=f"{split}{i}", text=f"words {split} {i}", split=split, label=f"Secret{i}")
    for split in ("train", "dev", "test")
    for i in range(30)
]


class Named:
    """An asker whose answers name what it is told to; a merging request gets `groups`."""

    def __init__(self, answers: list[Any], groups: Any = None) -> None:
        self.answers, self.groups, self.asked = answers, groups, list[Request]()

    async def ask(self, request: Request) -> Answer:
        self.asked.append(request)
        value = self.groups if request.schema_name == "groups" else self.answers.pop(0)
        if isinstance(value, Refused):
            raise value
        text = value if isinstance(value, str) else json.dumps(value)
        return Answer(fingerprint=request.fingerprint, text=text, model="m", usage=Usage(cost_usd=0.1))


def aspects(*names: str) -> dict[str, Any]:
    return {"aspects": [{"name": name, "instruction": f"Look at {name.lower()}."} for name in names]}


def run(answers: list[Any], groups: Any = None, k: int = 2) -> tuple[Any, Named]:
    ask = DiscoverAsk(model="m", k=k, rounds=len(answers))
    asker = Named(list(answers), groups)
    return asyncio.run(discover(requests(DATA, LABELS, ask), ask, asker)), asker


def test_only_training_utterances_are_shown_and_never_their_labels() -> None:
    asked = requests(DATA, LABELS, DiscoverAsk(model="m"))
    for request in asked:
        text = json.dumps(request.messages)
        assert "words train" in text
        assert "words dev" not in text
        assert "words test" not in text
        assert "Secret" not in text
        assert "Praise, Taunt" in text


def test_subsets_differ_from_round_to_round_and_not_from_run_to_run() -> None:
    ask = DiscoverAsk(model="m", subset=5)
    asked = requests(DATA, LABELS, ask)
    assert len({request.fingerprint for request in asked}) == ask.rounds
    assert [r.fingerprint for r in asked] == [r.fingerprint for r in requests(DATA, LABELS, ask)]
    assert fingerprint(asked, ask) != fingerprint(asked, DiscoverAsk(model="m", subset=5, k=4))


def test_case_plural_and_known_aliases_count_as_one_name() -> None:
    found, asker = run(
        [
            aspects("Body language", "Facial Expressions"),
            aspects("speakers actions", "facial expressions"),
            aspects("Speaker's Actions"),
        ]
    )
    assert [(a.name, a.frequency) for a in found.aspects] == [("Speakers' Actions", 3), ("Facial Expressions", 2)]
    assert [r.schema_name for r in asker.asked] == ["aspects"] * 3  # nothing was left for a merging call


def test_synonyms_are_merged_by_a_second_call_and_recorded() -> None:
    groups = {"groups": [{"name": "Gaze", "names": ["Gaze", "Eye contact"]}, {"name": "x", "names": ["Unheard"]}]}
    found, asker = run([aspects("Gaze"), aspects("Eye contacts"), aspects("A", "Eye contact")], groups)
    assert [(a.name, a.frequency) for a in found.aspects] == [("Gaze", 3), ("Speakers' Actions", 1)]
    table = {row["name"]: row for row in found.document["found"]["table"]}
    assert table["Gaze"]["said"] == ["Eye contact", "Eye contacts", "Gaze"]
    assert asker.asked[-1].schema_name == "groups"
    assert found.usage.cost_usd == pytest.approx(0.4)


def test_an_answer_counts_a_name_once_however_often_it_says_it() -> None:
    found, _ = run([aspects("A", "Actions", "E"), aspects("E")])
    assert [(a.name, a.frequency) for a in found.aspects] == [("Facial Expressions", 2), ("Speakers' Actions", 1)]


def test_an_unreadable_answer_is_asked_for_once_more() -> None:
    ask = DiscoverAsk(model="m", k=2, rounds=1)
    asker = Named(["no json", aspects("A", "E")])
    found = asyncio.run(discover(requests(DATA, LABELS, ask), ask, asker))
    assert [a.frequency for a in found.aspects] == [1, 1]
    assert "This cannot be used" in asker.asked[1].messages[-1]["content"]


def test_a_merging_answer_that_cannot_be_read_leaves_the_rules() -> None:
    found, _ = run([aspects("Gaze", "Posture"), aspects("Gaze")], groups="?")
    assert [a.name for a in found.aspects] == ["Gaze", "Posture"]
    assert "could not be used" in found.document["found"]["merged_by"]


def test_mostly_refused_answers_end_discovery_with_the_way_out() -> None:
    refused = Refused("I cannot", kind="refusal")
    with pytest.raises(ExtractionError, match=r"I cannot.*--aspects A,E,I"):
        run([refused, refused, aspects("A")])


def test_fewer_aspects_than_asked_for_are_told() -> None:
    with pytest.raises(ExtractionError, match="named 1 different aspects, 2 are asked for"):
        run([aspects("A"), aspects("Actions")])


def test_aspects_by_hand_are_known_by_short_name_or_taken_as_named() -> None:
    found = by_hand("A, Gaze,SD")
    assert [a.name for a in found.aspects] == ["Speakers' Actions", "Gaze", "Scene Description"]
    assert all(a.instruction for a in found.aspects)
    assert found.document["found"]["by"] == "hand"


@pytest.mark.parametrize(("names", "problem"), [("A,Actions", "twice"), (" , ", "names none")])
def test_aspects_by_hand_that_repeat_or_are_none_are_refused(names: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        by_hand(names)
