"""The six aspects that the project has names for, and the other names under which tables know them.

Released tables, language models and people write "Speakers Actions", "Speakers' actions" or "A" and mean the same. A
name is compared without case, apostrophes and doubled blanks; anything beyond that needs an entry here, so that an
unknown aspect is told to the user rather than guessed.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

CANONICAL: dict[str, str] = {
    "A": "Speakers' Actions",
    "E": "Facial Expressions",
    "I": "Interaction with Others",
    "TMS": "Tone and Manner of Speaking",
    "IS": "Identity and Status",
    "SD": "Scene Description",
}
"""Short name → canonical name, in the order of the paper."""

_ALIASES: dict[str, tuple[str, ...]] = {
    "A": ("Speaker's Actions", "Actions", "Body Language"),
    "E": ("Emotions and Facial Expressions", "Facial Expressions and Emotions", "Expressions", "Emotions"),
    "I": ("Interactions with Others", "Interaction", "Interactions"),
    "TMS": ("Tone and Manner of Speech", "Tone of Voice", "Tone"),
    "IS": ("Identities and Status", "Identity"),
    "SD": ("Scene", "Scene Descriptions"),
}


def canonical(name: str) -> str | None:
    """The canonical name of an aspect named in any way ("A", "speakers actions"); None where it is none of the six."""
    return _canonical_by_key().get(_key(name))


def find(name: str, among: Iterable[str]) -> str | None:
    """Which of the aspects in `among` is meant by `name`; None where none is. They need not be of the six."""
    meant = _key(canonical(name) or name)
    return next((aspect for aspect in among if _key(canonical(aspect) or aspect) == meant), None)


@functools.lru_cache(maxsize=1024)
def _key(name: str) -> str:
    plain = name.translate({ord(mark): None for mark in "'’‘`´"}).replace("_", " ")
    return " ".join(plain.casefold().split())


@functools.cache
def _canonical_by_key() -> dict[str, str]:
    names = ((short, name, *_ALIASES[short]) for short, name in CANONICAL.items())
    return {_key(alias): group[1] for group in names for alias in group}
