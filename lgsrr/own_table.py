"""The user's own data: one CSV, TSV, JSONL or Parquet file with the columns id, text, split, label, video.

`label` and `video` may be left out or empty where they are not known; training needs a label for every utterance, which
`lgsrr.checks` enforces. A further column that is named as an aspect in full ("Facial Expressions", see
`lgsrr.aspects`) is taken as its descriptions; any other column is ignored.
"""

from __future__ import annotations

from lgsrr import aspects
from lgsrr.checks import Described, Draft, Said, if_known, needed, parse_split
from lgsrr.records import Aspect, Split
from lgsrr.tables import Columns, Row, read_table

_NAMES = tuple(aspects.CANONICAL.values())


def read_own_table(dataset: str, path: str, *, for_training: bool = True) -> Draft:
    """Read the user's own table.

    `for_training` makes the columns split and label necessary; without it they may be missing, and an utterance without
    a split belongs to test. The classes are the sorted labels of the training split. Raises DataError.
    """
    necessary = ("split", "label") if for_training else ()
    optional = tuple(name for name in ("split", "label", "video", *_NAMES) if name not in necessary)
    rows = read_table(path, Columns(("id", "text", *necessary), optional, rename=_full_name))
    there = [name for name in _NAMES if rows and name in rows[0].values]
    return Draft(
        name=dataset,
        source=path,
        said=[_said(row) for row in rows],
        aspects=tuple(Aspect(name=name) for name in there),
        descriptions=[
            Described(row.place, row.values["id"] or "", name, row.values[name] or "") for row in rows for name in there
        ],
        descriptions_at=path,
    )


def _said(row: Row) -> Said:
    place, values = row
    split: Split = parse_split(place, values["split"]) if "split" in values else "test"
    return Said(
        place,
        needed(place, "id", values["id"]),
        needed(place, "text", values["text"]),
        split,
        if_known(values.get("label")),
        if_known(values.get("video")),
    )


def _full_name(column: str) -> str:
    """The canonical aspect where the column is named as one in full; a column "A" or "I" is the user's own affair."""
    return (aspects.canonical(column) or column) if len(column) > max(map(len, aspects.CANONICAL)) else column
