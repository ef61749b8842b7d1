"""Step 2, description: what a video model sees in a clip under each aspect (paper 3.1, step 2; Template 2).

One prompt for all aspects, as published, whose answer is cut into sections, or one prompt for each aspect on the same
vision features. An answer that cannot be cut is asked for once more, with what was wrong, then set aside with the raw
answer.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from lgsrr.records import Aspect

from .advice import advice
from .answers import AnswerStore
from .calls import Answer, CallError, Refused, Transient, fingerprint_of
from .decoding import Decoded
from .describe_prompts import PROMPT_VERSION, again, joint_prompt, separate_prompt
from .engines import Ask, Engine, EngineConfig, Said
from .outcomes import Outcome, Receipt
from .plan import work_text
from .sections import SectionError, clean_section, parse_sections
from .settings import Prompting


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DescribeWork:
    """One utterance to be described."""

    id: str
    text: str
    uri: str
    """Of the clip."""
    clip: str
    """The clip's identity: equal content, equal name."""
    fingerprint: str
    """Of the work."""
    calls: tuple[str, ...]
    """Fingerprints of its first prompts."""

    def to_text(self) -> str:
        return work_text(self)

    @classmethod
    def from_text(cls, text: str) -> DescribeWork:
        value = json.loads(text)
        return cls(**{**value, "calls": tuple(value["calls"])})


class Naming(Engine):
    """Not an engine to ask, but the one whose requests give work and answers their names, before any model is
    loaded.
    """

    async def answer(self, ask: Ask) -> tuple[Said, ...]:
        raise NotImplementedError("this engine only names requests")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asking:
    """How descriptions are asked for."""

    aspects: tuple[Aspect, ...]
    prompting: Prompting
    engine: EngineConfig

    def prompts(self, text: str) -> tuple[str, ...]:
        """Of one utterance: one, or one for each aspect."""
        if self.prompting == "joint":
            return (joint_prompt(text, self.aspects),)
        return tuple(separate_prompt(text, aspect) for aspect in self.aspects)

    def work(self, *, name: str, text: str, uri: str, clip: str, naming: Naming) -> DescribeWork:
        """The work on one utterance, with its fingerprints."""
        calls = tuple(naming.request(clip, prompt).fingerprint for prompt in self.prompts(text))
        mark = fingerprint_of({"calls": calls, "aspects": [a.name for a in self.aspects], "by": self.prompting})
        return DescribeWork(id=name, text=text, uri=uri, clip=clip, fingerprint=mark, calls=calls)


