"""What lies under the trained layers, computed once per dataset and kept as a memory map, not once per step.

With N trained layers the hidden states of every token at their input are kept (4·D bytes a token: 1.6 GB for MIntRec2.0
and MiniLM); with none, only the pooled vector of every sequence (57 MB). All processes of one node share the pages.

Shapes: T token and N sequence of the whole dataset (column by column: all texts, then all first descriptions, ...),
D hidden.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch

from lgsrr.batch import BatchMaker, Floats
from lgsrr.encoder import PackedBert, Pooling, pack, packing_order
from lgsrr.features import Features, cache_folder
from lgsrr.files import atomic_path, locked
from lgsrr.pretrained import encoder_folder, load_encoder

TOKENS_PER_PASS = 8192


def kept_batches(
    features: Features, encoder: PackedBert, weights_digest: str, cache: Path, num_aspects: int | None = None
) -> BatchMaker:
    """A `BatchMaker` that reads the frozen part from the cache; the first caller on a node computes it, others wait.

    Args:
        features: all that is kept together; models of fewer aspects share it.
        encoder: with its weights loaded; where it has no frozen part, batches hold tokens.
        weights_digest: of the encoder's weights (`digest_of_weights`).
        cache: folder of this node.
        num_aspects: how many of the features' aspects a batch holds; None is all of them.
    """
    used = features if num_aspects is None else features.first_aspects(num_aspects)
    if not encoder.has_frozen:
        return BatchMaker(used)
    pooled = encoder.num_frozen_layers == encoder.config.num_hidden_layers
    kind = f"pooled-{encoder.pooling}" if pooled else f"under-{encoder.num_frozen_layers}"
    key = hashlib.sha256(f"{features.key} {weights_digest} {kind}".encode()).hexdigest()
    path = cache / "frozen" / f"{key}.npy"
    if not path.is_file():
        with locked(path):
            if not path.is_file():
                _compute(path, features, encoder, pooled)
    kept: Floats = np.load(path, mmap_mode="r")
    return BatchMaker(used, pooled_ND=kept) if pooled else BatchMaker(used, hidden_TD=kept)


def keep_frozen(features: Features, encoder: str, pooling: Pooling, trainable_layers: int | None, threads: int) -> None:
    """Compute what lies under the trained layers on this node, where it is not there yet and where there is any.

    Args:
        encoder: its name or folder, as in the settings of a run.
        threads: of this process, for the computation.
    """
    from lgsrr.memory import bound_caches

    torch.set_num_threads(threads)
    bound_caches()
    folder = encoder_folder(encoder)
    loaded = load_encoder(folder, pooling, trainable_layers, dropout=0.0)
    if loaded.has_frozen:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        kept_batches(features, loaded.to(device), digest_of_weights(folder), cache_folder())


def digest_of_weights(folder: Path) -> str:
    """SHA-256 (hex) of the safetensors files of an encoder."""
    hasher = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as stream:
            hasher.update(hashlib.file_digest(stream, "sha256").digest())
    return hasher.hexdigest()


@torch.no_grad()
def _compute(path: Path, features: Features, encoder: PackedBert, pooled: bool) -> None:
    maker = BatchMaker(features)
    places = [(row, slot) for slot in range(maker.num_slots) for row in range(len(features.ids))]
    lengths = np.array([len(maker.sequence(*place)) for place in places])
    starts = np.concatenate([[0], np.cumsum(lengths)])
    device = next(encoder.parameters()).device
    was_training = encoder.training
    encoder.eval()
    shape = (len(places) if pooled else int(starts[-1]), encoder.config.hidden_size)
    with atomic_path(path) as temporary:
        with temporary.open("wb") as stream:  # open_memmap would add .npy to the name of a path without it
            np.lib.format.write_array_header_1_0(stream, _header(shape))
            offset = stream.tell()
            stream.truncate(offset + int(np.prod(shape)) * 4)
        kept = np.memmap(temporary, dtype=np.float32, mode="r+", offset=offset, shape=shape)
        for chosen in _passes(lengths):
            packed = pack([maker.sequence(*places[i]) for i in chosen]).to(device)
            hidden_TD = encoder.lower(packed)
            if pooled:
                kept[chosen] = encoder.upper(hidden_TD, packed.groups)[packed.restore_N].float().cpu().numpy()
                continue
            parts = hidden_TD.float().cpu().numpy()
            first = 0
            for i in chosen:  # shortest first, as they were packed
                kept[starts[i] : starts[i] + lengths[i]] = parts[first : first + lengths[i]]
                first += lengths[i]
        kept.flush()
    encoder.train(was_training)


def _header(shape: tuple[int, int]) -> dict[str, object]:
    return {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float32)), "fortran_order": False, "shape": shape}


def _passes(lengths: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Indices of sequences, the shortest first, cut into passes of about `TOKENS_PER_PASS` tokens."""
    order, _ = packing_order(lengths.tolist())
    cuts = np.cumsum(lengths[order]) // TOKENS_PER_PASS
    return np.split(order, np.flatnonzero(np.diff(cuts)) + 1)
