"""The output once more as the tables that LGSRR's authors publish, so that their code and ours train on it alike.

    <out>/released/data_text/…  data_desc/…  data_rank/…         the layout that `lgsrr.released` reads

A tab separates and a double quote is a plain character, so tabs and line breaks within a text become blanks. The layout
knows two datasets and the paper's three aspects, and has no place for an utterance without a description, or for one of
the training split without a label and a ranking: these are left out and counted. Columns that extraction does not know
(times, source, speaker, emotion) are copied where `--data` names the released tables, and are empty elsewhere.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence

from lgsrr import aspects, storage
from lgsrr.errors import ConfigError, DataError
from lgsrr.extracted import RANKINGS_FOLDER
from lgsrr.records import SPLITS, Dataset, Split
from lgsrr.released import ASPECTS, RELEASED, Layout, locate
from lgsrr.tables import Columns, read_table, shown

from .output import Output
from .settings import ExtractConfig

FOLDER = "released"
_NAMES = tuple(aspect.name for aspect in ASPECTS)
_RANKED_AS = {aspects.CANONICAL["E"]: "Emotions and Facial Expressions"}
"""How the released rankings call an aspect, where it is not our name."""
_DESCRIBED_AS = {
    "mintrec2": ("Speakers Actions", "Emotions and Facial Expressions", "Interaction with Others"),
    "iemocap_da": ("Speakers' Actions", "Emotions and Facial Expressions", "Interaction with Others"),
}
_FURTHER = {
    "mintrec2": ("Start_timestamp", "End_timestamp", "Source", "speaker_name"),
    "iemocap_da": ("EMOTION",),
}
"""Columns of the text tables that nobody here reads."""
_RANK_COLUMNS = ("Rank_First", "Rank_Second", "Rank_Third")
_BREAK = re.compile(r"\r\n|[\t\r\n]")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was written."""

    folder: str
    rows: Mapping[Split, int]
    left_out: int
    """Utterances that the layout has no place for: not described, or of the training split and not ranked."""
    untrained: tuple[str, ...]
    """Labels of dev and test that no training utterance has, as after `--limit`: no reader takes such tables."""


def check_export(config: ExtractConfig, dataset: Dataset) -> None:
    """Whether what is asked for can be held by the authors' layout; call it before anything is paid for.

    What discovery will find is not known yet: see `check_aspects`. Raises ConfigError.
    """
    if config.export == "none":
        return
    if config.dataset not in RELEASED:
        raise ConfigError(
            f"export is 'released' and the dataset is {config.dataset!r}; the authors' layout holds "
            f"{' and '.join(RELEASED)} alone. Leave --export out: training reads {config.out} as it is."
        )
    if config.aspects is not None:
        check_aspects(aspects.canonical(name) or name.strip() for name in config.aspects.split(",") if name.strip())
    elif "discover" in config.stage_list and config.k != len(_NAMES):
        raise ConfigError(f"export is 'released' and k is {config.k}; {_holds()}")
    for utterance in dataset.utterances:
        _id_columns(RELEASED[config.dataset], utterance.id)


def check_aspects(names: Iterable[str]) -> None:
    """Whether these aspects are the layout's, in whatever order. Raises ConfigError."""
    given = list(names)
    if sorted(given) != sorted(_NAMES):
        raise ConfigError(f"export is 'released' and the aspects are {', '.join(given) or 'none'}; {_holds()}")


