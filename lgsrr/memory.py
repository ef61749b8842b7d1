"""Keeps a process on a CPU at the memory that it uses: packed batches are of a new size in every step.

glibc keeps the holes that tensors of ever new sizes leave, and oneDNN and torch's layer over it keep what they prepared
for each size, a thousand of them, at megabytes each. Without this a worker grows by several GB in an epoch.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable

TRIM_EVERY = 10
"""Steps between two calls."""


def bound_caches() -> None:
    """Let oneDNN keep what it prepared for the last few sizes only; to be called before its first product."""
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, "16")


def trim() -> None:
    """Give back what is free, in some 50 ms; does nothing where the C library is not glibc."""
    _trim_function()()


@functools.cache
def _trim_function() -> Callable[[], object]:
    try:
        malloc_trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return lambda: None
    return lambda: malloc_trim(0)
