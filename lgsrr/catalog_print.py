"""A dataset's counts as tables for a person. Names from the data are shown as plain text, never as markup."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lgsrr.records import SPLITS

if TYPE_CHECKING:
    from lgsrr.catalog import Summary


def print_summary(summary: Summary, source: str) -> None:
    """Print splits, labels with their counts and the ranking table on stdout."""
    console = Console(highlight=False)
    console.print(Text(f"{summary['dataset']} from {source}"), soft_wrap=True)
    console.print()
    console.print(_labels(summary))
    console.print(_ranks(summary) if summary["ranks"] else "No rankings.")


def _labels(summary: Summary) -> Table:
    table = _table("label", [*SPLITS, "all"], footer=["utterances", *_counts(summary["splits"])])
    for label, counts in summary["labels"].items():
        table.add_row(Text(label), *_counts(counts))
    return table


def _ranks(summary: Summary) -> Table:
    count = len(summary["ranks"])
    table = _table("aspect", [f"ranked {_ordinal(place)}" for place in range(1, count + 1)])
    for name, places in summary["ranks"].items():
        table.add_row(Text(name), *map(str, places))
    return table


def _counts(counts: dict[str, int]) -> list[str]:
    return [*(str(counts[split]) for split in SPLITS), str(sum(counts.values()))]


def _table(first: str, numbers: Sequence[str], footer: Sequence[str] = ()) -> Table:
    table = Table(show_footer=bool(footer))
    for index, name in enumerate((first, *numbers)):
        foot = footer[index] if footer else ""
        table.add_column(name, foot, justify="right" if index else "left")
    return table


def _ordinal(place: int) -> str:
    return f"{place}{({1: 'st', 2: 'nd', 3: 'rd'}).get(place, 'th')}"
