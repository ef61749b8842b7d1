"""Predictions as a table on a terminal: a label each, and per slot how much it counts, agrees and differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lgsrr.classifier import Asked
from lgsrr.predictions import TEXT, Prediction


def print_predictions(
    asked: Sequence[Asked],
    answers: Sequence[Prediction],
    console: Console | None = None,
    *,
    seen: Sequence[Mapping[str, str]] | None = None,
) -> None:
    """One block per utterance, with what was `seen` under each aspect where a video model has just described it.

    What was said or seen is shown as it is: no markup of it is followed.
    """
    console = console or Console()
    for place, (question, prediction) in enumerate(zip(asked, answers, strict=True)):
        head = f"[bold]{escape(prediction.label)}[/bold]  {100 * prediction.probability:.1f} %"
        console.print(f"{escape(prediction.id)}  {head}  “{escape(question.text)}”", highlight=False)
        console.print(_relations(prediction, {} if seen is None else seen[place]))


def _relations(prediction: Prediction, seen: Mapping[str, str]) -> Table:
    table = Table(box=None, padding=(0, 1))
    table.add_column("")
    for title in ("importance α", "complementarity β", "inconsistency γ"):
        table.add_column(title, justify="right", no_wrap=True)
    if seen:
        table.add_column("seen in the clip")
    for slot, importance in prediction.importance.items():
        if slot == TEXT:
            table.add_row(TEXT, f"{importance:.3f}", "", "")
        else:
            values = (importance, prediction.complementarity[slot], prediction.inconsistency[slot])
            shown = [escape(seen[slot])] if seen else []
            table.add_row(escape(slot), *(f"{value:.3f}" for value in values), *shown)
    return table
