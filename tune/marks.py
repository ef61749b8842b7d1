"""Markdown in which what others wrote stays text: labels, settings and the words of an error are escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_SPECIAL = re.compile(r"([\\`*_\[\]|~#])")


def plain(text: str, most: int = 200) -> str:
    """A text on one line, in which nothing is markup; what is longer than `most` is cut."""
    line = " ".join(text.split())
    line = line if len(line) <= most else line[: most - 2].rstrip() + " …"
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\1", line)


def code(text: str) -> str:
    """A text in the letters of a program. A pipe would end a table's cell, even here."""
    return "`" + " ".join(text.split()).replace("`", "'").replace("|", "/") + "`"


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], *, words: Sequence[str]) -> str:
    """A table from cells that are markdown; the columns of those titles hold words, the others stand to the right."""
    lines = [titles, ["---" if title in words else "---:" for title in titles], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
