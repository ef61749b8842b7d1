"""A checkpoint's tensors, looked over before anything is allocated: names and shapes, from the files' headers.

A checkpoint that does not fit its config is refused here by the names of the tensors, in under a second, instead of
after minutes of reading. `.bin` shards are opened with `weights_only=True`, mapped and not read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from lgsrr.errors import ModelError

Shapes = dict[str, tuple[int, ...]]

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Names of the weights, in the order of preference; with `.index.json` behind them, of the list of their shards."""
BUFFERS = (".position_ids", ".rotary_emb.inv_freq")
"""Ends of the names of buffers that old versions of transformers saved, and that nobody reads."""


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a checkpoint's tensors; raises ModelError where there are none, or a shard is missing."""
    for name in WEIGHTS:
        index = folder / f"{name}.index.json"
        if index.is_file():
            return _shards(index)
        if (folder / name).is_file():
            return [folder / name]
    raise ModelError(f"{folder} holds no weights; expected {' or '.join(WEIGHTS)}, or the index of their shards")


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise ModelError(f"{index} is not the index of a checkpoint's shards: {error!r}") from error
    if strange := [name for name in names if Path(name).name != name]:
        raise ModelError(f"{index} names the shard {strange[0]!r}; expected a file beside it")
    shards = [index.parent / name for name in names]
    if missing := [shard.name for shard in shards if not shard.is_file()]:
        raise ModelError(f"{index.parent} is incomplete: of {len(shards)} shards, {', '.join(missing)} is missing")
    return shards


def tensor_shapes(files: list[Path]) -> Shapes:
    """Name and shape of every tensor in `files`, without reading one."""
    shapes: Shapes = {}
    for file in files:
        try:
            shapes.update(_shapes_of(file))
        except (SafetensorError, OSError, RuntimeError, ValueError, EOFError) as error:
            raise ModelError(f"{file} cannot be read; it may be truncated: {error}") from error
        except Exception as error:  # torch.load: pickle.UnpicklingError and whatever a crafted file provokes
            raise ModelError(f"{file} is no plain file of weights: {error}") from error
    return {name: shape for name, shape in shapes.items() if not name.endswith(BUFFERS)}


def _shapes_of(file: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    if file.suffix == ".bin":
        for name, tensor in torch.load(file, map_location="cpu", weights_only=True, mmap=True).items():
            yield name, tuple(tensor.shape)
        return
    with safe_open(file, framework="pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118 (safe_open is no dict)
            yield name, tuple(tensors.get_slice(name).get_shape())


def check_tensors(folder: Path, found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Refuses a checkpoint by the names of its missing, unexpected and wrongly shaped tensors, all in one message."""
    wrong = [f"{n} is {found[n]}, expected {expected[n]}" for n in expected if n in found and found[n] != expected[n]]
    problems = {
        "missing": sorted(expected.keys() - found.keys()),
        "unexpected": sorted(found.keys() - expected.keys()),
        "of another shape": wrong,
    }
    told = [f"{len(names)} {kind}: {_some(names)}" for kind, names in problems.items() if names]
    if told:
        raise ModelError(f"the tensors of {folder} do not fit its config. " + "; ".join(told))


def _some(names: list[str], limit: int = 8) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
