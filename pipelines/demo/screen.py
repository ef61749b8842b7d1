"""The one screen at the end of the demo: what was done, what it brought, where it is, and how to go on from here."""

from __future__ import annotations

import csv
import dataclasses
import json
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lgsrr.destination import TrackingConfig, ui_hint

from .settings import DemoConfig, Llm
from .steps import CHAMPION, Places, run_folder

_REAL = (
    "python pipelines/extract.py --dataset mintrec2 --data released --videos clips --out extracted --budget-usd 20",
    "python tune/search.py --dataset mintrec2 --data extracted --trials 24 --seeds 5",
)
"""The same two on real data; README.md has the rest."""
_CLUSTER = "ray job submit --working-dir . -- python pipelines/extract.py …"


@dataclasses.dataclass(frozen=True, kw_only=True)
class New:
    """A new clip, what it means and what the champion said."""

    text: str
    video: str
    truth: str
    said: dict[str, Any]

    @property
    def is_right(self) -> bool:
        return bool(self.said["label"] == self.truth)


def print_screen(config: DemoConfig, llm: Llm, took: dict[str, float], console: Console) -> None:
    """All of it."""
    at = Places(folder=config.folder)
    new = new_clips(at)
    console.rule("[bold]what was done[/bold]")
    console.print(_done(took))
    console.rule("[bold]what the picture brings[/bold]")
    console.print(_scores(config, at))
    _print_new(new, console)
    console.rule("[bold]where it is[/bold]")
    _print_places(at, llm, new, console)
    console.rule("[bold]from here[/bold]")
    for title, lines in (("real data", _REAL), ("a real cluster", (_CLUSTER,))):
        for place, line in enumerate(lines):
            console.print(f"{title if place == 0 else '':<16}{line}", highlight=False, markup=False, soft_wrap=True)


def _done(took: dict[str, float]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in took:
        table.add_column(name, justify="right")
    table.add_column("in all", justify="right")
    table.add_row(*(f"{seconds:.0f} s" for seconds in (*took.values(), sum(took.values()))))
    return table


def _scores(config: DemoConfig, at: Places) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for title in ("dev F1 %", "test ACC %", "test F1 %"):
        table.add_column(title, justify="right")
    best = json.loads((at.sample / "sample.json").read_text(encoding="utf-8"))["text_alone_accuracy"]
    for name, k in (("text alone", 0), ("LGSRR, with descriptions", 3)):
        scores = json.loads((run_folder(config, k) / "result.json").read_text(encoding="utf-8"))["scores"]
        table.add_row(name, *(f"{100 * scores[key]:.1f}" for key in ("dev_f1", "test_acc", "test_f1")))
    table.add_row("the best that the words allow", "", f"{100 * best:.1f}", "")
    winner = json.loads((at.search / "answer.json").read_text(encoding="utf-8"))
    settings = ", ".join(f"{name} {value}" for name, value in winner["settings"].items())
    table.caption = f"the search's winner: {settings or 'the settings that it started from'}"
    return table


def new_clips(at: Places) -> list[New]:
    """The new clips in the order of their table, with what was said of each."""
    said = [json.loads(line) for line in at.predictions.read_text(encoding="utf-8").splitlines()]
    by_id = {answer["id"]: answer for answer in said}
    with (at.new / "utterances.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [
        New(text=row["text"], video=str(at.new / row["video"]), truth=row["label"], said=by_id[row["id"]])
        for row in rows
    ]


def _print_new(new: list[New], console: Console) -> None:
    right = sum(clip.is_right for clip in new)
    console.print(f"\nof {len(new)} new clips the champion understood {right}; one of them:", highlight=False)
    shown = next((clip for clip in new if clip.is_right), new[0])
    label, chance = escape(shown.said["label"]), 100 * shown.said["probability"]
    meant = "" if shown.is_right else f" (meant: {escape(shown.truth)})"
    console.print(f"  “{escape(shown.text)}”  [bold]{label}[/bold] {chance:.0f} %{meant}", highlight=False)
    console.print(_reasons(shown.said))


def _reasons(said: dict[str, Any]) -> Table:
    table = Table(box=None, padding=(0, 1))
    table.add_column("")
    for title in ("importance α", "complementarity β", "inconsistency γ"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("seen in the clip")
    for slot, importance in said["importance"].items():
        relations = [said[kind].get(slot) for kind in ("complementarity", "inconsistency")]
        cells = ["" if value is None else f"{value:.3f}" for value in relations]
        table.add_row(escape(slot), f"{importance:.3f}", *cells, escape(said.get("descriptions", {}).get(slot, "")))
    return table


def _print_places(at: Places, llm: Llm, new: list[New], console: Console) -> None:
    who = "a stand-in ranked the aspects by rules" if llm.is_stand_in else f"{llm.name} ranked the aspects"
    another = new[-1]
    predict = f"python -m lgsrr.predict --model {CHAMPION} --runs {at.folder} --video {another.video}"
    rows = (
        ("clips, described", f"{at.extracted / 'report.html'}   ({who})"),
        ("the search", str(at.search / "report" / "search.html")),
        ("MLflow's pages", ui_hint(TrackingConfig().destination(at.folder))),
        ("try it", f'{predict} --text "{another.text}"'),
    )
    for title, where in rows:
        console.print(f"{title:<18}{where}", highlight=False, markup=False, soft_wrap=True)
