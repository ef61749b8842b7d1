"""Several Ray nodes on this machine: a head without CPUs, on which drivers run, and workers that come and go.

Every node is a raylet with processes of its own. It may have an environment of its own (`$LGSRR_CACHE`, a key) and see
another disk than the driver: `hidden` folders are empty there, which is what a folder of the driver's machine is to a
node elsewhere. Sessions lie in a temporary folder, so that nobody else on this machine finds, or is found by, this Ray.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

from tests.processes import Process, descendants, kill

T = TypeVar("T")
NODE_CPUS = 2
STARTS = 4
"""How often a node is started that does not come up."""
_NEW_NAMESPACE = 0x00020000
_PRIVATE = 1 << 18 | 1 << 14
_HEALTH = {"health_check_period_ms": 1000, "health_check_timeout_ms": 10_000, "health_check_failure_threshold": 3}
"""A node that is gone is noticed within seconds, not half a minute; one that is slow is not taken for gone."""


class Nodes:
    """A cluster; nodes are Ray's own `Node` objects."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._folder = tempfile.mkdtemp(prefix="nodes-", dir="/tmp")  # short: sockets lie below it
        self._cluster = Cluster(shutdown_at_exit=True)
        self._came: list[Any] = []
        self._closed = threading.Event()
        with mock.patch("ray._private.utils.write_ray_address"):  # it would lead every `ray.init()` of this user here
            self.head = self._start(num_cpus=0, include_dashboard=False, temp_dir=self._folder, _system_config=_HEALTH)

    @property
    def address(self) -> str:
        """What drivers connect to."""
        return str(self._cluster.address)

    @property
    def workers(self) -> list[Any]:
        """Nodes but the head, in the order in which they came."""
        return [node for node in self._came if node in self._cluster.worker_nodes]

    def add(self, *, env: Mapping[str, str] | None = None, hidden: Sequence[Path] = (), cpus: int = NODE_CPUS) -> Any:
        """A node more; returns once the cluster knows it."""

        def add() -> Any:
            return self._start(num_cpus=cpus, env_vars=dict(env or {}))

        self._came.append(_with_own_disk(hidden, add, self._closed) if hidden else add())
        return self._came[-1]

    def _start(self, **settings: Any) -> Any:
        """A node; one whose raylet dies as it comes up, which it does when its agents are late, is started again."""
        for _ in range(STARTS - 1):
            with contextlib.suppress(ChildProcessError):
                return self._start_once(**settings)
        return self._start_once(**settings)

    def _start_once(self, **settings: Any) -> Any:
        """A node; where it does not come up, what was started of it is killed."""
        from ray._private import services

        before = descendants(os.getpid())

        def is_dead() -> bool:
            return not any("/raylet/raylet " in p.title() for p in descendants(os.getpid()) - before)

        try:
            with (
                mock.patch("ray._private.services.get_node", _patiently(services.get_node, is_dead)),
                mock.patch("ray._private.utils.set_sigterm_handler"),  # can be set in the main thread alone
            ):
                return self._cluster.add_node(**settings)
        except BaseException:
            kill(descendants(os.getpid()) - before)
            raise

    def processes(self, node: Any) -> list[Process]:
        """The workers of a node: Ray's actors and tasks, each with its kind in its title; none of one that is gone."""
        raylets = [raylet.process.pid for raylet in node.all_processes.get("raylet", ())]
        found = [process for raylet in raylets for process in descendants(raylet)]
        below = [process for process in found if process.title().startswith("ray::")]
        return sorted(below, key=lambda process: process.pid)

    def lose(self, node: Any, *, raylet_first_s: float = 0.0) -> None:
        """A node is gone, as its machine is: every process of it is killed, its raylet perhaps so much earlier."""
        below = self.processes(node)
        if raylet_first_s:
            node.kill_raylet(check_alive=False)
            time.sleep(raylet_first_s)
        if node is self.head:
            node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
        else:
            self._cluster.remove_node(node, allow_graceful=False)
        kill(below)

    def drain(self, node: Any, seconds: float) -> bool:
        """Tell Ray that a node will be gone in so many seconds, as a spot notice does; whether Ray took it."""
        from ray._raylet import GcsClient  # type: ignore[attr-defined]
        from ray.core.generated import autoscaler_pb2

        reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
        deadline_ms = int((time.time() + seconds) * 1000)
        taken, _ = GcsClient(address=self.address).drain_node(node.node_id, reason, "spot notice", deadline_ms)
        return bool(taken)

    def close(self) -> None:
        """End every process of the cluster."""
        nodes = [*self._cluster.worker_nodes, self.head]
        below = [process for node in nodes for process in self.processes(node)]
        for node in nodes:
            with contextlib.suppress(Exception):
                node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
        kill(below)
        self._closed.set()
        shutil.rmtree(self._folder, ignore_errors=True)


def _patiently(get_node: Callable[..., T], is_dead: Callable[[], bool], timeout_s: float = 120.0) -> Callable[..., T]:
    """Ray gives a raylet 30 s to come up; on a machine with a lot to do that may be too few.

    The raylet for its part gives its agents 15 s, a constant of its own, and ends itself when these are late.
    """

    def get(*arguments: Any) -> T:
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                return get_node(*arguments)
            except RuntimeError:
                if is_dead():
                    raise ChildProcessError("a raylet ended as it came up; see raylet.out") from None
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.1)

    return get


@contextlib.contextmanager
def nodes() -> Iterator[Nodes]:
    """A cluster for as long as the block lasts."""
    cluster = Nodes()
    try:
        yield cluster
    finally:
        cluster.close()


def can_hide() -> bool:
    """Whether this process may give a node a disk of its own; it takes the right to mount."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "file").touch()
        try:
            return _with_own_disk([Path(folder)], lambda: os.listdir(folder) == [])
        except OSError:
            return False


def _with_own_disk(hidden: Sequence[Path], action: Callable[[], T], until: threading.Event | None = None) -> T:
    """What `action` gives in a thread to which, and to whose children, the hidden folders are empty.

    Linux kills Ray's processes when the thread that started them ends, so that it stays `until` told otherwise. Raises
    OSError where a thread may have no disk of its own.
    """
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            _call("unshare", _NEW_NAMESPACE)  # of this thread alone
            _call("mount", b"none", b"/", None, _PRIVATE, None)
            for folder in hidden:
                _call("mount", b"tmpfs", os.fsencode(folder), b"tmpfs", 0, b"size=16m")
            outcome.set_result(action())
        except BaseException as error:
            outcome.set_exception(error)
            return
        if until is not None:
            until.wait()

    threading.Thread(target=run, daemon=True).start()
    return outcome.result()


def _call(name: str, *arguments: Any) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
