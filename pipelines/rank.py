"""Step 3, ranking: in which order of importance the aspects of a training utterance point to its label (paper 3.1, step
3).

The published Template 3 (Appendix C) asks a language model for the order as text; here the same question is asked for
as structured output, a permutation of the aspects, and checked. Aspects are shown in an order drawn anew for each
utterance (seeded by its id), so that a model's liking for the first place cancels out; `position_bias` measures how
much of it there is. The wording is ours: the paper's could not be read where this was written.

Labels of dev and test never come here: `rank_work` takes the training split alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import random
from collections.abc import Mapping, Sequence

from lgsrr.aspects import find
from lgsrr.records import Utterance

from .calls import Json, Refused, Request
from .json_answers import json_in

PROMPT_VERSION = "rank-1"

_SYSTEM = (
    "You are an expert in how people show what they intend. You are given what a speaker says in a short clip, the "
    "speaker's intent, and "
    "descriptions of the clip under several aspects. Rank the aspects by how much their description helps to recognise "
    "this intent "
    "beyond the words that are said, from the most to the least important. Name every aspect exactly once."
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RankWork:
    """One utterance to be ranked."""

    id: str
    text: str
    label: str
    descriptions: tuple[tuple[str, str], ...]
    """(aspect, text), in the order in which they are shown."""

    @property
    def shown(self) -> tuple[str, ...]:
        return tuple(aspect for aspect, _ in self.descriptions)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RankAsk:
    """How rankings are asked for."""

    model: str
    temperature: float = 0.0
    max_tokens: int = 256


def rank_work(
    utterances: Sequence[Utterance], described: Mapping[str, Mapping[str, str]], aspects: Sequence[str], *, seed: int
) -> list[RankWork]:
    """Work for those training utterances that have a label and all descriptions; the others are left out."""
    work = []
    for u in utterances:
        texts = described.get(u.id, {})
        if u.split == "train" and u.label is not None and all(aspect in texts for aspect in aspects):
            order = shuffled(aspects, u.id, seed)
            work.append(RankWork(id=u.id, text=u.text, label=u.label, descriptions=tuple((a, texts[a]) for a in order)))
    return work


def shuffled(aspects: Sequence[str], name: str, seed: int) -> list[str]:
    """The aspects in the order in which they are shown for the utterance `name`; the same on every machine."""
    drawn = random.Random(hashlib.sha256(f"{seed}:{name}".encode()).digest())
    order = list(aspects)
    drawn.shuffle(order)
    return order


def rank_request(work: RankWork, ask: RankAsk) -> Request:
    """Template 3 for one utterance."""
    described = "\n".join(f"{place}. {aspect}: {text}" for place, (aspect, text) in enumerate(work.descriptions, 1))
    question = (
        f'Utterance: "{work.text}"\nIntent: {work.label}\n\nDescriptions of the clip:\n{described}\n\n'
        f"Rank these {len(work.descriptions)} aspects, most important first."
    )
    return Request(
        model=ask.model,
        messages=({"role": "system", "content": _SYSTEM}, {"role": "user", "content": question}),
        parameters={"temperature": ask.temperature, "max_tokens": ask.max_tokens},
        schema=ranking_schema(sorted(work.shown)),
        schema_name="ranking",
    )


def ranking_schema(aspects: Sequence[str]) -> dict[str, Json]:
    """JSON schema of a ranking; that none is named twice cannot be said in strict schemas, `parse_ranking` checks
    it."""
    items = {"type": "array", "items": {"type": "string", "enum": list(aspects)}}
    return {
        "type": "object",
        "properties": {"ranking": {**items, "minItems": len(aspects), "maxItems": len(aspects)}},
        "required": ["ranking"],
        "additionalProperties": False,
    }


def again(request: Request, answer: str, problem: str) -> Request:
    """The same request once more, with the answer that could not be used and what was wrong with it."""
    correction = f"This cannot be used: {problem}. Answer again, with the JSON object alone."
    more = ({"role": "assistant", "content": answer}, {"role": "user", "content": correction})
    return dataclasses.replace(request, messages=(*request.messages, *more))


def parse_ranking(text: str, aspects: Sequence[str]) -> tuple[str, ...]:
    """The aspects, most important first, from the answer's JSON.

    Raises Refused(kind="ranking") where it is no permutation of `aspects`: not JSON, one missing, repeated or invented.
    """
    said = json_in(text, kind="ranking")
    ranking = said.get("ranking") if isinstance(said, dict) else said
    if not isinstance(ranking, list):
        raise Refused("the answer is not a JSON object with the list 'ranking'", kind="ranking")
    order = []
    for name in ranking:
        aspect = find(name, aspects) if isinstance(name, str) else None
        if aspect is None:
            raise Refused(f"{name!r} is none of the aspects {', '.join(aspects)}", kind="ranking")
        if aspect in order:
            raise Refused(f"{aspect!r} is ranked twice", kind="ranking")
        order.append(aspect)
    missing = [aspect for aspect in aspects if aspect not in order]
    if missing:
        raise Refused(f"{missing[0]!r} is not ranked", kind="ranking")
    return tuple(order)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PositionBias:
    """How the order in which aspects were shown shows in the order in which they were ranked."""

    counts: tuple[tuple[int, ...], ...]
    """[place shown][place ranked]; without bias each row is even."""
    first_first: float
    """Share of rankings whose first aspect was the one shown first; 1/K without bias."""
    correlation: float
    """Mean rank correlation (Kendall's τ) of shown and ranked order; 0 without bias, 1 where all is left as shown."""
    rankings: int


def position_bias(pairs: Sequence[tuple[Sequence[str], Sequence[str]]]) -> PositionBias | None:
    """From (shown, ranked) of many utterances; None where there is none."""
    if not pairs:
        return None
    size = len(pairs[0][0])
    counts = [[0] * size for _ in range(size)]
    agreement = 0.0
    for shown, ranked in pairs:
        places = [ranked.index(aspect) for aspect in shown]
        for place, rank in enumerate(places):
            counts[place][rank] += 1
        agreement += _kendall(places)
    return PositionBias(
        counts=tuple(tuple(row) for row in counts),
        first_first=counts[0][0] / len(pairs),
        correlation=agreement / len(pairs),
        rankings=len(pairs),
    )


def _kendall(places: Sequence[int]) -> float:
    pairs = [(a, b) for i, a in enumerate(places) for b in places[i + 1 :]]
    return sum(1 if a < b else -1 for a, b in pairs) / len(pairs) if pairs else 1.0
