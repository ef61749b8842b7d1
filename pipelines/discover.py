"""Step 1, discovery: which kinds of cues carry intent in this dataset, as a language model names them (paper 3.1, step
1).

Random subsets of training utterances and the task's background go to the model several times (Template 1 of Appendix C;
the wording is ours), and each answer names aspects with an instruction of one sentence. Names that mean the same are
merged: the six known ones by `lgsrr.aspects`, case and plurals by rule, synonyms by one more call. The most frequent K
are kept; aspects.json holds the whole table.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lgsrr.aspects import CANONICAL, canonical
from lgsrr.errors import ConfigError
from lgsrr.records import Aspect, Utterance

from .calls import Answer, Asks, ExtractionError, Json, Refused, Request, Usage, fingerprint_of
from .describe_prompts import instruction_of
from .json_answers import json_in
from .rank import again

PROMPT_VERSION = "discover-1"

_SYSTEM = (
    "You study how people show what they intend in short clips of conversations. You name the kinds of semantic cues "
    "that can be "
    "seen in such clips and help to recognise a speaker's intent beyond the words."
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DiscoverAsk:
    """How aspects are asked for."""

    model: str
    k: int = 3
    """Aspects kept."""
    rounds: int = 10
    """Answers asked for, each over another subset."""
    subset: int = 20
    """Utterances in each subset."""
    temperature: float = 0.7
    seed: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What discovery found."""

    aspects: tuple[Aspect, ...]
    document: Mapping[str, Json]
    """aspects.json."""
    usage: Usage = dataclasses.field(default_factory=Usage)


def by_hand(names: str) -> Found:
    """Aspects named on the command line: "A,E,I", or any names, known ones by their short form."""
    given = [name.strip() for name in names.split(",") if name.strip()]
    aspects = []
    for name in given:
        known = canonical(name)
        aspect = Aspect(name=known or name)
        aspects.append(dataclasses.replace(aspect, instruction=instruction_of(aspect)))
    repeated = [a.name for i, a in enumerate(aspects) if a.name in {b.name for b in aspects[:i]}]
    if repeated or not aspects:
        wrong = f"names {repeated[0]!r} twice" if repeated else "names none"
        raise ConfigError(
            f"--aspects {names!r} {wrong}; expected names such as A,E,I ({', '.join(CANONICAL)} are known)"
        )
    mark = fingerprint_of({"by": "hand", "aspects": [dataclasses.astuple(a) for a in aspects]})
    return Found(aspects=tuple(aspects), document=_document(aspects, {"by": "hand", "fingerprint": mark}))


def requests(utterances: Sequence[Utterance], labels: Sequence[str], ask: DiscoverAsk) -> list[Request]:
    """Template 1, once for each round; utterances of the training split, without their labels."""
    training = [u for u in utterances if u.split == "train"]
    drawn = random.Random(hashlib.sha256(f"discover:{ask.seed}".encode()).digest())
    made = []
    for place in range(ask.rounds):
        subset = drawn.sample(training, min(ask.subset, len(training)))
        lines = "\n".join(f'- "{u.text}"' for u in subset)
        question = (
            "The task is to recognise a speaker's intent from the words and the clip. The intents are: "
            f"{', '.join(labels)}.\n\n"
            f"Some utterances of the task (sample {place + 1} of {ask.rounds}):\n{lines}\n\n"
            "Name the aspects of such a clip under which it should be described so that the intent can be recognised: "
            "for each a short "
            "name, and an instruction of one sentence to somebody who describes the clip under it. Name 3 to 8, most "
            "useful first."
        )
        made.append(
            Request(
                model=ask.model,
                messages=({"role": "system", "content": _SYSTEM}, {"role": "user", "content": question}),
                parameters={"temperature": ask.temperature, "max_tokens": 800, "seed": ask.seed + place},
                schema=_ASPECTS_SCHEMA,
                schema_name="aspects",
            )
        )
    return made


