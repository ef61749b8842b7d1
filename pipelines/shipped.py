"""The small model that comes with the project: its name, and its folder."""

from __future__ import annotations

from pathlib import Path

NAME = "small"
"""By which commands know it: `--model small`."""
SMALL = Path(__file__).parent / "videollama2" / "small"
"""Its folder; `README.md` in it says how it was made."""


def model_folder(name: str) -> str:
    """The folder of the shipped model where it is named; any other name or folder as it is."""
    return str(SMALL) if name == NAME else name