def export_released(config: ExtractConfig, output: Output) -> Exported:
    """Write the tables under `<out>/released`, each whole or not at all; what stood there is replaced.

    Raises ConfigError where the aspects are not the layout's, DataError where a table cannot be read or written.
    """
    check_aspects(entry["name"] for entry in (output.aspects() or {"aspects": []})["aspects"])
    layout, folder = RELEASED[config.dataset], output.path(FOLDER)
    described = output.descriptions()
    ranked = {row["id"]: row["aspects"] for row in output.table(RANKINGS_FOLDER, ["id", "aspects"]).to_pylist()}
    further = _further(config, layout)
    utterances = output.utterances()
    rows: dict[Split, list[_Row]] = {split: [] for split in SPLITS}
    for u in utterances:
        if _whole(u, described, ranked):
            name = _id_columns(layout, u["id"])
            said = (u["text"], u["label"], *further.get(u["id"], ("",) * len(_FURTHER[config.dataset])))
            seen = tuple(described[u["id"]][aspect] for aspect in _NAMES)
            rows[u["split"]].append(_Row(name=name, said=said, seen=seen, order=tuple(ranked.get(u["id"], ()))))
    for split in SPLITS:
        _write_split(config.dataset, layout, folder, split, rows[split])
    labels = {split: {row.said[1] for row in rows[split]} for split in SPLITS}
    return Exported(
        folder=folder,
        rows={split: len(rows[split]) for split in SPLITS},
        left_out=len(utterances) - sum(map(len, rows.values())),
        untrained=tuple(sorted((labels["dev"] | labels["test"]) - labels["train"])),
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """One utterance, as the cells of its tables."""

    name: tuple[str, ...]
    said: tuple[str, ...]
    """Text, label and the columns that nobody here reads."""
    seen: tuple[str, ...]
    order: tuple[str, ...]
    """Ranking; training split only."""


def _write_split(dataset: str, layout: Layout, folder: str, split: Split, rows: Sequence[_Row]) -> None:
    """The tables of one split. The authors' own end their lines in two ways, and so do these."""
    columns = (*layout.id_columns, layout.text, layout.label, *_FURTHER[dataset])
    path = storage.join(folder, layout.texts, f"{split}.tsv")
    _write(path, columns, ((*row.name, *row.said) for row in rows), end="\n")
    columns = (*layout.id_columns, *_DESCRIBED_AS[dataset])
    path = storage.join(folder, layout.descriptions, f"{split}.tsv")
    _write(path, columns, ((*row.name, *row.seen) for row in rows), end="\r\n")
    if split == "train":
        columns = (*layout.ranking_id_columns, *_RANK_COLUMNS)
        orders = ((*row.name, *(_RANKED_AS.get(aspect, aspect) for aspect in row.order)) for row in rows)
        _write(storage.join(folder, layout.rankings), columns, orders, end="\r\n")


def _whole(
    utterance: Mapping[str, str | None], described: Mapping[str, Mapping[str, str]], ranked: Mapping[str, Sequence[str]]
) -> bool:
    """Whether the layout has a place for an utterance."""
    name = utterance["id"] or ""
    texts = described.get(name, {})
    if not utterance["label"] or not all(texts.get(aspect, "").strip() for aspect in _NAMES):
        return False
    return utterance["split"] != "train" or sorted(ranked.get(name, ())) == sorted(_NAMES)


def _id_columns(layout: Layout, name: str) -> tuple[str, ...]:
    """The id columns that make the id `name`: ("0", "3") of dia0_utt3."""
    pattern = re.escape(layout.id_format).replace(re.escape("{}"), r"([^\t\r\n]+?)")
    found = re.fullmatch(pattern, name)
    if found is None:
        like = layout.id_format.format(*range(len(layout.id_columns)))
        raise ConfigError(
            f"export is 'released' and the id {shown(name)} cannot be written in the columns "
            f"{', '.join(layout.id_columns)}; expected ids such as {like!r}. Leave --export out."
        )
    return found.groups()


def _holds() -> str:
    return f"the authors' layout holds exactly {', '.join(_NAMES)}: --aspects A,E,I. Or leave --export out."


def _further(config: ExtractConfig, layout: Layout) -> dict[str, tuple[str, ...]]:
    """The columns that extraction does not know, by utterance, where the input has them."""
    names = _FURTHER[config.dataset]
    root = locate(config.data) if config.data and storage.kind(config.data) == "folder" else None
    if root is None:
        return {}
    found = {}
    for split in SPLITS:
        table = read_table(storage.join(root, layout.texts, f"{split}.tsv"), Columns(layout.id_columns, names))
        for _, values in table:
            name = layout.id_format.format(*(values[column] for column in layout.id_columns))
            found[name] = tuple(values.get(column) or "" for column in names)
    return found


def _write(path: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, end: str) -> None:
    """One table, with the line ending `end`."""
    lines = ("\t".join(_BREAK.sub(" ", value) for value in row) + end for row in (columns, *rows))
    try:
        content = "".join(lines).encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{path}: a text holds half a character ({error}); it cannot be written as UTF-8.") from None
    storage.write_bytes(path, content)


def summary(exported: Exported) -> str:
    """One line for a person."""
    counts = " / ".join(str(exported.rows[split]) for split in SPLITS)
    left = f"; {exported.left_out} left out, not described or not ranked" if exported.left_out else ""
    known = len(exported.untrained)
    bare = f"; {known} label{'s' * (known > 1)} of dev and test without a training utterance, which no reader takes"
    return f"{exported.folder}: {counts} utterances (train / dev / test){left}{bare if known else ''}"
