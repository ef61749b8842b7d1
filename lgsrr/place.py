"""Whether a folder that the driver writes to is the same folder on another node, or one of that node's own disk.

A path means another folder on each machine, unless they share it. A worker that keeps answers or checkpoints where the
driver never looks has worked for nothing, and says nothing. So the driver leaves a mark in the folder while it runs,
and whoever writes there from a node looks for it first. A URI means the same everywhere and needs no mark.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import time
from collections.abc import Callable, Iterator

from lgsrr import storage
from lgsrr.errors import DataError

MARK = "_driver.txt"
PATIENCE_S = 3.0
"""For how long a mark is looked for: a network's file system may show it late."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A folder of the driver's; may be sent to workers."""

    folder: str
    flag: str
    """By which another folder, or an s3:// prefix, is named."""
    token: str

    def problem(self, sleep: Callable[[float], None] = time.sleep, patience_s: float = PATIENCE_S) -> str | None:
        """What to tell where this process does not see the driver's folder; None where it does."""
        left = patience_s
        while not self._is_seen():
            if left <= 0:
                return (
                    f"{self.flag} {self.folder}: the node {socket.gethostname()} does not see that folder of the "
                    "driver's. Nodes work together on storage that all of them see: an s3:// prefix, or a mounted "
                    f"folder; name one with {self.flag}"
                )
            sleep(0.25)
            left -= 0.25
        return None

    def _is_seen(self) -> bool:
        with contextlib.suppress(DataError):
            return storage.read_if_there(storage.join(self.folder, MARK)) == self.token.encode()
        return False


@contextlib.contextmanager
def marked(folder: str, flag: str) -> Iterator[Place | None]:
    """Leave a mark in a folder for the block; None for a URI.

    Raises DataError where it cannot be written.
    """
    if storage.is_uri(folder):
        yield None
        return
    place = Place(folder=storage.absolute(folder), flag=flag, token=os.urandom(8).hex())
    path = storage.join(place.folder, MARK)
    storage.write_bytes(path, place.token.encode())
    try:
        yield place
    finally:
        with contextlib.suppress(DataError):
            storage.remove(path)
