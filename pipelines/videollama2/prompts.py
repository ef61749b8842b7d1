"""The prompt as published: a system text for the Mistral variants, `<video>` before the instruction, the chat template.

The text is cut at every `<video>`, each piece is tokenised by itself without special tokens (the template has written
them out), and the pieces are joined by `CLIP_ID`, which is no token of any vocabulary: nothing a speaker or a user
writes can be taken for a clip but the mark itself.
"""

from __future__ import annotations

from typing import Any, Protocol

from lgsrr.errors import PromptError

MARK = "<video>"
CLIP_ID = -201
"""Stands for the clip among the token ids, as in the authors' code."""
SYSTEM = (
    "<<SYS>>\nYou are a helpful, respectful and honest assistant. Always answer as helpfully as possible, while being "
    "safe.  Your answers should not include any harmful, unethical, racist, sexist, toxic, dangerous, or illegal "
    "content. Please ensure that your responses are socially unbiased and positive in nature.\nIf a question does not "
    "make any sense, or is not factually coherent, explain why instead of answering something not correct. If you "
    "don't know the answer to a question, please don't share false information.\n<</SYS>>"
)
"""What the Mistral variants were trained with."""


class Encoder(Protocol):
    """What turns text to token ids."""

    def __call__(self, text: str, **kwargs: Any) -> Any: ...


class Tokenizer(Encoder, Protocol):
    """The part of transformers' tokenizers that is used here."""

    def apply_chat_template(self, conversation: list[dict[str, str]], **kwargs: Any) -> Any: ...


def build_prompt(tokenizer: Tokenizer, instruction: str, *, system: str | None, clip: bool = True) -> str:
    """The whole prompt for one instruction, with the mark of a clip before it where `clip`."""
    if not instruction.strip():
        raise PromptError("the instruction is empty; say what to describe")
    if MARK in instruction:
        raise PromptError(f"the instruction holds {MARK!r}, the mark of a clip; it is put before the instruction here")
    content = f"{MARK}\n{instruction}" if clip else f"\n{instruction}"
    messages = [{"role": "system", "content": system}] if system is not None else []
    messages.append({"role": "user", "content": content})
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return str(prompt)


def splice(tokenizer: Encoder, text: str) -> list[int]:
    """Token ids of `text`, with one `CLIP_ID` for each `<video>`."""
    ids: list[int] = []
    for index, piece in enumerate(text.split(MARK)):
        if index > 0:
            ids.append(CLIP_ID)
        ids += tokenizer(piece, add_special_tokens=False)["input_ids"]
    return ids


def check_marks(ids: list[int], clips: int) -> None:
    """There is a clip for every mark and a mark for every clip."""
    marks = ids.count(CLIP_ID)
    if marks == clips:
        return
    if marks == 0:
        raise PromptError(f"a clip was given, but the prompt has no {MARK!r} to say where it belongs")
    raise PromptError(f"the prompt has {marks} x {MARK!r} and {clips} clip{'s' if clips != 1 else ''}; they must match")


def expand(ids: list[int], tokens_per_clip: int) -> list[int]:
    """Every `CLIP_ID` as often as the clip has tokens."""
    return [i for token in ids for i in ([CLIP_ID] * tokens_per_clip if token == CLIP_ID else [token])]
