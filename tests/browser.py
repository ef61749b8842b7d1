"""A real browser, headless: what a page has become after its scripts have run."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def browser() -> str:
    """Chromium's program; the test is skipped where there is none."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"needs a browser, one of {', '.join(NAMES)}: apt-get install chromium")
    return found


def dom_of(page: Path, profile: Path, timeout_s: float = 240) -> str:
    """The page's document after its scripts have run, as HTML. Links that open windows of their own are let."""
    command = [browser(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command += [f"--user-data-dir={profile}", "--virtual-time-budget=8000", "--disable-popup-blocking"]
    done = subprocess.run(
        [*command, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=timeout_s, check=False
    )
    assert "</html>" in done.stdout, done.stderr[-2000:]
    return done.stdout
