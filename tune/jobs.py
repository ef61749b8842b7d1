"""From a trial and a seed to a job for the workers; data that trials share are made once and put once.

Tokens are made for all aspects together: a trial with fewer reads the beginning of them, and so does what is kept of
frozen layers (`lgsrr.frozen`). The object store holds one copy per node, which all trials there map.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lgsrr.config import TrainConfig
from lgsrr.features import Lengths, cache_folder, check_ranked, featurise
from lgsrr.preflight import check_batches, check_encoder
from lgsrr.pretrained import encoder_config, encoder_folder
from lgsrr.records import Dataset
from lgsrr.train import model_card
from lgsrr.worker import Job
from tune.records import Trial
from tune.space import apply
from tune.trial import Notices

Key = tuple[Path, Lengths]


class Jobs:
    """Makes jobs for one dataset. Needs a connection to Ray."""

    def __init__(self, dataset: Dataset, base: TrainConfig, cpus: int) -> None:
        self._dataset, self._base, self._cpus = dataset, base, cpus
        self._features: dict[Key, Any] = {}

    def make(self, trial: Trial, seed: int, *, test: bool = False) -> Job:
        """The job of one seed.

        Raises:
            LgsrrError: the trial's settings do not fit the data or the encoder.
        """
        config = self.config(trial, seed)
        encoder = encoder_folder(config.encoder)
        check_encoder(config, encoder_config(encoder))
        check_batches(config, self._dataset)
        return Job(
            config=dataclasses.replace(config, cpus_per_worker=self._cpus),
            card=model_card(config, self._dataset, encoder),
            fingerprint=config.fingerprint(self._dataset.digest),
            features=self._shared(encoder, config),
            board=Notices(),
            test=test,
        )

    def config(self, trial: Trial, seed: int) -> TrainConfig:
        """The settings of one seed of a trial."""
        return dataclasses.replace(apply(trial.settings, self._base), seed=seed)

    def prepare_nodes(self, trials: Sequence[Trial], gpus: float) -> None:
        """Have every node that may run trials compute, with all it has, what all of them read of frozen layers.

        A node that joins later has it computed by its first trial, while the others on it wait.
        """
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        from lgsrr.frozen import keep_frozen

        asked = {}
        for trial in trials:
            config = self.config(trial, self._base.seed)
            if config.trainable_layers is not None:
                features = self._shared(encoder_folder(config.encoder), config)
                key = (config.encoder, config.pooling, config.trainable_layers, features)
                asked[key] = features
        nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU" if gpus else "CPU", 0)]
        tasks = []
        for node in nodes:
            cpus = int(node["Resources"].get("CPU", 1))
            here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=True)
            task = ray.remote(keep_frozen).options(
                num_cpus=self._cpus, num_gpus=1 if gpus else 0, scheduling_strategy=here, max_retries=3
            )
            tasks += [
                task.remote(features, e, pooling, layers, cpus) for (e, pooling, layers, _), features in asked.items()
            ]
        ray.get(tasks)

    def _shared(self, encoder: Path, config: TrainConfig) -> Any:
        import ray

        lengths = Lengths(text=config.text_length, description=config.description_length)
        key = (encoder, lengths)
        if key not in self._features:
            count = len(self._dataset.aspects)
            features = featurise(
                self._dataset, encoder=encoder, lengths=lengths, num_aspects=count, cache=cache_folder()
            )
            if features.positions_UK is not None and self._base.rank_weight > 0:
                check_ranked(self._dataset, features.positions_UK)
            self._features[key] = ray.put(features)
        return self._features[key]
