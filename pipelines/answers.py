"""Answers that were made or paid for, each kept under the fingerprint of its request before anybody uses it.

One small file an answer, `answers/<2 digits>/<fingerprint>.json`: a retried batch, another actor and the next run find
it by its name alone, there is no index to lose, and a local disk and S3 need no different code. The price is a file
(or an object, 5 dollars a million) for each answer.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

from lgsrr import storage
from lgsrr.errors import DataError

from .calls import Answer

FOLDER = "answers"
LISTINGS = 16
"""Folders that are listed side by side; a store gives a thousand names at a time."""


class AnswerStore:
    """The answers under one output, a local folder or an `s3://` prefix. Any number of processes may share it."""

    def __init__(self, out: str) -> None:
        self._root = storage.join(out, FOLDER)

    def get(self, fingerprint: str) -> Answer | None:
        """The answer to that request, or None; one that cannot be read is as good as none."""
        try:
            content = storage.read_if_there(self._path(fingerprint))
            return None if content is None else Answer.from_json(json.loads(content))
        except (ValueError, KeyError, TypeError):
            return None

    def put(self, answer: Answer) -> None:
        """Keep an answer; when this returns, it is on the disk. Raises DataError where it cannot be written."""
        content = json.dumps(answer.to_json(), ensure_ascii=False).encode()
        storage.write_bytes(self._path(answer.fingerprint), content)

    def fingerprints(self) -> set[str]:
        """Fingerprints of all answers, by listing; for plans, not for every row."""
        try:
            folders = storage.names_in(self._root) if storage.kind(self._root) == "folder" else []
        except DataError:
            return set()
        with ThreadPoolExecutor(LISTINGS) as threads:
            listed = threads.map(storage.names_in, [storage.join(self._root, folder) for folder in folders])
            return {name.removesuffix(".json") for names in listed for name in names if name.endswith(".json")}

    def _path(self, fingerprint: str) -> str:
        return storage.join(self._root, fingerprint[:2], f"{fingerprint}.json")
