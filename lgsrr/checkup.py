"""What the doctor looks at: settings in, findings out, and how another package adds a check of its own.

A check is a function of the settings that yields findings; it is named in the entry points of the group `lgsrr.doctor`
(name = "module:function"), so that programs built on this library are checked without being imported by it. Each is
run in a process of its own (`lgsrr.checkup_run`), so it may import, hang or crash as it likes.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
from collections.abc import Callable, Iterable
from typing import Literal

from lgsrr.errors import ConfigError

Level = Literal["ok", "warning", "fails"]
GROUP = "lgsrr.doctor"
_OURS = {
    "versions": "lgsrr.doctor_checks:versions",
    "storage": "lgsrr.doctor_checks:storages",
    "tracking": "lgsrr.doctor_checks:tracking",
    "ray": "lgsrr.doctor_ray:ray_cluster",
    "encoder": "lgsrr.doctor_checks:encoder",
}
"""The library's own checks, in the order in which they are told; those of the entry points follow."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the report."""

    level: Level
    found: str
    """What is so."""
    do: str = ""
    """What to do about it; empty where it is well."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DoctorConfig:
    """What the commands will be given; each setting has the name that it has there."""

    runs: str = "runs"
    """Folder for results and the local tracking store."""
    out: str | None = None
    """Folder or s3:// prefix that an extraction will write, or that checkpoints go to (--storage)."""
    tracking_uri: str | None = None
    """MLflow server or database; None: $MLFLOW_TRACKING_URI, else sqlite under `runs`."""
    encoder: str = "minilm"
    """Text encoder of training: `minilm`, a name on the hub, or a folder."""

    llm: str = "gpt-3.5-turbo"
    """Language model that discovers and ranks; it is asked for one token."""
    base_url: str | None = None
    """Address of its OpenAI-compatible endpoint; None: OPENAI_BASE_URL, else OpenAI's own."""
    key_file: str | None = None
    """File that holds the key; None: OPENAI_API_KEY."""

    engine: Literal["vllm", "remote", "scripted"] = "vllm"
    """What describes clips."""
    model: str | None = None
    """Video model: a folder, a name on the hub, or the remote server's name; None: the default of extraction, of which
    nothing more than a warning is made."""
    model_url: str | None = None
    """Address of the remote engine's server."""
    dtype: str = "auto"
    """Of the video model's weights: auto, bfloat16, float16, float32."""
    max_model_len: int | None = None
    """Longest prompt and answer of the video model, tokens; None: its own."""
    canary: Literal["on", "off"] = "on"
    """Whether what the video model says must be language; `off` is for random weights."""
    clip: str | None = None
    """A clip of yours, path or s3:// URI, to be decoded and described; None makes one."""

    only: str | None = None
    """Names of the checks to run, separated by commas; None runs all."""
    timeout_s: float = 50.0
    """Within so many seconds all checks have ended, by themselves or not."""
    json: bool = False
    """One JSON object per line, on a terminal too."""

    def __post_init__(self) -> None:
        if self.timeout_s <= 0:
            raise ConfigError(f"timeout_s is {self.timeout_s}; expected seconds above 0")
        if self.engine == "remote" and self.model_url is None:
            raise ConfigError("engine is 'remote' and model_url is not given; expected the address of its server")


Check = Callable[[DoctorConfig], Iterable[Finding]]


def known_checks() -> dict[str, str]:
    """Name → "module:function" of every check that is installed: the library's own, then those of the entry points."""
    contributed = importlib.metadata.entry_points(group=GROUP)
    return _OURS | {entry.name: entry.value for entry in sorted(contributed, key=lambda entry: entry.name)}


def chosen_checks(only: str | None) -> dict[str, str]:
    """The checks to run. Raises ConfigError where a name is none of a check."""
    known = known_checks()
    if only is None:
        return known
    names = [name.strip() for name in only.split(",") if name.strip()]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ConfigError(f"only is {only!r}; expected some of {','.join(known)}")
    return {name: known[name] for name in known if name in names}


def load_check(target: str) -> Check:
    """The function behind "module:function"."""
    module, _, function = target.partition(":")
    check: Check = getattr(importlib.import_module(module), function)
    return check
