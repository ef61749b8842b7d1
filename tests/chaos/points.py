"""A command that dies at a named point of its work: `python -m tests.chaos.points "NAME" NTH PROGRAM …`.

The points are where something has just been written, or is about to be: a part of Parquet, a run's folder, a result.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, Literal

from tests.chaos.plan import Program

When = Literal["before", "after"]
POINTS: dict[Program, dict[str, tuple[str, str, When]]] = {
    "extraction": {
        "before a part": ("pipelines.parts", "Parts.put", "before"),
        "after a part": ("pipelines.parts", "Parts.put", "after"),
        "before the aspects": ("pipelines.output", "Output.write_json", "before"),
        "while tidying": ("lgsrr.storage", "remove", "after"),
        "before the manifest": ("pipelines.extraction", "Extraction._finish", "before"),
        "before it is recorded": ("pipelines.extraction", "record", "before"),
    },
    "training": {
        "after the features": ("lgsrr.train", "_features", "after"),
        "before the results": ("lgsrr.run_folder", "RunFolder.take", "before"),
        "after the results": ("lgsrr.run_folder", "RunFolder.take", "after"),
        "after the report": ("lgsrr.run_folder", "RunFolder.write_report", "after"),
        "before the end is told": ("lgsrr.tracker", "Tracker.finish", "before"),
    },
    "search": {
        "before a result": ("tune.folder", "SearchFolder.add", "before"),
        "after a result": ("tune.folder", "SearchFolder.add", "after"),
        "before a test": ("tune.folder", "SearchFolder.add_tested", "before"),
        "after a test": ("tune.folder", "SearchFolder.add_tested", "after"),
        "before the answer": ("tune.folder", "SearchFolder.finish", "before"),
        "after the answer": ("tune.folder", "SearchFolder.finish", "after"),
    },
}
MAINS: dict[Program, tuple[str, str]] = {
    "extraction": ("pipelines.extract", "pipelines/extract.py"),
    "training": ("lgsrr.train", "-m lgsrr.train"),
    "search": ("tune.search", "tune/search.py"),
}
"""The module with `main`, and how the command is given."""


def point(program: Program, pick: int) -> tuple[str, int]:
    """A named point, and at which time that it is passed."""
    names = sorted(POINTS[program])
    once = ("before the manifest", "before it is recorded", "before the aspects", "before a test", "after a test")
    name = names[pick % len(names)]
    many = program != "training" and name not in once and not name.endswith("the answer")
    return name, 1 + (pick // len(names)) % 2 if many else 1


def dying(action: Callable[..., Any], when: When, nth: int) -> Callable[..., Any]:
    """`action`, which kills this process when it is called for the nth time."""
    left = nth

    def act(*arguments: Any, **named: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0 and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = action(*arguments, **named)
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return act


def held(module: str, path: str) -> tuple[Any, str]:
    """The module or class that holds what stands at a dotted path, and its name there."""
    holder: Any = importlib.import_module(module)
    *owners, attribute = path.split(".")
    for owner in owners:
        holder = getattr(holder, owner)
    return holder, attribute


def arm(program: Program, name: str, nth: int) -> None:
    """From now on this process kills itself when it passes a named point for the nth time."""
    module, path, when = POINTS[program][name]
    holder, attribute = held(module, path)
    setattr(holder, attribute, dying(getattr(holder, attribute), when, nth))


def main() -> None:
    """Run a command up to a point."""
    name, nth, program = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    arm(program, name, nth)  # type: ignore[arg-type]
    start, told = MAINS[program]  # type: ignore[index]
    sys.argv = [told, *sys.argv[4:]]
    importlib.import_module(start).main()


if __name__ == "__main__":
    main()