class Describer:
    """Describes one utterance after the other, or many at once, with an engine."""

    def __init__(self, engine: Engine, asking: Asking, answers: AnswerStore) -> None:
        self._engine, self._asking, self._answers = engine, asking, answers
        self._naming = Naming(asking.engine)

    async def kept(self, work: DescribeWork) -> bool:
        """Whether every first answer is kept, so that nobody needs the clip unless one cannot be read."""
        found = await asyncio.gather(*(asyncio.to_thread(self._answers.get, call) for call in work.calls))
        return all(answer is not None for answer in found)

    async def describe(self, work: DescribeWork, decoded: Decoded | None) -> Outcome:
        """Ask, keep, cut, and ask once more where need be.

        Raises EngineDead and Stopped, DataError where an answer cannot be kept, NeedsClip where `decoded` is None and
        something has to be asked.
        """
        prompts = self._asking.prompts(work.text)
        answers: list[Answer] = []
        try:
            first = await self._ask(work, decoded, prompts, work.calls)
            answers.extend(first)
            texts, last = await self._texts(work, decoded, prompts, first)
            answers.extend(last)
        except Refused as error:
            return self._set_aside(work, answers, error)
        names = tuple(aspect.name for aspect in self._asking.aspects)
        if self._asking.prompting == "joint":
            receipts: tuple[Receipt, ...] = (self._receipt(work, answers),)
        else:
            again_of = dict(zip(texts.mended, last, strict=True))
            receipts = tuple(
                self._receipt(work, [answer, *([again_of[place]] if place in again_of else [])])
                for place, answer in enumerate(first)
            )
        return Outcome(id=work.id, stage="describe", status="done", receipts=receipts, aspects=names, texts=texts.texts)

    async def _ask(
        self, work: DescribeWork, decoded: Decoded | None, prompts: Sequence[str], calls: Sequence[str]
    ) -> list[Answer]:
        """An answer to each prompt, kept or new; each new one is stored before it is used."""
        found = await asyncio.gather(*(asyncio.to_thread(self._answers.get, call) for call in calls))
        missing = [place for place, answer in enumerate(found) if answer is None]
        if missing:
            if decoded is None:
                raise NeedsClip(work.uri)
            asked = tuple(prompts[place] for place in missing)
            said = await self._engine.answer(Ask(id=work.id, clip=work.clip, decoded=decoded, prompts=asked))
            new = dict(zip(missing, said, strict=True))
            stored = await asyncio.gather(
                *(self._store(calls[place], answer) for place, answer in new.items() if isinstance(answer, Answer))
            )
            good = [place for place, answer in new.items() if isinstance(answer, Answer)]
            found = [*found]
            for place, answer in zip(good, stored, strict=True):
                found[place] = answer
            for failed in new.values():
                if isinstance(failed, CallError):
                    raise _as_refused(failed)
        return [answer for answer in found if answer is not None]

    async def _store(self, call: str, answer: Answer) -> Answer:
        kept = dataclasses.replace(answer, fingerprint=call)
        await asyncio.to_thread(self._answers.put, kept)
        return kept

    async def _texts(
        self, work: DescribeWork, decoded: Decoded | None, prompts: Sequence[str], answers: Sequence[Answer]
    ) -> tuple[_Texts, list[Answer]]:
        """The text under each aspect, and the answers of the second try."""
        read = [self._read(place, answer.text) for place, answer in enumerate(answers)]
        mended = [place for place, result in enumerate(read) if isinstance(result, SectionError)]
        second = [again(prompts[place], str(read[place])) for place in mended]
        calls = [self._naming.request(work.clip, prompt).fingerprint for prompt in second]
        more = await self._ask(work, decoded, second, calls) if second else []
        for place, answer in zip(mended, more, strict=True):
            result = self._read(place, answer.text)
            if isinstance(result, SectionError):
                usage = answer.usage
                raise _Unreadable(f"{result}; the answer: {answer.text[:500]}", answer, usage=usage)
            read[place] = result
        texts = tuple(text for part in read if not isinstance(part, SectionError) for text in part)
        return _Texts(texts=texts, mended=tuple(mended)), more

    def _read(self, place: int, text: str) -> tuple[str, ...] | SectionError:
        try:
            if self._asking.prompting == "joint":
                return parse_sections(text, self._asking.aspects)
            return (clean_section(self._asking.aspects[place], text),)
        except SectionError as error:
            return error

    def _receipt(self, work: DescribeWork, answers: Sequence[Answer]) -> Receipt:
        return Receipt.of(answers, fingerprint=work.fingerprint, prompt_version=PROMPT_VERSION)

    def _set_aside(self, work: DescribeWork, answers: list[Answer], error: Refused) -> Outcome:
        if isinstance(error, _Unreadable):
            answers = [*answers, error.answer]
        if answers:
            receipt = self._receipt(work, answers)
        else:
            receipt = Receipt(fingerprint=work.fingerprint, model=self._engine.model, prompt_version=PROMPT_VERSION)
        return set_aside(work.id, receipt, error.kind, error.reason)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Texts:
    texts: tuple[str, ...]
    mended: tuple[int, ...]
    """Places whose first answer could not be read."""


class NeedsClip(Exception):  # noqa: N818
    """Something has to be asked of a clip that was not decoded, since its answers were kept."""


class _Unreadable(Refused):
    """The second answer cannot be read either."""

    def __init__(self, reason: str, answer: Answer, **more: Any) -> None:
        super().__init__(reason, kind="sections", **more)
        self.answer = answer


def set_aside(name: str, receipt: Receipt, kind: str, detail: str) -> Outcome:
    """An utterance that cannot be described."""
    receipt = dataclasses.replace(receipt, created_at=receipt.created_at or time.time())
    return Outcome(
        id=name,
        stage="describe",
        status="quarantined",
        receipts=(receipt,),
        reason=kind,
        detail=detail,
        advice=advice(kind),
    )


def _as_refused(error: CallError) -> Refused:
    if isinstance(error, Refused):
        return error
    kind = "attempts" if isinstance(error, Transient) else "engine"
    return Refused(error.reason, kind=kind, usage=error.usage)


def decoded_to_columns(decoded: Decoded) -> tuple[bytes, str]:
    """A decoded clip as pixels and the rest as JSON, to travel in Arrow."""
    rest = {f.name: getattr(decoded, f.name) for f in dataclasses.fields(decoded) if f.name != "frames"}
    return decoded.frames.tobytes(), json.dumps({**rest, "shape": decoded.frames.shape})


def decoded_from_columns(pixels: Any, rest: str) -> Decoded:
    """And back; `pixels` is a buffer, which is not copied."""
    import numpy as np

    value: Mapping[str, Any] = json.loads(rest)
    frames = np.frombuffer(pixels, dtype=np.uint8).reshape(value["shape"])
    fields = {name: item for name, item in value.items() if name != "shape"}
    return Decoded(**{**fields, "frames": frames, "indices": tuple(value["indices"])})
