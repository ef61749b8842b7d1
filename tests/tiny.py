"""A BERT of a few thousand weights and settings to match, so that a whole training run takes seconds.

The encoder is a real one (transformers' layout, safetensors, a WordPiece tokenizer over the words of the bundled
sample); only its weights are drawn instead of learned. Everything else in a run of it is what a user runs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from lgsrr.catalog import load_dataset
from lgsrr.config import TrainConfig, recipe
from lgsrr.records import Dataset

ROOT = Path(__file__).resolve().parent.parent
LAYERS = 2
LIMIT = 25
"""Utterances of each split: three batches of eight, and one of a single utterance."""


def write_tiny_bert(folder: Path, *, layers: int = LAYERS, seed: int = 0) -> Path:
    """Write a BERT, 32 wide, with a tokenizer that knows the words of the sample; returns the folder."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    vocabulary = _vocabulary()
    tokenizer = BertTokenizer(vocab={word: index for index, word in enumerate(vocabulary)})
    tokenizer.save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        shape = BertConfig(
            vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=layers, num_attention_heads=4,
            intermediate_size=64, max_position_embeddings=64, initializer_range=0.2,
        )  # fmt: skip
        BertModel(shape).save_pretrained(folder)
    return folder


def _vocabulary() -> list[str]:
    sample = sample_data()
    texts = [text.lower() for u in sample.utterances for text in (u.text, *u.descriptions)]
    words = sorted({word for text in texts for word in re.findall(r"\w+", text)})
    letters = sorted({letter for text in texts for letter in text if not letter.isspace()})
    pieces = [*letters, *(f"##{letter}" for letter in letters)]
    return ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys([*pieces, *words])]


def sample_data(limit: int | None = None) -> Dataset:
    """The bundled dataset."""
    return load_dataset("sample", None).head(limit)


def tiny_config(encoder: Path, runs: Path, **changes: Any) -> TrainConfig:
    """Settings of a run of seconds on the bundled sample."""
    tiny = TrainConfig(
        dataset="sample", limit=LIMIT, encoder=str(encoder), text_length=12, description_length=16,
        importance_hidden=16, batch_size=8, epochs=2, lr=3e-3, cpus_per_worker=1, max_failures=1, runs=str(runs),
    )  # fmt: skip
    return dataclasses.replace(tiny, **changes)


def without_dropout(config: TrainConfig) -> TrainConfig:
    """The same run, with nothing random in a step."""
    return dataclasses.replace(config, dropout=0.0, encoder_dropout=0.0)


def numbers(history: list[dict[str, float]]) -> list[dict[str, float]]:
    """The figures of a run's epochs without those that tell the time."""
    clocks = {"seconds", "time_ms", "utterances_per_second"}
    return [{name: value for name, value in figures.items() if name not in clocks} for figures in history]


def result(folder: Path) -> dict[str, Any]:
    """What a finished run's folder says of itself."""
    found: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return found


def epochs_kept(runs: Path) -> int:
    """The last epoch that Ray Train has a checkpoint of: one whose upload is over, and known."""
    for path in (runs / "checkpoints").glob("*/checkpoint_manager_snapshot.json"):
        with contextlib.suppress(ValueError):  # it is being written
            results = json.loads(path.read_text(encoding="utf-8"))["checkpoint_results"]
            return max((int(result["metrics"].get("epoch", 0)) for result in results), default=0)
    return 0


def flags(config: TrainConfig, default: TrainConfig | None = None) -> list[str]:
    """The command line that gives `config`: a flag for each setting that is not `default`'s (None: the recipe's)."""
    default = default or recipe(config.dataset, config.encoder)
    names = [f.name for f in dataclasses.fields(config)]
    changed = [name for name in names if getattr(config, name) != getattr(default, name)]
    pairs = [(f"--{name.replace('_', '-')}", str(getattr(config, name))) for name in changed]
    return ["--dataset", config.dataset, "--encoder", config.encoder, *(part for pair in pairs for part in pair)]


def command(module: str, *arguments: str, cwd: Path, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    """Run `python -m lgsrr.<module>` in a folder to its end, with no terminal."""
    line = [sys.executable, "-m", f"lgsrr.{module}", *arguments]
    return subprocess.run(line, cwd=cwd, timeout=timeout_s, text=True, capture_output=True, stdin=subprocess.DEVNULL)


def unboxed(text: str) -> str:
    """What a message says, without the box around it and the breaks in it."""
    return " ".join(text.translate(dict.fromkeys(map(ord, "│╭╮╰╯─"), " ")).split())
