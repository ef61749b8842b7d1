"""An engine without a model, for tests, benchmarks and the demo: it answers by rules and fails when it is told to.

What it says follows from the clip's pixels and the prompt, so that the same ask has the same answer, and says that it
is a stand-in. It takes the time it is told to, `lanes` clips at once, as a GPU would.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Awaitable, Callable

import numpy as np

from lgsrr import __version__
from pipelines.calls import Answer, Refused, Usage
from pipelines.decoding import Frames

from .config import EngineConfig
from .interface import Ask, Engine, EngineDead, Said

_SECTION = re.compile(r"^\d+\. (?P<name>.+): \.\.\.$", re.MULTILINE)
_ASKED_AGAIN = "An earlier answer could not be used"
EXIT_CODE = 86
"""Of a process that was told to end."""


class ScriptedEngine(Engine):
    """Rules instead of weights."""

    def __init__(self, config: EngineConfig, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        super().__init__(config)
        self._script = config.scripted
        self._lanes = asyncio.Semaphore(self._script.lanes)
        self._sleep = sleep
        self._dead = False
        self.described = 0
        """Clips so far."""

    async def answer(self, ask: Ask) -> tuple[Said, ...]:
        fault = self._fault(ask)
        async with self._lanes:
            if self._dead or fault == "die":
                self._dead = True
                raise EngineDead(f"the scripted engine died on {ask.id}, as it was told to")
            if fault == "exit" or self.described == self._script.exit_after:
                os._exit(EXIT_CODE)
            if fault == "hang":
                await asyncio.Event().wait()
            started = time.monotonic()
            await self._sleep(self._script.seconds_per_clip)
            self.described += 1
            return tuple(self._said(ask, prompt, fault, time.monotonic() - started) for prompt in ask.prompts)

    def packages(self) -> dict[str, str]:
        return {"lgsrr": __version__}

    def _fault(self, ask: Ask) -> str | None:
        found = (fault for word, fault in self._script.faults.items() if word in ask.clip or word in ask.id)
        return next(found, None)

    def _said(self, ask: Ask, prompt: str, fault: str | None, took_s: float) -> Said:
        if fault == "raise":
            return Refused("the scripted engine failed on this clip, as it was told to", kind="engine")
        text = (
            "I am sorry, I cannot describe this."
            if fault == "refuse"
            else self._text(ask.decoded.frames, prompt, fault)
        )
        return Answer(
            fingerprint=self.request(ask.clip, prompt, ask.parameters).fingerprint,
            text=text,
            model=self.model,
            revision=self.revision,
            usage=Usage(input_tokens=len(prompt.split()), output_tokens=len(text.split())),
            took_s=took_s,
            created_at=time.time(),
            packages=self.packages(),
            frames=ask.decoded.indices,
        )

    def _text(self, frames_THWC: Frames, prompt: str, fault: str | None) -> str:
        if fault == "empty":
            return ""
        said = describe_pixels(frames_THWC)
        sections = [match["name"] for match in _SECTION.finditer(prompt)]
        if not sections:
            return said
        if fault == "malformed" or (fault == "malformed once" and _ASKED_AGAIN not in prompt):
            sections = sections[:-1]
        numbered = [f"{i}. {name}: {said} This is said of {name}." for i, name in enumerate(sections, 1)]
        return "\n".join(reversed(numbered) if fault == "shuffled" else numbered)


def describe_pixels(frames_THWC: Frames) -> str:
    """Two sentences on how bright a clip is and how much moves in it."""
    grey_THW = frames_THWC[:, ::4, ::4].mean(axis=-1)
    light = "dark" if grey_THW.mean() < 85 else "bright" if grey_THW.mean() > 170 else "of medium light"
    moved = float(np.abs(np.diff(grey_THW, axis=0)).mean()) if len(grey_THW) > 1 else 0.0
    pace = "nothing moves" if moved < 1 else "something moves a little" if moved < 10 else "much moves"
    return f"A stand-in looked at {len(frames_THWC)} frames. The picture is {light} and {pace}."
