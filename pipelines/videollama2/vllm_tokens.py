"""Makes the tokenizer of a vLLM engine cut prompts at `<video>`, as published.

vLLM tokenises a prompt before a model may look at it, and `<video>` is no token: it would fall into pieces that melt
with their neighbours. So the engine's tokenizer is given a subclass of its own class, in the way in which vLLM itself
makes tokenizers cached and thread-safe: text with a mark is tokenised piece by piece, each mark becoming `CLIP_ID`.
An id that is negative never reaches the model: the multimodal processor replaces it, and vLLM refuses a prompt in
which one is left, for want of a clip. It does so before the model is asked, with the id in its message; hence `_Place`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import BatchEncoding

from .prompts import CLIP_ID, MARK, splice


class _Place(int):
    """`CLIP_ID` that explains itself in the message of a prompt with a mark and no clip."""

    def __format__(self, spec: str) -> str:
        return f"{int(self)} stands for a {MARK!r} in the prompt, and no clip was given for it: it"


class _CutsAtMarks:
    """Goes before a tokenizer's class."""

    def __call__(self, text: Any = None, *args: Any, **kwargs: Any) -> Any:
        whole: Callable[..., Any] = super().__call__  # type: ignore[misc]
        if isinstance(text, str) and MARK in text:
            ids = [_Place(i) if i == CLIP_ID else i for i in splice(whole, text)]
            return BatchEncoding({"input_ids": ids, "attention_mask": [1] * len(ids)})
        if isinstance(text, list) and any(isinstance(t, str) and MARK in t for t in text):
            rows = [self(t, *args, **kwargs) for t in text]
            return BatchEncoding({key: [row[key] for row in rows] for key in rows[0]})
        return whole(text, *args, **kwargs)

    def encode(self, text: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(text, str) and MARK in text:
            return self(text)["input_ids"]
        return super().encode(text, *args, **kwargs)  # type: ignore[misc]

    def __reduce__(self) -> tuple[Any, ...]:
        return _remake, super().__reduce__()[:2]  # type: ignore[return-value]


def _remake(make: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return cut_at_marks(make(*arguments))


def cut_at_marks(tokenizer: Any) -> Any:
    """Changes `tokenizer` in place and returns it; doing it again changes nothing."""
    kind = type(tokenizer)
    if not issubclass(kind, _CutsAtMarks):
        tokenizer.__class__ = type(f"CutsAtMarks{kind.__name__}", (_CutsAtMarks, kind), {})
    return tokenizer