def fingerprint(asked: Sequence[Request], ask: DiscoverAsk) -> str:
    """Of the whole discovery: all that it asks first, and how many aspects it keeps."""
    return fingerprint_of({"requests": [r.fingerprint for r in asked], "k": ask.k, "version": PROMPT_VERSION})


async def discover(asked: Sequence[Request], ask: DiscoverAsk, asker: Asks) -> Found:
    """Ask, merge, count and keep the most frequent K.

    Raises ExtractionError where fewer than half of the answers can be used, or fewer than K aspects are named.
    """
    charged = _Charged(asker)
    results = await asyncio.gather(*(_named(request, charged) for request in asked), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, Refused):
            raise result
    answers = [r for r in results if not isinstance(r, BaseException)]
    refused = [r for r in results if isinstance(r, Refused)]
    if 2 * len(answers) < len(asked):
        reason = refused[0].reason if refused else "no reason given"
        raise ExtractionError(
            f"discovery: {len(refused)} of {len(asked)} answers of {ask.model} could not be used, the first because: "
            f"{reason}. "
            "Name the aspects by hand (--aspects A,E,I), or ask another model (--llm)."
        )
    spelled = Counter(name for named in answers for name in {_plain(n): n for n, _ in named}.values())
    groups, merged_by = await _merge(sorted(spelled), ask, charged)
    frequency: Counter[str] = Counter()
    instructions: dict[str, Counter[str]] = {}
    for named in answers:
        frequency.update({groups[name] for name, _ in named if name in groups})
        for name, instruction in named:
            if name in groups:
                instructions.setdefault(groups[name], Counter())[instruction] += 1
    order = sorted(frequency, key=lambda name: (-frequency[name], name))
    if len(order) < ask.k:
        raise ExtractionError(
            f"discovery: {ask.model} named {len(order)} different aspects, {ask.k} are asked for (--k). Lower --k, "
            "raise --rounds, or "
            "name them by hand: --aspects A,E,I"
        )
    kept = [
        Aspect(name=name, instruction=_instruction(name, instructions[name]), frequency=frequency[name])
        for name in order[: ask.k]
    ]
    table = [
        {"name": name, "frequency": frequency[name], "said": sorted(s for s, g in groups.items() if g == name)}
        for name in order
    ]
    how = {
        "by": "llm",
        "model": ask.model,
        "prompt_version": PROMPT_VERSION,
        "fingerprint": fingerprint(asked, ask),
        "answers": len(answers),
        "refused": [r.reason for r in refused],
        "seed": ask.seed,
        "merged_by": merged_by,
        "table": table,
        "cost_usd": charged.usage.cost_usd,
        "input_tokens": charged.usage.input_tokens,
        "output_tokens": charged.usage.output_tokens,
        "charged": charged.usd,
    }
    return Found(aspects=tuple(kept), document=_document(kept, how), usage=charged.usage)


class _Charged:
    """An asker that notes what each request has cost, answered or refused: another discovery may find some of these
    answers kept, and they are counted once.
    """

    def __init__(self, asker: Asks) -> None:
        self._asker = asker
        self.usd: dict[str, float] = {}
        """By the request's fingerprint."""
        self.usage = Usage()

    async def ask(self, request: Request) -> Answer:
        try:
            answer = await self._asker.ask(request)
        except Refused as error:
            self._note(request, error.usage)
            raise
        self._note(request, answer.usage)
        return answer

    def _note(self, request: Request, usage: Usage) -> None:
        self.usage += usage
        if usage.cost_usd:
            self.usd[request.fingerprint] = usage.cost_usd


async def _named(request: Request, asker: Asks) -> list[tuple[str, str]]:
    """(name, instruction) of one answer; asked once more where it cannot be read."""
    answer = await asker.ask(request)
    try:
        return _parse_aspects(answer.text)
    except Refused as error:
        second = await asker.ask(again(request, answer.text, error.reason))
        return _parse_aspects(second.text)


