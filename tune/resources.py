"""What one worker of a trial takes of the cluster."""

from __future__ import annotations

import ray

from lgsrr.errors import ConfigError
from tune.settings import SearchConfig


def settle_cpus(config: SearchConfig) -> int:
    """CPUs, and threads, of each worker: one where nothing is said, because many small runs side by side make more of
    a node than few with many threads."""
    return config.cpus_per_worker or 1


def settle_gpus(config: SearchConfig) -> float:
    """GPUs of each worker.

    Raises:
        ConfigError: GPUs are asked for and the cluster has none.
    """
    have = ray.cluster_resources().get("GPU", 0)
    asked = bool(config.gpu) or config.gpus_per_trial is not None
    if asked and config.gpu is not False and not have:
        flag = "--gpus-per-trial" if config.gpus_per_trial is not None else "--gpu"
        raise ConfigError(
            f"{flag} asks for GPUs, and the cluster has none; leave it out, or say --gpu False, to train on CPUs"
        )
    return 0.0 if config.gpu is False or not have else config.gpus_per_trial or 1.0
