"""The Ray cluster that a command runs on: the one it was sent to, else a local one for its own time."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import ray

from lgsrr.errors import MachineError

_ENVIRONMENT = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # its warning about a default that will change
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
    "RAY_DISABLE_RECORD_USAGE": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # after each epoch a worker waits to be looked at; 2 by itself
}


def set_environment() -> None:
    """What this project wants of Ray in this process and what comes of it; what the user has set stays."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


@contextlib.contextmanager
def local_cluster() -> Iterator[str]:
    """A Ray on this machine for several commands, which find it by the address in their RAY_ADDRESS; to start and stop
    one for each takes ten seconds a command on two cores. It goes when the block ends, and with this process."""
    set_environment()
    _start_patiently(
        address="local", log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR,
        configure_logging=True,
    )  # fmt: skip
    try:
        yield str(ray.get_runtime_context().gcs_address)
    finally:
        ray.shutdown()


def _start_patiently(**settings: Any) -> None:
    """Ray gives its node half a minute to come up, which others at work on the machine may take from it: once more."""
    try:
        ray.init(**settings)
    except Exception as error:
        if "timed out" not in str(error):
            raise
        ray.shutdown()
        ray.init(**settings)


@contextlib.contextmanager
def connected() -> Iterator[None]:
    """Connect to the cluster of `RAY_ADDRESS` (a job's own), or start a local one; it goes when the block ends.

    A cluster that this process is connected to already is used, and left as it is.
    """
    set_environment()
    if ray.is_initialized():
        yield
        return
    own = os.environ.get("RAY_ADDRESS", "local") == "local"
    _start_patiently(
        log_to_driver=False,
        include_dashboard=False if own else None,
        logging_level=logging.ERROR,  # its warnings are about Ray's own settings; failures come as exceptions
        configure_logging=True,
    )
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def ctrl_c_interrupts() -> Iterator[None]:
    """Ctrl-C ends the block with KeyboardInterrupt, once Ray Train has stopped the workers.

    Ray Train's own handler of Ctrl-C leaves the process with exit code 0, and stays in place when training is over.
    """
    if threading.current_thread() is not threading.main_thread():  # there Ray Train sets no handler
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as leaving:
        raise KeyboardInterrupt from leaving
    finally:
        signal.signal(signal.SIGINT, before)


def settle_gpu(gpu: bool | None, workers: int) -> bool:
    """Whether workers take GPUs.

    Raises:
        MachineError: GPUs are asked for and the cluster has too few.
    """
    have = int(ray.cluster_resources().get("GPU", 0))
    if gpu and have < workers:
        raise MachineError(
            f"{workers} workers ask for a GPU each, but the cluster has {have}; "
            "use fewer --workers, add GPU nodes, or leave out --gpu to train on CPUs"
        )
    return have >= workers if gpu is None else gpu


def settle_cpus(cpus: int | None, workers: int) -> int:
    """CPUs of each worker: as asked, else an even share of a node's.

    Raises:
        MachineError: the cluster cannot hold so many workers.
    """
    nodes = [int(node["Resources"].get("CPU", 0)) for node in _nodes()]
    share = cpus or max(1, min((n for n in nodes if n), default=1) // math.ceil(workers / len(nodes)))
    room = sum(n // share for n in nodes)
    if room < workers:
        raise MachineError(
            f"{workers} workers with {share} CPUs each do not fit: the cluster's nodes have {nodes} CPUs; "
            "use fewer --workers or --cpus-per-worker"
        )
    return share


def _nodes() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]
