"""From rows of a dataset to what the model reads: a `Batch` of packed sequences with labels and rankings.

Shapes: B utterance, K aspect, N sequence (B·(1 + K), utterance by utterance, its text first), T token, D hidden.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lgsrr.encoder import Packed, pack
from lgsrr.features import Features

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Some utterances, ready for the model. `packed` is None where pooled vectors are kept."""

    packed: Packed | None
    pooled_ND: Tensor | None
    labels_B: Tensor
    positions_BK: Tensor | None
    num_slots: int
    """1 + K sequences of each utterance."""

    def to(self, device: torch.device) -> Batch:
        def moved(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device, non_blocking=True)

        return Batch(
            packed=None if self.packed is None else self.packed.to(device),
            pooled_ND=moved(self.pooled_ND),
            labels_B=self.labels_B.to(device, non_blocking=True),
            positions_BK=moved(self.positions_BK),
            num_slots=self.num_slots,
        )


class BatchMaker:
    """Makes batches from features, and from what is kept of frozen layers where anything is.

    Args:
        features: of the dataset.
        hidden_TD: hidden states of all tokens under the trained layers, column by column (`lgsrr.frozen`).
        pooled_ND: pooled vectors of all sequences, column by column, where no layer is trained.
    """

    def __init__(self, features: Features, *, hidden_TD: Floats | None = None, pooled_ND: Floats | None = None) -> None:
        self.features = features
        self.num_slots = 1 + features.num_aspects
        self._columns = features.columns()
        tokens_before = [0, *np.cumsum([len(values) for values, _ in self._columns])]
        self._first_token = [int(n) for n in tokens_before]
        self._hidden_TD, self._pooled_ND = hidden_TD, pooled_ND

    def __call__(self, rows: Rows) -> Batch:
        positions = self.features.positions_UK
        return Batch(
            packed=None if self._pooled_ND is not None else self._pack(rows),
            pooled_ND=None if self._pooled_ND is None else self._pooled(rows),
            labels_B=torch.from_numpy(self.features.labels_U[rows]),
            positions_BK=None if positions is None else torch.from_numpy(positions[rows]),
            num_slots=self.num_slots,
        )

    def sequence(self, row: int, slot: int) -> npt.NDArray[np.int32]:
        """Token ids of one sequence."""
        values, offsets = self._columns[slot]
        return values[offsets[row] : offsets[row + 1]]

    def _pack(self, rows: Rows) -> Packed:
        places = [(int(row), slot) for row in rows for slot in range(self.num_slots)]
        packed = pack([self.sequence(row, slot) for row, slot in places])
        if self._hidden_TD is None:
            return packed
        order = np.argsort(packed.restore_N.numpy())
        parts = [self._kept(*places[i]) for i in order]
        return dataclasses.replace(packed, hidden_TD=torch.from_numpy(np.concatenate(parts)))

    def _kept(self, row: int, slot: int) -> Floats:
        assert self._hidden_TD is not None
        first, offsets = self._first_token[slot], self._columns[slot][1]
        return self._hidden_TD[first + offsets[row] : first + offsets[row + 1]]

    def _pooled(self, rows: Rows) -> Tensor:
        assert self._pooled_ND is not None
        columns = np.arange(self.num_slots) * len(self.features.ids)
        return torch.from_numpy(self._pooled_ND[(rows[:, None] + columns[None, :]).reshape(-1)])
