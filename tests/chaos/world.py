"""What the commands stand on: a Ray cluster of a head and two nodes; the model's server behind a proxy; MLflow."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from tests.chaos.servers import LlmServer, Way
from tests.mlflow_server import MlflowServer
from tests.nodes import Nodes
from tests.processes import Process
from tests.tiny import ROOT

WORKERS = 2
NO_ACTORS = ("ray::IDLE", "ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""How the titles of Ray's processes begin in which no work of ours runs."""


class World:
    """All of it, started in order and ended by `close`."""

    def __init__(self, folder: Path) -> None:
        self.mlflow, self.llm = MlflowServer(folder), LlmServer(folder)
        self.llm.start()
        self.way = Way(self.llm.port)
        self.mlflow.start(timeout_s=300)
        self.nodes = self._nodes()

    def _nodes(self) -> Nodes:
        nodes = Nodes()
        for _ in range(WORKERS):
            nodes.add()
        return nodes

    def renew(self) -> None:
        """The whole cluster is gone, and another one is made."""
        self.nodes.close()
        self.nodes = self._nodes()

    def replace(self, node: Any, *, raylet_first_s: float = 0.0) -> None:
        """A node is gone, and another one comes, as a pool of nodes does it."""
        self.nodes.lose(node, raylet_first_s=raylet_first_s)
        self.nodes.add()

    def actors(self) -> list[Process]:
        """Every process of Ray's that holds an actor or runs a task, by its title.

        Not the agents of a node, whose raylet ends with them: that is a node lost, which another one replaces.
        """
        nodes = [self.nodes.head, *self.nodes.workers]
        found = [process for node in nodes for process in self.nodes.processes(node)]
        return sorted((p for p in found if not p.title().startswith(NO_ACTORS)), key=lambda p: (p.title(), p.pid))

    def environment(self) -> dict[str, str]:
        """Of the commands."""
        where = {"RAY_ADDRESS": self.nodes.address, "MLFLOW_TRACKING_URI": self.mlflow.uri}
        return {**os.environ, **where, "PYTHONFAULTHANDLER": "1"}

    def close(self) -> None:
        """End everything."""
        with contextlib.suppress(Exception):
            self.nodes.close()
        self.mlflow.resume()
        self.mlflow.kill()
        self.way.cut()
        self.llm.kill()


@contextlib.contextmanager
def world(folder: Path) -> Iterator[World]:
    """A world for the block, with the environment that its nodes have from this process."""
    mine = {"PYTHONPATH": str(ROOT), "LGSRR_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    quiet = {"RAY_TRAIN_ENABLE_STATE_TRACKING": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    with mock.patch.dict(os.environ, {**mine, **quiet}):
        here = World(folder)
        try:
            yield here
        finally:
            here.close()
