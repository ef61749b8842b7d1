"""A notice board between the workers of a run and its driver, on whatever node each of them is.

The first worker posts; the driver takes what is new, shows it and records it. Posting never waits. The board goes when
the driver goes; nothing depends on it, for all figures are in the run's checkpoints too.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

Notice = tuple[str, Any]


class Post(Protocol):
    """Where a worker may post: a board, or whatever stands for one in the worker's own process."""

    def post(self, kind: str, value: Any) -> None:
        """Post a notice; returns at once."""


class _BoardActor:
    def __init__(self) -> None:
        self._notices: list[Notice] = []

    def post(self, kind: str, value: Any) -> None:
        self._notices.append((kind, value))

    def take(self) -> list[Notice]:
        taken, self._notices = self._notices, []
        return taken


@dataclasses.dataclass(frozen=True, slots=True)
class Board:
    """A handle to the board; may be sent to workers."""

    actor: Any

    @classmethod
    def on_this_node(cls) -> Board:
        """A board beside the driver, where a lost worker node cannot take it away."""
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        return cls(ray.remote(num_cpus=0)(_BoardActor).options(scheduling_strategy=here).remote())

    def post(self, kind: str, value: Any) -> None:
        """Post a notice; returns at once."""
        self.actor.post.remote(kind, value)

    def take(self) -> list[Notice]:
        """What was posted since the last call, in order."""
        notices: list[Notice] = ray.get(self.actor.take.remote())
        return notices
