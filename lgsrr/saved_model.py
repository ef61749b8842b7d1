"""A trained model as a folder: all that prediction needs, and nothing that runs code when it is loaded.

    model.safetensors      weights of encoder and relations
    model.json             shapes, labels, aspects, lengths, the run's settings and scores; written last
    tokenizer/             the encoder's tokenizer

The folder does not need the encoder it was trained from, nor the data.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lgsrr.encoder import EncoderConfig, PackedBert, Pooling
from lgsrr.errors import ModelError
from lgsrr.features import Lengths
from lgsrr.files import atomic_path, write_json
from lgsrr.model import LGSRR, RELATIONS, Inconsistency, Relation, SemanticRelations
from lgsrr.pretrained import TOKENIZER_FILES
from lgsrr.records import Aspect, DescribedBy

FORMAT = 1
DESCRIPTION = "model.json"
WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What `model.json` holds."""

    dataset: str
    data: str
    """Where the records lay that it was trained on."""
    data_digest: str
    """SHA-256 of the records it was trained on."""
    labels: tuple[str, ...]
    aspects: tuple[str, ...]
    """Names of the K aspects used, in the order of the descriptions."""
    lengths: Lengths
    encoder: EncoderConfig
    pooling: Pooling
    importance_hidden: int
    inconsistency: Inconsistency
    relations: Relation = "all"
    """A model that does not say it was saved before there was a choice."""
    batch_size: int
    """Of training; decides the answers where inconsistency is "batch"."""
    settings: dict[str, Any]
    """The run's `TrainConfig.numbers()`."""
    scores: dict[str, float]
    """Of the best epoch on dev and of the test split, by name."""
    described_by: DescribedBy | None = None
    """Who described the clips that it was trained on; None where it is not known."""
    format: int = FORMAT


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SavedModel:
    """A model that was loaded, in evaluation mode, with the folder it came from."""

    folder: Path
    card: ModelCard
    model: LGSRR

    @property
    def tokenizer_folder(self) -> Path:
        return self.folder / TOKENIZER


def new_model(card: ModelCard, encoder: PackedBert) -> LGSRR:
    """The classifier that a card describes, on an encoder; the weights of its relations are new."""
    relations = SemanticRelations(
        hidden_size=card.encoder.hidden_size,
        num_classes=len(card.labels),
        importance_hidden=card.importance_hidden,
        dropout=float(card.settings.get("dropout", 0.4)),
        inconsistency=card.inconsistency,
        relations=card.relations,
    )
    return LGSRR(encoder, relations)


def save_model(folder: Path, card: ModelCard, model: LGSRR, tokenizer_folder: Path) -> None:
    """Write a model's folder, whole or not at all."""
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        (temporary / TOKENIZER).mkdir()
        for name in TOKENIZER_FILES:
            if (tokenizer_folder / name).is_file():
                shutil.copyfile(tokenizer_folder / name, temporary / TOKENIZER / name)
        weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
        save_file(weights, temporary / WEIGHTS)
        write_json(temporary / DESCRIPTION, dataclasses.asdict(card))


def read_card(folder: Path) -> ModelCard:
    """What a model's folder says of itself.

    Raises:
        ModelError: no folder, no model in it, or one of another format.
    """
    path = folder / DESCRIPTION
    if not path.is_file():
        raise ModelError(
            f"no model in {folder}: {DESCRIPTION} is missing; expected what lgsrr.train wrote, runs/train/<name>/model"
        )
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw.get("format") != FORMAT:
            raise ModelError(f"{path} has format {raw.get('format')!r}; this version of lgsrr reads {FORMAT}")
        if raw.get("relations", "all") not in RELATIONS:
            known = ", ".join(RELATIONS)
            raise ModelError(f"{path} has relations {raw['relations']!r}; this version of lgsrr knows {known}")
        raw["lengths"], raw["encoder"] = Lengths(**raw["lengths"]), EncoderConfig(**raw["encoder"])
        raw["labels"], raw["aspects"] = tuple(raw["labels"]), tuple(raw["aspects"])
        if described := raw.get("described_by"):
            asked = tuple(Aspect(**aspect) for aspect in described["aspects"])
            raw["described_by"] = DescribedBy(**{**described, "aspects": asked})
        return ModelCard(**raw)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{path} is damaged ({error}); copy the model again, or train it again") from error


def load_model(folder: Path) -> SavedModel:
    """Load a model's folder for prediction, on the CPU.

    Raises:
        ModelError: the folder is missing, truncated or damaged.
    """
    card = read_card(folder)
    model = new_model(card, PackedBert(card.encoder, card.pooling))
    path = folder / WEIGHTS
    try:
        model.load_state_dict(load_file(path))
    except FileNotFoundError as error:
        raise ModelError(f"{path} is missing; copy the model again, or train it again") from error
    except (SafetensorError, RuntimeError) as error:
        raise ModelError(
            f"{path} is truncated or damaged ({str(error).splitlines()[0]}); copy the model again, or train it again"
        ) from error
    return SavedModel(folder=folder, card=card, model=model.eval())


def trained_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The parameters that are trained, on the CPU, by name."""
    return {n: p.detach().cpu().contiguous().clone() for n, p in model.named_parameters() if p.requires_grad}
