"""The two datasets in the layout that LGSRR's authors publish: MIntRec2.0 and IEMOCAP-DA.

Tables are joined by id, whatever the order of their rows. The classes and their order are fixed here, not taken from
the table at hand, so that a model means the same by class 7 on every machine. `data` may be the folder that holds
`data_text`, or a clone of the authors' repository, which has it one level down.
Source: https://github.com/thuiar/LGSRR (EMNLP 2025).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from lgsrr import aspects, storage
from lgsrr.checks import Described, Draft, Ranked, Said, needed
from lgsrr.errors import DataError
from lgsrr.records import SPLITS, Aspect, Split
from lgsrr.tables import Columns, read_table, shown

TEXT_FOLDER = "data_text"
FOLDERS = (TEXT_FOLDER, "data_desc", "data_rank")
ASPECTS = tuple(Aspect(name=aspects.CANONICAL[short]) for short in ("A", "E", "I"))
"""In the order of the description tables' columns."""
_RANKS = ("Rank_First", "Rank_Second", "Rank_Third")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where one dataset's tables lie and what their columns are called."""

    texts: str
    descriptions: str
    rankings: str
    id_format: str
    """Made of the id columns: the name of the released clip, or the turn."""
    id_columns: tuple[str, ...]
    ranking_id_columns: tuple[str, ...]
    text: str
    label: str
    labels: tuple[str, ...]


MINTREC2 = Layout(
    texts="data_text/MIntRec2.0",
    descriptions="data_desc/mintrec2.0",
    rankings="data_rank/rank_mintrec2_train.tsv",
    id_format="dia{}_utt{}",
    id_columns=("Dialogue_id", "Utterance_id"),
    ranking_id_columns=("Dia", "Utt"),
    text="Text",
    label="Label",
    labels=(
        *("Acknowledge", "Advise", "Agree", "Apologise", "Arrange", "Ask for help", "Asking for opinions", "Care"),
        *("Comfort", "Complain", "Confirm", "Criticize", "Doubt", "Emphasize", "Explain", "Flaunt", "Greet", "Inform"),
        *("Introduce", "Invite", "Joke", "Leave", "Oppose", "Plan", "Praise", "Prevent", "Refuse", "Taunt", "Thank"),
        "Warn",
    ),
)
IEMOCAP_DA = Layout(
    texts="data_text/IEMOCAP-DA",
    descriptions="data_desc/iemocap_da",
    rankings="data_rank/rank_iemocap_da_train.tsv",
    id_format="{}",
    id_columns=("TURN",),
    ranking_id_columns=("Turn",),
    text="UTTERANCE",
    label="DA",
    labels=("a", "ag", "ans", "ap", "b", "c", "dag", "g", "o", "oth", "q", "s"),
)
RELEASED: dict[str, Layout] = {"mintrec2": MINTREC2, "iemocap_da": IEMOCAP_DA}


def locate(data: str) -> str | None:
    """The folder that holds `data_text`: `data` itself or the only folder in it that does; None where there is none.

    Raises DataError where more than one does.
    """
    if _holds_tables(data):
        return data
    children = [storage.join(data, name) for name in storage.names_in(data) if not name.startswith(".")]
    found = [child for child in children if _holds_tables(child)]
    if len(found) > 1:
        raise DataError(f"{data}: released tables lie in {', '.join(found)}. Name the one that is meant with --data.")
    return found[0] if found else None


def read_released(dataset: str, data: str) -> Draft:
    """Read one released dataset from `data`, the folder that holds `data_text` (see `locate`).

    Only the tables of `dataset` ("mintrec2" or "iemocap_da") are opened. Raises DataError.
    """
    layout = RELEASED[dataset]
    return Draft(
        name=dataset,
        source=data,
        said=[row for split in SPLITS for row in _texts(layout, data, split)],
        labels=layout.labels,
        aspects=ASPECTS,
        descriptions=[row for split in SPLITS for row in _descriptions(layout, data, split)],
        rankings=_rankings(layout, data),
        tables={split: storage.join(data, layout.texts, f"{split}.tsv") for split in SPLITS},
        descriptions_at=storage.join(data, layout.descriptions),
    )


def _texts(layout: Layout, data: str, split: Split) -> list[Said]:
    path = storage.join(data, layout.texts, f"{split}.tsv")
    columns = Columns((*layout.id_columns, layout.text, layout.label))
    return [
        Said(
            place,
            _id(layout.id_format, layout.id_columns, place, values),
            needed(place, layout.text, values[layout.text]),
            split,
            needed(place, layout.label, values[layout.label]),
        )
        for place, values in read_table(path, columns)
    ]


def _descriptions(layout: Layout, data: str, split: Split) -> list[Described]:
    path = storage.join(data, layout.descriptions, f"{split}.tsv")
    names = [aspect.name for aspect in ASPECTS]
    columns = Columns((*layout.id_columns, *names), rename=lambda column: aspects.canonical(column) or column)
    rows = []
    for place, values in read_table(path, columns):
        utterance = _id(layout.id_format, layout.id_columns, place, values)
        rows += [Described(place, utterance, name, values[name] or "") for name in names]
    return rows


def _rankings(layout: Layout, data: str) -> list[Ranked]:
    path = storage.join(data, layout.rankings)
    rows = read_table(path, Columns((*layout.ranking_id_columns, *_RANKS)))
    if not rows:
        raise DataError(f"{path}: no rankings below the header; expected a row for each training utterance.")
    return [
        Ranked(
            place,
            _id(layout.id_format, layout.ranking_id_columns, place, values),
            tuple(values[rank] or "" for rank in _RANKS),
        )
        for place, values in rows
    ]


def _id(form: str, columns: tuple[str, ...], place: str, values: Mapping[str, str | None]) -> str:
    parts = [values[column] for column in columns]
    if not all(parts):
        raise DataError(f"{place}: {' and '.join(columns)} must be filled in, they make the id; found {shown(parts)}.")
    return form.format(*parts)


def _holds_tables(folder: str) -> bool:
    """Whether released tables lie in `folder`; a folder that may not be entered holds none that could be read."""
    try:
        return storage.kind(storage.join(folder, TEXT_FOLDER)) == "folder"
    except DataError:
        return False
