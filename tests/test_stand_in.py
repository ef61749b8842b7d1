"""The server that stands in for a language model: what it says, what it records, what it enforces."""

from __future__ import annotations

import json
import random
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lgsrr.aspects import CANONICAL, canonical
from lgsrr.errors import ConfigError
from pipelines.stand_in.cues import shows, telling
from pipelines.stand_in.faults import Fault, FaultPicker, Faults, faults
from pipelines.stand_in.limits import ServerLimits, SlidingWindow
from pipelines.stand_in.process import serve as serve_elsewhere
from pipelines.stand_in.rules import content_for
from pipelines.stand_in.schemas import simplest
from pipelines.stand_in.server import serve

NAMES = list(CANONICAL.values())


def asked(text: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    body: dict[str, Any] = {"model": "any", "messages": [{"role": "user", "content": text}]}
    if schema is not None:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    return body


def array_of(name: str, items: dict[str, Any]) -> dict[str, Any]:
    fields = {name: {"type": "array", "items": items}}
    return {"type": "object", "properties": fields, "required": [name], "additionalProperties": False}


RANKING = array_of("ranking", {"type": "string", "enum": NAMES})
ASPECTS = array_of(
    "aspects",
    {"type": "object", "properties": {"name": {"type": "string"}, "instruction": {"type": "string"}}},
)


def said(text: str, schema: dict[str, Any]) -> Any:
    return json.loads(content_for(asked(text, schema)))


def ranking_prompt(order: list[str]) -> str:
    described = {
        "Facial Expressions": "The face shows a complaining look, brows drawn.",
        "Scene Description": "A room.",
        "Speakers' Actions": "The speaker waves both hands and points towards the door.",
    }
    lines = [f"- {name}: {described.get(name, 'Nothing to be seen.')}" for name in order]
    return "\n".join(["Intent label: Complain", *lines, "Rank the aspects."])


def test_a_ranking_is_a_permutation_that_does_not_depend_on_the_order_shown() -> None:
    rankings = set()
    for seed in range(20):
        order = random.Random(seed).sample(NAMES, len(NAMES))
        schema = array_of("ranking", {"type": "string", "enum": order})
        rankings.add(tuple(said(ranking_prompt(order), schema)["ranking"]))
    assert len(rankings) == 1
    assert sorted(rankings.pop()) == sorted(NAMES)


def test_an_aspect_whose_description_speaks_of_the_label_is_ranked_first() -> None:
    ranking = said(ranking_prompt(NAMES), RANKING)["ranking"]
    assert ranking[0] == "Facial Expressions"
    assert ranking.index("Speakers' Actions") < ranking.index("Scene Description")


def test_a_schema_in_words_is_followed_as_one_in_the_response_format() -> None:
    words = f"{ranking_prompt(NAMES)}\n\nIt must follow this JSON schema:\n{json.dumps(RANKING)}"
    assert json.loads(content_for(asked(words))) == said(ranking_prompt(NAMES), RANKING)


def test_discovery_finds_the_six_aspects_in_varied_subsets_and_spellings() -> None:
    answers = [said(f"subset {number}", ASPECTS)["aspects"] for number in range(40)]
    names = {aspect["name"] for answer in answers for aspect in answer}
    assert len({len(answer) for answer in answers}) > 1
    assert set(NAMES) < names
    assert all(aspect["instruction"] for answer in answers for aspect in answer)
    assert said("subset 3", ASPECTS)["aspects"] == answers[3]


@pytest.mark.parametrize(
    "item",
    [
        {"type": "array", "items": {"type": "string"}},
        {
            "type": "object",
            "properties": {"name": {"type": "string"}, "members": {"type": "array", "items": {"type": "string"}}},
            "required": ["name", "members"],
        },
    ],
)
def test_names_that_mean_the_same_are_merged_in_the_form_asked_for(item: dict[str, Any]) -> None:
    text = 'Names: ["Facial Expressions", "Tone of Voice", "facial expression", "Vocal Tone", "Clothes"]'
    groups = said(text, array_of("groups", item))["groups"]
    members = [group if isinstance(group, list) else group["members"] for group in groups]
    assert members == [["Facial Expressions", "facial expression"], ["Tone of Voice", "Vocal Tone"], ["Clothes"]]


def test_any_other_schema_gets_its_simplest_instance() -> None:
    schema = {
        "type": "object",
        "properties": {
            "kind": {"enum": ["a", "b"]},
            "count": {"type": "integer", "minimum": 2},
            "parts": {"type": "array", "items": {"$ref": "#/$defs/part"}, "minItems": 1},
            "maybe": {"anyOf": [{"type": "null"}, {"type": "string"}]},
        },
        "$defs": {"part": {"type": "string", "minLength": 6}},
    }
    assert simplest(schema) == {"kind": "a", "count": 2, "parts": ["wordss"], "maybe": None}


def test_a_window_never_holds_more_than_its_limits_wherever_it_begins() -> None:
    now = 0.0
    window = SlidingWindow(ServerLimits(rpm=5, tpm=100), clock=lambda: now)
    generator = random.Random(0)
    admitted: list[tuple[float, int]] = []
    for _ in range(500):
        now += generator.uniform(0, 6)
        tokens = generator.randint(1, 40)
        verdict = window.admit(tokens)
        if verdict.admitted:
            admitted.append((now, tokens))
        else:
            assert verdict.wait_s > 0
            assert float(verdict.headers["retry-after-ms"]) >= 1000 * verdict.wait_s
    for start, _ in admitted:
        inside = [tokens for then, tokens in admitted if start <= then < start + 60]
        assert len(inside) <= 5
        assert sum(inside) <= 100


def test_waiting_as_long_as_told_is_long_enough() -> None:
    now = 0.0
    window = SlidingWindow(ServerLimits(rpm=2, tpm=50), clock=lambda: now)
    for tokens in (30, 20, 40, 50, 1, 1):
        verdict = window.admit(tokens)
        if not verdict.admitted:
            now += verdict.wait_s
            assert window.admit(tokens).admitted


def test_faults_meet_the_requests_that_they_name_and_a_share_is_drawn_by_the_seed() -> None:
    plan = faults(
        Fault(kind="hang", requests=(2,)),
        Fault(kind="refusal", text="dialogue_7", first=1),
        Fault(kind="length", text="odd", times=1),
        Fault(kind="server_error", share=0.3),
    )
    picker = FaultPicker(plan)
    assert picker.pick(number=2, text="", arrivals=1) == plan.rules[0]
    assert picker.pick(number=3, text="… dialogue_7 …", arrivals=1) == plan.rules[1]
    assert picker.pick(number=4, text="odd", arrivals=1) == plan.rules[2]
    kinds = Counter(bool(picker.pick(number=number, text="odd", arrivals=2)) for number in range(1000, 2000))
    assert 250 < kinds[True] < 350
    again = FaultPicker(Faults.from_json(json.loads(json.dumps(plan.to_json()))))
    draws = [bool(again.pick(number=number, text="", arrivals=2)) for number in range(1000, 2000)]
    assert sum(draws) == kinds[True]


def test_a_fault_that_does_not_exist_is_named(tmp_path: Path) -> None:
    file = tmp_path / "faults.json"
    file.write_text('{"rules": [{"kind": "tired"}]}')
    with pytest.raises(ConfigError, match="tired"):
        Faults.from_file(file)


def test_it_says_on_the_wire_that_it_is_a_stand_in_and_records_what_it_saw() -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with serve() as server:
        for _ in range(2):
            body = json.dumps(asked("hello")).encode()
            request = urllib.request.Request(f"{server.base_url}/chat/completions", data=body)
            with direct.open(request, timeout=30) as response:
                answer = json.load(response)
        with direct.open(f"{server.base_url}/models", timeout=30) as response:
            models = json.load(response)["data"]
        assert answer["model"] == "stand-in"
        assert answer["system_fingerprint"].startswith("stand-in")
        assert {model["owned_by"] for model in models} == {"stand-in"}
        assert server.seen.calls == server.seen.paid == 2
        assert list(server.seen.by_body.values()) == [2]
        assert server.seen.bodies == [asked("hello")] * 2


def test_a_server_in_its_own_process_tells_what_it_saw_and_ends_with_the_block() -> None:
    with serve_elsewhere(faults=faults(Fault(kind="server_error", share=0.5)), limits=ServerLimits(rpm=7)) as server:
        assert server.seen()["calls"] == 0
    with pytest.raises(OSError, match="refused"):
        server.seen()


@pytest.mark.parametrize(
    ("label", "first"),
    [("Praise", "Facial Expressions"), ("Greet", "Speakers' Actions"), ("Lament", "Interaction with Others")],
)
def test_the_aspect_that_shows_the_label_comes_first_however_short_it_is(label: str, first: str) -> None:
    lines = {
        "Speakers' Actions": "Waves.",
        "Interaction with Others": "Alone.",
        "Scene Description": "A long and winding account of a room with chairs, lamps, tables, curtains and carpets.",
        "Facial Expressions": "Smiles.",
    }
    text = "\n".join([f"Intent: {label}", *(f"- {name}: {seen}" for name, seen in lines.items())])
    schema = array_of("ranking", {"type": "string", "enum": list(lines)})
    assert said(text, schema)["ranking"][:2] == [first, "Scene Description"]


def test_a_head_that_is_shaken_refuses_and_hands_that_are_shaken_promise() -> None:
    assert shows("Refuse", "A", "The person is shaking the head left and right.")
    assert not shows("Refuse", "A", "Two people shake hands.")
    assert shows("Promise", "I", "They are shaking hands.")
    assert not shows("Promise", "I", "One shakes the head.")
    assert not shows("Refuse", "I", "The person is shaking the head.")
    assert not shows("no such intent", "A", "The person waves.")


def test_discovery_names_the_aspects_that_tell_the_intents_of_the_request_every_time() -> None:
    asked_for = "The intents are: Agree, Refuse, Praise, Taunt, Plead.\n\nSome utterances (sample {0} of 20)"
    answers = [said(asked_for.format(number), ASPECTS)["aspects"] for number in range(20)]
    for answer in answers:
        assert {canonical(aspect["name"]) or aspect["name"] for aspect in answer[:3]} & set(NAMES[:3])
    assert len({len(answer) for answer in answers}) > 1
    assert all(len(answer) >= 3 for answer in answers)
    assert telling(["Agree", "Refuse", "Praise", "Taunt", "Plead", "?"]) == ["A", "E", "I"]
