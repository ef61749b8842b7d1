"""Gives memory that was freed back to the system.

Packed batches are of a new size in every step, and glibc keeps the holes that they leave: without this, a worker on a
CPU grows to several times what it uses. A call takes some 50 ms, so it is made every few steps.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable

TRIM_EVERY = 10
"""Steps between two calls."""


def trim() -> None:
    """Give back what is free; does nothing where the C library is not glibc."""
    _trim_function()()


@functools.cache
def _trim_function() -> Callable[[], object]:
    try:
        malloc_trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return lambda: None
    return lambda: malloc_trim(0)
