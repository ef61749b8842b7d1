"""Where a run stands after an epoch, as a folder from which it goes on: weights, moments, and a page of JSON.

trained.safetensors      the trained parameters (frozen ones come from the encoder again)
optimizer.safetensors    AdamW's moments and steps
state.json               epochs done, their figures, the best of them; written last
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lgsrr.errors import ModelError
from lgsrr.files import write_json
from lgsrr.saved_model import trained_state

STATE, TRAINED, OPTIMIZER = "state.json", "trained.safetensors", "optimizer.safetensors"


@dataclasses.dataclass(kw_only=True)
class RunState:
    """Progress of a run; its numbers hold for whole epochs only."""

    fingerprint: str
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)
    """Figures of every epoch done, the first first."""
    best_epoch: int = 0
    """Number of the epoch (from 1) with the best dev macro F1; 0 before the first."""

    @property
    def epochs_done(self) -> int:
        return len(self.history)

    def add(self, figures: dict[str, float]) -> bool:
        """Add an epoch's figures; True where it is the best so far."""
        self.history.append(figures)
        is_best = self.best_epoch == 0 or figures["dev_f1"] > self.history[self.best_epoch - 1]["dev_f1"]
        if is_best:
            self.best_epoch = self.epochs_done
        return is_best

    def out_of_patience(self, patience: int) -> bool:
        """Whether the last `patience` epochs brought nothing better."""
        return self.epochs_done - self.best_epoch >= patience


def save_state(folder: Path, state: RunState, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write the state into an empty folder."""
    save_file(trained_state(model), folder / TRAINED)
    save_optimizer(folder, optimizer)
    write_json(folder / STATE, dataclasses.asdict(state))


def save_optimizer(folder: Path, optimizer: torch.optim.Optimizer) -> None:
    """Write an optimizer's moments, which `load_optimizer` reads."""
    moments = {
        f"{index}.{name}": value.detach().cpu().contiguous()
        for index, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }
    save_file(moments, folder / OPTIMIZER)


def read_state(folder: Path, fingerprint: str) -> RunState:
    """The page of JSON.

    Raises:
        ModelError: it is missing or damaged, or belongs to a run on other data or with other settings.
    """
    path = folder / STATE
    try:
        state = RunState(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"the checkpoint {folder} is damaged ({error}); {_HOW_TO_GO_ON}") from error
    if state.fingerprint != fingerprint:
        raise ModelError(
            f"the checkpoint {folder} belongs to a run with other data or settings "
            f"(fingerprint {state.fingerprint}, expected {fingerprint}); name another --runs or --storage folder"
        )
    return state


def load_trained(folder: Path, model: torch.nn.Module) -> None:
    """Give a model the trained parameters of a checkpoint.

    Raises:
        ModelError: they are missing, truncated or of other shapes.
    """
    weights = _tensors(folder / TRAINED)
    expected = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    shapes = {name: tuple(value.shape) for name, value in weights.items()}
    if shapes != {name: tuple(parameter.shape) for name, parameter in expected.items()}:
        raise ModelError(f"{folder / TRAINED} holds other parameters than this model trains; {_HOW_TO_GO_ON}")
    with torch.no_grad():
        for name, parameter in expected.items():
            parameter.copy_(weights[name])


def load_optimizer(folder: Path, optimizer: torch.optim.Optimizer) -> None:
    """Give an optimizer the moments of a checkpoint.

    Raises:
        ModelError: they are missing or truncated.
    """
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in _tensors(folder / OPTIMIZER).items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    whole: dict[str, Any] = optimizer.state_dict()
    optimizer.load_state_dict({"state": state, "param_groups": whole["param_groups"]})


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} is missing or truncated ({str(error).splitlines()[0]}); {_HOW_TO_GO_ON}") from error


_HOW_TO_GO_ON = "remove the run's folder and give the command again to start it anew"
