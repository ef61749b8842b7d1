"""An event loop in a thread of its own, for actors whose calls come in threads."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class BackgroundLoop:
    """Runs coroutines; what is bound to a loop (connections, locks) is made and used on this one."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True, name="asking").start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """What the coroutine gives; waits for it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def leave(self, coroutine: Coroutine[Any, Any, None], within_s: float = 2.0) -> None:
        """Say goodbye by a coroutine, and wait no longer than that: when the process ends, the loop's thread stands
        still, and whoever waited for it would stay behind for ever."""
        with contextlib.suppress(Exception):
            asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=within_s)