async def _merge(spelled: Sequence[str], ask: DiscoverAsk, asker: Asks) -> tuple[dict[str, str], str]:
    """Every spelling → the name of its group; who merged."""
    groups = {name: canonical(name) or "" for name in spelled}
    others: dict[str, list[str]] = {}
    for name in spelled:
        if not groups[name]:
            others.setdefault(_plain(name), []).append(name)
    for same in others.values():
        groups.update(dict.fromkeys(same, same[0]))
    distinct = sorted(set(groups.values()))
    if len(others) == 0 or len(distinct) < 2:
        return groups, "rules"
    request = Request(
        model=ask.model,
        messages=({"role": "system", "content": _SYSTEM}, {"role": "user", "content": _merge_question(distinct)}),
        parameters={"temperature": 0.0, "max_tokens": 1500},
        schema=_GROUPS_SCHEMA,
        schema_name="groups",
    )
    try:
        answer = await asker.ask(request)
        renamed = _parse_groups(answer.text, distinct)
    except Refused as error:
        return groups, f"rules (the merging answer could not be used: {error.reason})"
    return {name: renamed.get(group, group) for name, group in groups.items()}, f"rules, then {ask.model}"


def _merge_question(names: Sequence[str]) -> str:
    lines = "\n".join(f"- {name}" for name in names)
    return (
        f"These names of aspects were given by different people:\n{lines}\n\nGroup those that mean the same kind of "
        "cue. Every name "
        "belongs to exactly one group, alone where none means the same. Call each group by the clearest of its names."
    )


def _parse_aspects(text: str) -> list[tuple[str, str]]:
    try:
        entries = json_in(text, kind="aspects")["aspects"]
        named = [(str(e["name"]).strip(), str(e.get("instruction") or "").strip()) for e in entries]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Refused(
            "the answer is not a JSON object with the list 'aspects' of names and instructions", kind="aspects"
        ) from None
    named = [(name, instruction) for name, instruction in named if name]
    if not named:
        raise Refused("the answer names no aspect", kind="aspects")
    return named


def _parse_groups(text: str, names: Sequence[str]) -> dict[str, str]:
    """Name → name of its group; names that the answer forgets or invents are left alone."""
    try:
        entries = [(str(e["name"]), [str(n) for n in e["names"]]) for e in json_in(text, kind="groups")["groups"]]
    except (ValueError, KeyError, TypeError):
        raise Refused("not a JSON object with the list 'groups'", kind="groups") from None
    renamed: dict[str, str] = {}
    for title, members in entries:
        known = [name for name in members if name in names and name not in renamed]
        if known:
            best = next((name for name in known if name in CANONICAL.values()), title if title in known else known[0])
            renamed.update(dict.fromkeys(known, best))
    return renamed


def _plain(name: str) -> str:
    """A name without case, marks and plural: what makes "Hand gesture" and "hand Gestures" one."""
    words = "".join(c if c.isalnum() else " " for c in name.casefold().replace("'", "").replace("’", "")).split()
    return " ".join(w[:-1] if len(w) > 3 and w.endswith("s") and not w.endswith("ss") else w for w in words)


def _instruction(name: str, said: Counter[str]) -> str:
    """The instruction most often given, the shorter one of equals; ours for a known aspect without any."""
    given = sorted((i for i in said if i), key=lambda i: (-said[i], len(i), i))
    return given[0] if given else instruction_of(Aspect(name=name))


def _document(aspects: Iterable[Aspect], found: Mapping[str, Any]) -> dict[str, Json]:
    listed = [{"name": a.name, "instruction": a.instruction, "frequency": a.frequency} for a in aspects]
    return {"aspects": listed, "found": dict(found)}


_TEXT = {"type": "string"}


def _list_of(name: str, properties: Mapping[str, Json]) -> dict[str, Json]:
    item = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return {
        "type": "object",
        "properties": {name: {"type": "array", "items": item}},
        "required": [name],
        "additionalProperties": False,
    }


_ASPECTS_SCHEMA = _list_of("aspects", {"name": _TEXT, "instruction": _TEXT})
_GROUPS_SCHEMA = _list_of("groups", {"name": _TEXT, "names": {"type": "array", "items": _TEXT}})
