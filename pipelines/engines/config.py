"""The settings of an engine: everything that an actor needs to make one."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from lgsrr.errors import ConfigError

EngineName = Literal["vllm", "transformers", "remote", "scripted"]
Send = Literal["frames", "video"]
Fault = Literal["malformed", "malformed once", "empty", "shuffled", "refuse", "raise", "die", "exit", "hang"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scripted:
    """How the scripted engine behaves."""

    seconds_per_clip: float = 0.0
    """Time that a clip takes, seconds; `lanes` clips at once."""
    lanes: int = 1
    """Clips that are described at the same time."""
    faults: Mapping[str, Fault] = dataclasses.field(default_factory=dict)
    """Part of a clip's name or of an utterance's id → what goes wrong with it."""
    exit_after: int | None = None
    """The process ends (os._exit) when so many clips have been described; None: never."""

    def __post_init__(self) -> None:
        if unknown := set(self.faults.values()) - set(get_args(Fault)):
            raise ConfigError(f"faults name {sorted(unknown)}; expected some of {', '.join(get_args(Fault))}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """One engine."""

    engine: EngineName = "vllm"
    """`vllm` or `transformers` in this process's actor, `remote` (an OpenAI-compatible server that takes frames),
    `scripted`."""
    model: str = "DAMO-NLP-SG/VideoLLaMA2-7B-16F"
    """Folder or name on the hub; for `remote` the server's name of it."""
    revision: str | None = None
    """Revision on the hub (a commit, best); None: the newest. A folder's revision is made from its files."""
    frames: int = 16
    """Frames of a clip that the model looks at."""
    max_side: int | None = None
    """Longest side of the frames, pixels; None leaves them as they are."""
    max_new_tokens: int = 512
    """Longest answer, tokens."""
    temperature: float = 0.0
    """0 says the same to the same question."""
    max_model_len: int | None = None
    """Longest prompt and answer together, tokens; None: the model's."""
    tensor_parallel: int = 1
    """GPUs that hold one engine together."""
    dtype: str = "auto"
    """Of weights and activations: auto, bfloat16, float16, float32."""
    batch: int = 16
    """Transformers only: prompts that go through the model together."""
    threads: int | None = None
    """Transformers on a CPU only: threads of the model; None takes every CPU that the process may use."""
    canary: Literal["on", "off"] = "on"
    """Whether the model describes a small clip before it serves; `off` is for random weights."""
    base_url: str | None = None
    """Address of the remote server; what calls it is given to the engine, this is for its record."""
    send: Send = "frames"
    """Remote only: `frames` as JPEG pictures (any server), or one `video` of JPEG frames with their times (vLLM)."""
    vllm: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Further settings of vLLM by its own names: max_num_seqs, gpu_memory_utilization, enforce_eager, …"""
    scripted: Scripted = Scripted()
    """How the scripted engine behaves."""

    def __post_init__(self) -> None:
        for name, expected in (("engine", EngineName), ("send", Send)):
            if getattr(self, name) not in get_args(expected):
                raise ConfigError(
                    f"{name} is {getattr(self, name)!r}; expected one of {', '.join(get_args(expected))}."
                )
        if self.canary not in ("on", "off"):
            raise ConfigError(f"canary is {self.canary!r}; expected on or off.")
        for name in ("frames", "max_new_tokens", "tensor_parallel", "batch", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}; expected 1 or more.")
        if self.temperature < 0:
            raise ConfigError(f"temperature is {self.temperature}; expected 0 or more.")
        if self.max_side is not None and self.max_side < 16:
            raise ConfigError(f"max_side is {self.max_side}; expected 16 pixels or more.")


def revision_of(config: EngineConfig) -> str | None:
    """What is known of the weights' revision before they are loaded.

    A folder's is a hash over its files' names and sizes and its JSON files' content: 14 GB of weights are not read for
    a name, at the price that other weights of the same size, under the same config, are taken for the same.
    """
    folder = Path(config.model)
    if config.engine == "remote" or not folder.is_dir():
        return config.revision
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")):
        digest.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\n".encode())
        if path.suffix == ".json":
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
