"""Where the released tables and the recorded numbers lie; tests that need them skip with a reason where they do not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("LGSRR_SHARED", Path(__file__).resolve().parents[2] / "shared"))
needs_shared = pytest.mark.skipif(
    not (SHARED / "data").is_dir(), reason=f"needs the released tables: {SHARED / 'data'} is absent (set LGSRR_SHARED)"
)
