"""What a model's folder tells a server of models: the columns it takes and gives, and an example of a request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lgsrr.files import write_json
from lgsrr.predictions import TEXT, flat_columns
from lgsrr.saved_model import ModelCard

SIGNATURE, EXAMPLE = "signature.json", "input_example.json"


def write_signature(folder: Path, card: ModelCard) -> None:
    """Write `signature.json` (MLflow's form) and `input_example.json` beside the weights."""
    write_json(folder / SIGNATURE, signature(card))
    write_json(folder / EXAMPLE, [input_example(card)])


def signature(card: ModelCard) -> dict[str, list[dict[str, Any]]]:
    """Columns in and out, by name and type; `id` may be left out."""
    inputs = [{"name": name, "type": "string", "required": True} for name in (TEXT, *card.aspects)]
    outputs = [{"name": name, "type": kind, "required": True} for name, kind in flat_columns(card).items()]
    return {"inputs": [{"name": "id", "type": "string", "required": False}, *inputs], "outputs": outputs}


def input_example(card: ModelCard) -> dict[str, str]:
    """One made-up utterance."""
    described = {aspect: f"What is seen of the speaker under {aspect!r}." for aspect in card.aspects}
    return {"id": "1", TEXT: "Nice job.", **described}
