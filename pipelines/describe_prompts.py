"""What a video model is asked of a clip: all aspects in one prompt as published, or each aspect in a prompt of its own.

After LGSRR (EMNLP 2025), section 3.1 step 2 and Appendix C, Template 2; the wording is ours, since the paper's could
not be read here. The joint prompt gives each aspect a number and its name as a heading, which is what
`pipelines.sections` parses. The speaker's words are part of both, quoted as data; the label never is, and there is no
parameter for it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from lgsrr.records import Aspect

PROMPT_VERSION = "describe-1"
"""Of the wording below; part of every receipt. Another wording is another version."""

_INSTRUCTIONS = {
    "Speakers' Actions": "Describe the movements, gestures and posture of the speakers.",
    "Facial Expressions": "Describe the faces of the speakers: eyes, mouth, gaze, and the emotion they show.",
    "Interaction with Others": "Describe how the speakers and the people around them act upon and answer each other.",
    "Tone and Manner of Speaking": "Describe in what tone and manner the speaker seems to speak.",
    "Identity and Status": "Describe who the speakers seem to be, and how they stand to each other.",
    "Scene Description": "Describe the place, the time of day and the objects that matter.",
}


def instruction_of(aspect: Aspect) -> str:
    """The aspect's own instruction, else ours for that aspect, else a general one."""
    general = f"Describe what the video shows of this aspect: {aspect.name}."
    return (aspect.instruction or "").strip() or _INSTRUCTIONS.get(aspect.name, general)


def joint_prompt(text: str, aspects: Sequence[Aspect]) -> str:
    """One prompt for all aspects; its answer has a numbered section for each, in this order."""
    return f"{_said(text)}\n{_joint_task(tuple(aspects))}"


@functools.lru_cache(maxsize=16)
def _joint_task(aspects: tuple[Aspect, ...]) -> str:
    asked = "\n".join(f"{i}. {aspect.name}: {instruction_of(aspect)}" for i, aspect in enumerate(aspects, 1))
    form = "\n".join(f"{i}. {aspect.name}: ..." for i, aspect in enumerate(aspects, 1))
    return (
        f"Watch the video and describe it under {_count(len(aspects))}:\n{asked}\n\n"
        "Write one or two sentences for each, only about what can be seen. "
        f"Answer with the numbered headings below and nothing else:\n{form}"
    )


def separate_prompt(text: str, aspect: Aspect) -> str:
    """The prompt for one aspect; its answer is the description."""
    return (
        f"{_said(text)}\n"
        f"Watch the video with regard to one aspect, {aspect.name}. {instruction_of(aspect)}\n"
        "Answer with one or two sentences, only about what can be seen, without a heading."
    )


def again(prompt: str, reason: str) -> str:
    """The prompt asked once more, after an answer that could not be used, with the reason."""
    return f"{prompt}\n\nAn earlier answer could not be used: {reason}. Keep exactly to the form that is asked for."


def _said(text: str) -> str:
    """The speaker's words on one line, without the marks by which a video model knows a clip or a turn."""
    words = " ".join(text.split())
    for mark in ("<video>", "<image>", "<|", "|>", "[INST]", "[/INST]"):
        words = words.replace(mark, " ")
    quoted = words.replace('"', "'")
    return f'In the video a person says: "{quoted}"'


def _count(k: int) -> str:
    return "one aspect" if k == 1 else f"{k} aspects"
