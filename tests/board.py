"""A job's board in this process, for actors' classes without Ray."""

from __future__ import annotations

from typing import Any

from pipelines.job_board import JobBoard, _Board


class Board(JobBoard):
    """As that of a job whose output every node sees."""

    def __init__(self) -> None:
        super().__init__(None)
        self._held = _Board()

    def _ask(self, method: str, *arguments: str) -> Any:
        return getattr(self._held, method)(*arguments)

    def _tell(self, method: str, *arguments: str) -> None:
        self._ask(method, *arguments)
