"""Ctrl-C and `ray job stop`: the first asks the job to end well, a second Ctrl-C ends it at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def stopping(stop: Callable[[str], None]) -> Iterator[threading.Event]:
    """For the block, SIGINT and SIGTERM call `stop(reason)` in a thread and set the event.

    Outside the main thread, where no handler can be set, the block just runs.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if asked.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.set()
        reason = "interrupted" if number == signal.SIGINT else "asked to stop"
        threading.Thread(target=stop, args=(reason,), daemon=True).start()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
