"""Stops a run whose loss or answers are not finite, naming the step and the utterances.

Looking at a loss makes a GPU wait, so losses are looked at a few steps late, together, by all workers at once: each
worker learns of it in the same step, and none is left waiting in a reduction.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from lgsrr.batch import Rows
from lgsrr.errors import TrainingError
from lgsrr.inference import Answers
from lgsrr.records import Split

CHECK_EVERY = 10
NAMED_AT_MOST = 5


class LossGuard:
    """Remembers the losses since the last look.

    Args:
        ids: of the dataset's utterances, by row.
    """

    def __init__(self, ids: Sequence[str]) -> None:
        self._ids = ids
        self._waiting: list[tuple[int, int, Rows, Tensor]] = []

    def add(self, epoch: int, step: int, rows: Rows, loss_B: Tensor) -> None:
        """Remember the losses of this worker's utterances in a step; every tenth call looks at them.

        Raises:
            TrainingError: on every worker, where a loss of any worker was not finite.
        """
        self._waiting.append((epoch, step, rows, loss_B.detach()))
        if len(self._waiting) >= CHECK_EVERY:
            self.check()

    def check(self) -> None:
        """Look at all that was added; raises as `add` does."""
        if not self._waiting:
            return
        bad = torch.stack([(~torch.isfinite(loss_B)).any() for _, _, _, loss_B in self._waiting]).float()
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(bad, op=dist.ReduceOp.MAX)
        if bad.any():
            self._stop(int(bad.argmax()))
        self._waiting.clear()

    def _stop(self, first: int) -> None:
        epoch, step, rows, loss_B = self._waiting[first]
        broken = (~torch.isfinite(loss_B)).cpu().numpy()
        names = _from_all_workers([self._ids[row] for row in rows[broken]])
        raise TrainingError(
            f"the loss is not finite in step {step} of epoch {epoch}, in {_named(names)}; {_WHAT_TO_TRY}; "
            "the last whole epoch is kept, and another command starts another run"
        )


def check_answers(ids: Sequence[str], answers: Answers, split: Split, epoch: int) -> None:
    """Stop where a model's last step of an epoch broke it, which no loss shows any more.

    Args:
        ids: of the dataset's utterances, by row.
        answers: to all of a split, the same on every worker.

    Raises:
        TrainingError: on every worker, where a logit is not finite.
    """
    broken = ~np.isfinite(answers.logits_BC).all(axis=1)
    if broken.any():
        names = [ids[row] for row in answers.rows[broken]]
        raise TrainingError(
            f"after the last step of epoch {epoch} the answers are not finite in {_named(names)} of {split}; "
            f"{_WHAT_TO_TRY}"
        )


_WHAT_TO_TRY = "try a smaller --lr or --head-lr, a larger --tau, or --max-grad-norm 1"


def _named(names: Sequence[str]) -> str:
    names = list(dict.fromkeys(names))  # a worker without a share computes an utterance of another once more
    more = ", ..." if len(names) > NAMED_AT_MOST else ""
    return f"{len(names)} utterances: {', '.join(names[:NAMED_AT_MOST])}{more}"


def _from_all_workers(names: list[str]) -> list[str]:
    if not (dist.is_available() and dist.is_initialized()):
        return names
    gathered: list[list[str] | None] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, names)
    return [name for part in gathered for name in part or []]
