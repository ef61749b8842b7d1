"""An answer to the joint prompt, cut into its K sections.

Models keep to a form more or less: headings come with numbers or without, bold or as Markdown, in another order, under
a name that means the same (`lgsrr.aspects.find`), with the text on the same line or below, or all of it as a JSON
object. All of that is read. What leaves a doubt is refused with a reason that can be shown to the model: a section that
is missing, empty or there twice, or that says the instruction again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

from lgsrr import aspects as names
from lgsrr.records import Aspect

from .describe_prompts import instruction_of

_NUMBER = r"(?:\(?\d{1,2}\s*[.):]\)?\s*|[-*•+]\s+)?"
_HEADING = re.compile(
    rf"^\s*(?:\#{{1,6}}\s*|>\s*)?(?:\*\*|__)?\s*{_NUMBER}(?:\*\*|__)?\s*(?:Aspect\s*\d*\s*[:.]\s*)?"
    r"(?P<name>[^\W\d_][\w\s'’‘`´&/()-]{0,60}?)\s*(?:(?:\*\*|__)\s*)?(?P<colon>[:：]|\s[-–—]\s|$)\s*(?:\*\*|__)?\s*(?P<text>.*)$"
)
_FENCE = re.compile(r"^\s*```\w*\s*$", re.MULTILINE)
_PLACEHOLDERS = frozenset({"", "...", "…", "n/a", "none", "-", "[description]", "<description>"})


class SectionError(ValueError):
    """An answer cannot be cut into its sections; the message says why, in words that a model understands."""


def parse_sections(answer: str, aspects: Sequence[Aspect]) -> tuple[str, ...]:
    """The text under each aspect, in the order of `aspects`, blanks and line breaks made single blanks.

    Raises SectionError. With one aspect, an answer without any heading is that section.
    """
    if not answer.strip():
        raise SectionError("the answer is empty")
    found = _from_json(answer, aspects)
    if found is None:
        found = list(_from_lines(answer, aspects))
    if not found and len(aspects) == 1:
        found = [(aspects[0].name, answer)]
    return tuple(_one(aspect, [text for name, text in found if name == aspect.name]) for aspect in aspects)


def clean_section(aspect: Aspect, answer: str) -> str:
    """The description in an answer to the prompt for one aspect. Raises SectionError."""
    return parse_sections(answer, [aspect])[0]


def _one(aspect: Aspect, texts: list[str]) -> str:
    """The one text of an aspect, or the reason why there is none."""
    if not texts:
        raise SectionError(f"the section {aspect.name!r} is missing")
    if len(texts) > 1:
        raise SectionError(f"the section {aspect.name!r} is there {len(texts)} times")
    text = " ".join(texts[0].split()).strip("*_ ")
    if text.casefold() in _PLACEHOLDERS:
        raise SectionError(f"the section {aspect.name!r} is empty")
    if _plain(text) in {_plain(instruction_of(aspect)), _plain(aspect.name)}:
        raise SectionError(f"the section {aspect.name!r} repeats the instruction")
    return text


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def _from_lines(answer: str, aspects: Sequence[Aspect]) -> Iterator[tuple[str, str]]:
    """(aspect, text) for each heading; what stands before the first one is a preamble."""
    name: str | None = None
    lines: list[str] = []
    for line in answer.splitlines():
        heading = _heading(line, aspects)
        if heading is None:
            lines.append(line)
            continue
        if name is not None:
            yield name, "\n".join(lines)
        name, lines = heading[0], [heading[1]]
    if name is not None:
        yield name, "\n".join(lines)


def _heading(line: str, aspects: Sequence[Aspect]) -> tuple[str, str] | None:
    """The aspect that a line is the heading of and the text behind it; None where it is no heading."""
    match = _HEADING.match(line)
    if match is None:
        return None
    name = _named(match["name"], aspects)
    return None if name is None else (name, match["text"])


def _named(name: str, aspects: Sequence[Aspect]) -> str | None:
    return names.find(name.strip(" *_:"), [aspect.name for aspect in aspects])


def _from_json(answer: str, aspects: Sequence[Aspect]) -> list[tuple[str, str]] | None:
    """(aspect, text) of a JSON object, fenced or not; None where the answer is none."""
    text = _FENCE.sub("", answer).strip()
    if not text.startswith("{"):
        return None
    try:
        pairs: object = json.loads(text, object_pairs_hook=list)  # pairs, so that a repeated name is seen
    except ValueError:
        return None
    if not isinstance(pairs, list):
        return None
    found = [(_named(str(name), aspects), value) for name, value in pairs]
    return [(name, value) for name, value in found if name is not None and isinstance(value, str)]


def render_sections(aspects: Sequence[Aspect], texts: Sequence[str]) -> str:
    """An answer in the form that the joint prompt asks for."""
    rows = zip(aspects, texts, strict=True)
    return "\n".join(f"{i}. {aspect.name}: {text}" for i, (aspect, text) in enumerate(rows, 1))
