"""Linters that PyPI brings: found beside this Python, else in PATH."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest


def tool(name: str) -> str:
    """A tool's path; skips the test where it is not installed."""
    beside = Path(sysconfig.get_path("scripts")) / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name}: pip install '.[dev]' brings it where its wheel is for this machine")
    return found


def complaints(name: str, *arguments: str | Path) -> str:
    """What a linter has to say; empty where it is content."""
    done = subprocess.run([tool(name), *map(str, arguments)], capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr if done.returncode else ""
