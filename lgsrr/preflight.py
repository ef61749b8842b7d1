"""What can be refused before anything starts: data and settings that do not fit each other or the encoder."""

from __future__ import annotations

from lgsrr.config import TrainConfig
from lgsrr.encoder import EncoderConfig
from lgsrr.errors import ConfigError, DataError
from lgsrr.records import SPLITS, Dataset


def check_labels(dataset: Dataset) -> None:
    """Raises DataError where an utterance has no label: training and its evaluation need all of them."""
    for split in SPLITS:
        unknown = [u.id for u in dataset.split(split) if u.label is None]
        if unknown:
            raise DataError(
                f"{len(unknown)} {split} utterances of {dataset.name} have no label (first: {unknown[0]!r} in "
                f"{dataset.source}); training and its evaluation need all of them. To label utterances with a model "
                "that is trained: python -m lgsrr.predict"
            )


def check_batches(config: TrainConfig, dataset: Dataset) -> None:
    """Raises ConfigError where γ is averaged over a batch of which a worker would have no utterance."""
    last = len(dataset.split("train")) % config.batch_size
    if config.inconsistency == "batch" and 0 < last < config.workers:
        raise ConfigError(
            f"inconsistency is 'batch' and the last batch of an epoch has {last} utterances for {config.workers} "
            "workers, but every worker needs one to average γ over the batch; change --batch-size or --workers"
        )


def check_encoder(config: TrainConfig, shape: EncoderConfig) -> None:
    """Raises ConfigError where the encoder has too few layers, or is too short, for what is asked of it."""
    layers, longest = shape.num_hidden_layers, shape.max_position_embeddings
    if config.trainable_layers is not None and config.trainable_layers > layers:
        raise ConfigError(
            f"trainable_layers is {config.trainable_layers}; the encoder {config.encoder} has {layers} layers"
        )
    for name in ("text_length", "description_length"):
        if getattr(config, name) > longest:
            raise ConfigError(
                f"{name} is {getattr(config, name)}; the encoder {config.encoder} reads {longest} word pieces at most"
            )
