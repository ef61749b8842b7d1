"""One extraction at a time writes to an output: a lock on a disk, a heartbeat in a store.

A lock of the operating system goes with its holder. A store has none, so the holder writes an object every 20 s, and
who finds one younger than a minute stays away; two that start within the same second may both get in, and then write
the same rows under different names, which the next run's tidying removes.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lgsrr import storage
from lgsrr.errors import DataError

from .calls import ExtractionError

NAME = "_lease.json"
BEAT_S, STALE_S = 20.0, 60.0


@contextlib.contextmanager
def leased(out: str) -> Iterator[None]:
    """Hold the output for the block.

    Raises:
        ExtractionError: another process holds it; names it.
        DataError: the output cannot be written to.
    """
    path = storage.join(out, NAME)
    holder = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}
    with _beating(path, holder) if storage.is_uri(out) else _locked(path, holder):
        yield


@contextlib.contextmanager
def _locked(path: str, holder: dict[str, object]) -> Iterator[None]:
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        stream = open(path, "a+", encoding="utf-8")  # noqa: SIM115  (held for the block)
    except OSError as error:
        raise DataError(
            f"--out {Path(path).parent}: cannot be written: {error.strerror}. Name another place."
        ) from None
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ExtractionError(_taken(path, storage.read_if_there(path))) from None
        stream.truncate(0)
        stream.write(json.dumps(holder))
        stream.flush()
        yield


@contextlib.contextmanager
def _beating(path: str, holder: dict[str, object]) -> Iterator[None]:
    content = storage.read_if_there(path)
    if content is not None and time.time() - float(_read(content).get("beat", 0.0)) < STALE_S:
        raise ExtractionError(_taken(path, content))
    done = threading.Event()

    def beat() -> None:
        storage.write_bytes(path, json.dumps({**holder, "beat": time.time()}).encode())

    def keep_beating() -> None:
        while not done.wait(BEAT_S):
            with contextlib.suppress(DataError):
                beat()

    beat()
    thread = threading.Thread(target=keep_beating, daemon=True, name="lease")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        with contextlib.suppress(DataError):
            storage.remove(path)


def _taken(path: str, content: bytes | None) -> str:
    holder = _read(content or b"{}")
    who = f"process {holder.get('pid', '?')} on {holder.get('host', '?')}"
    return (
        f"{path}: another extraction ({who}) writes to this output. Wait for it or stop it (`ray job stop`, Ctrl-C); "
        f"if it was killed on another machine, its hold ends after {STALE_S:.0f} s."
    )


def _read(content: bytes) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        value = json.loads(content)
        if isinstance(value, dict):
            return value
    return {}
