"""The settings of one training run, and the recipes that hold a complete set of them for each dataset.

One flat dataclass: the command line, the search space and the tracking server name a setting by the same word. What
changes the numbers of a run is in `fingerprint`; how and where it runs (workers, folders) is not.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable
from typing import Any

from lgsrr import __version__
from lgsrr.encoder import Pooling
from lgsrr.errors import ConfigError
from lgsrr.model import RELATIONS, Inconsistency, Relation

_WHERE_IT_RUNS = frozenset(
    {"data", "workers", "gpu", "cpus_per_worker", "runs", "storage", "again", "max_failures", "experiment"}
)
_CAME_LATER = {"relations": "all"}
"""Settings that runs did not have at first, with the value that such runs had: their fingerprint stays, and so what is
finished or half done is found again."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    dataset: str
    """`mintrec2`, `iemocap_da`, `sample` (bundled), or a name of your own."""
    data: str | None = None
    """Folder of released tables, folder or s3:// prefix of extracted data, or your own CSV, TSV, JSONL, Parquet."""
    limit: int | None = None
    """Take the first so many utterances of each split."""

    encoder: str = "minilm"
    """`minilm`, `bert-base-uncased`, `bert-large-uncased` (the paper's), or a folder with a BERT."""
    trainable_layers: int | None = None
    """Train the last so many layers only, and keep what lies under them; None trains everything."""
    pooling: Pooling = "mean"
    """One vector per sequence: its first token, or the mean over its tokens."""
    text_length: int = 50
    """Word pieces kept of an utterance's text."""
    description_length: int = 50
    """Word pieces kept of a description."""
    encoder_dropout: float = 0.1
    """Dropout in the trained layers of the encoder, probability."""

    k: int | None = None
    """How many aspects are used, in the data's order; 0 is text alone, None is all."""
    inconsistency: Inconsistency = "utterance"
    """γ per utterance (the paper's eq. 14), or averaged over the batch as the released code does."""
    relations: Relation = "all"
    """The method, or an ablation of it (formulas: lgsrr/model.py); λ has no effect where importance is not learned."""
    importance_hidden: int = 768
    """Width of the importance network."""
    dropout: float = 0.4
    """Dropout in the importance network, probability."""

    rank_weight: float = 1.0
    """λ, weight of the ranking loss."""
    tau: float = 1.0
    """τ, temperature of NeuralSort in the ranking loss."""
    lr: float = 1e-4
    """Peak learning rate."""
    head_lr: float | None = None
    """Peak learning rate of the new layers (importance and classifier); None takes `lr`."""
    weight_decay: float = 0.05
    """AdamW's, on everything but biases and LayerNorm."""
    warmup: float = 0.1
    """Share of all steps over which the learning rate rises from 0; then it falls to 0 in a line."""
    bias_correction: bool = False
    """AdamW's; the paper's released code runs without, which makes early steps longer."""
    max_grad_norm: float = 1.0
    """Gradients longer than this are scaled down to it; 0 leaves them."""
    batch_size: int = 32
    """Utterances per step, over all workers together."""
    epochs: int = 5
    """Epochs at most; also the length of the learning rate's schedule."""
    patience: int = 5
    """Stop after so many epochs without a better dev macro F1."""
    seed: int = 0
    """Of new weights, order and dropout."""

    workers: int = 1
    """DDP workers (Ray actors)."""
    gpu: bool | None = None
    """One GPU per worker; None takes GPUs where the cluster has any."""
    cpus_per_worker: int | None = None
    """CPUs, and threads, of a worker; None shares a node's out evenly."""
    max_failures: int = 3
    """How often workers may die (node preempted, out of memory) before the run gives up."""
    runs: str = "runs"
    """Folder for results, the local tracking store and what could not be sent to a tracking server yet."""
    storage: str | None = None
    """Where checkpoints go: a shared folder or s3:// prefix where workers are on several nodes; None: under `runs`."""
    experiment: str | None = None
    """MLflow experiment; None is lgsrr-<dataset>."""
    again: bool = False
    """Train once more where the very same run is finished already."""

    def __post_init__(self) -> None:
        self._check("limit", "1 or more", lambda v: v is None or v >= 1)
        self._check("trainable_layers", "0 or more", lambda v: v is None or v >= 0)
        self._check("relations", f"one of {', '.join(RELATIONS)}", lambda v: v in RELATIONS)
        self._check("k", "0 (text alone) or more", lambda v: v is None or v >= 0)
        self._check("head_lr", "above 0", lambda v: v is None or 0 < v < math.inf)
        self._check("cpus_per_worker", "1 or more", lambda v: v is None or v >= 1)
        for name in ("tau", "lr"):
            self._check(name, "above 0", lambda v: 0 < v < math.inf)
        for name in ("rank_weight", "weight_decay", "max_grad_norm"):
            self._check(name, "0 or more", lambda v: 0 <= v < math.inf)
        for name in ("dropout", "encoder_dropout", "warmup"):
            self._check(name, "at least 0 and under 1", lambda v: 0 <= v < 1)
        for name in ("batch_size", "epochs", "patience", "workers", "importance_hidden"):
            self._check(name, "1 or more", lambda v: v >= 1)
        for name in ("text_length", "description_length"):
            self._check(name, "3 or more: [CLS], one word piece, [SEP]", lambda v: v >= 3)
        for name in ("seed", "max_failures"):
            self._check(name, "0 or more", lambda v: v >= 0)
        self._check("batch_size", f"at least the number of workers ({self.workers})", lambda v: v >= self.workers)

    def _check(self, name: str, expected: str, holds: Callable[[Any], bool]) -> None:
        value = getattr(self, name)
        if not holds(value):
            raise ConfigError(f"{name} is {value!r}; expected {expected}")

    def numbers(self) -> dict[str, Any]:
        """The settings that change the numbers of a run, by name."""
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in _WHERE_IT_RUNS}

    def fingerprint(self, data_digest: str) -> str:
        """Hash (12 hex digits) of what changes the numbers: settings, data, and this version of the program."""
        settings = {k: v for k, v in self.numbers().items() if k not in _CAME_LATER or v != _CAME_LATER[k]}
        parts = {"settings": settings, "data": data_digest, "version": __version__}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def mintrec2(encoder: str = "minilm") -> TrainConfig:
    """MIntRec2.0: the paper's settings for a BERT; for MiniLM a learning rate and pooling that fit it.

    Gradients are not clipped, as in the released code.
    """
    lengths = TrainConfig(dataset="mintrec2", encoder=encoder, text_length=30, description_length=50, max_grad_norm=0.0)
    if encoder == "minilm":
        return lengths
    return dataclasses.replace(lengths, lr=6e-6, weight_decay=0.05, pooling="cls", epochs=100)


def iemocap_da(encoder: str = "minilm") -> TrainConfig:
    """IEMOCAP-DA: the paper's settings for a BERT, but for its clipping of single gradient values at 0.4."""
    lengths = TrainConfig(dataset="iemocap_da", encoder=encoder, text_length=70, description_length=50)
    if encoder == "minilm":
        return lengths
    return dataclasses.replace(lengths, lr=1e-5, weight_decay=0.1, warmup=0.05, epochs=100)


def sample(encoder: str = "minilm") -> TrainConfig:
    """The bundled table: small enough for a minute on a laptop."""
    return TrainConfig(dataset="sample", encoder=encoder, epochs=8, lr=2e-4, head_lr=1e-3, batch_size=16)


def recipe(dataset: str, encoder: str = "minilm") -> TrainConfig:
    """The settings from which a run on `dataset` starts; for your own data, those of MIntRec2.0 with longer texts."""
    recipes = {"mintrec2": mintrec2, "iemocap_da": iemocap_da, "sample": sample}
    if dataset in recipes:
        return recipes[dataset](encoder)
    return dataclasses.replace(mintrec2(encoder), dataset=dataset, text_length=70)
