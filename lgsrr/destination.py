"""Where runs are recorded, and how a person looks at them there.

A destination is a tracking URI in full: an MLflow server, or an sqlite file whose artifacts lie beside it. Here is what
can be said of it without mlflow, so that any command can afford it: names, links, and the settings under which it is
reached. A password in a URI never leaves through a message or a file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from lgsrr.errors import ConfigError
from lgsrr.sender import RunRef
from lgsrr.spool import locked

REQUEST_TIMEOUT_S = 10
UPLOAD_TIMEOUT_S = 300
"""A server answers a file only after it has stored it, which for a large model takes longer than any other answer."""

_TRAINING = "workflowType=machine_learning"
"""Has MLflow's UI show pages for training; without it a browser that never chose gets those for LLM applications."""
_SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """Where runs are recorded."""

    uri: str | None = None
    """Tracking server (http://host:5000) or database (sqlite:///file); default: $MLFLOW_TRACKING_URI, and where that is
    not set sqlite:///RUNS/mlflow.db with the artifacts under RUNS/artifacts."""
    experiment: str | None = None
    """Name of the MLflow experiment; default: lgsrr-DATASET."""

    def __post_init__(self) -> None:
        if self.uri is not None:
            _check_uri(self.uri, "tracking uri")
        if self.experiment is not None and not self.experiment.strip():
            raise ConfigError("the experiment's name is empty; expected a name such as lgsrr-mintrec2, or none at all")

    def destination(self, runs_dir: Path) -> str:
        """The tracking URI in full, the same from whatever folder it is asked."""
        uri = self.uri or os.environ.get("MLFLOW_TRACKING_URI")
        if not uri:
            return f"sqlite:///{runs_dir.resolve() / 'mlflow.db'}"
        _check_uri(uri, "tracking uri" if self.uri else "$MLFLOW_TRACKING_URI")
        path = sqlite_path(uri)
        return uri.rstrip("/") if path is None else f"sqlite:///{path.resolve()}"


def _check_uri(uri: str, what: str) -> None:
    scheme = urllib.parse.urlsplit(uri).scheme.partition("+")[0]
    if scheme not in _SCHEMES or "://" not in uri:
        raise ConfigError(
            f"{what} is {without_password(uri)!r}; expected http://HOST:PORT of an MLflow server or sqlite:///FILE "
            "(MLflow 3 keeps no runs in plain folders)"
        )


def sqlite_path(uri: str) -> Path | None:
    """The file of an sqlite URI; None for any other URI."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def without_password(uri: str) -> str:
    """The URI without user and password, fit to be shown and stored."""
    parts = urllib.parse.urlsplit(uri)
    if parts.hostname is None or "@" not in parts.netloc:
        return uri
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def ui_hint(destination: str) -> str:
    """How to look at what was recorded: a server's address, or the command that starts the UI on a database."""
    if sqlite_path(destination) is None:
        return without_password(destination)
    return f"mlflow ui --backend-store-uri {shlex.quote(destination)} --workers 1"


def run_url(destination: str, run: RunRef) -> str:
    """The page of a run: its link on a server; for a database the command that starts the UI, and the page there."""
    page = f"/#/experiments/{run.experiment_id}/runs/{run.run_id}?{_TRAINING}"
    if sqlite_path(destination) is None:
        return without_password(destination) + page
    return f"{ui_hint(destination)}   then open http://127.0.0.1:5000{page}"


def spool_folder(runs_dir: Path) -> Path:
    """Where the journals of a runs folder lie, whatever folder the process moves to."""
    return runs_dir.resolve() / "spool"


def prepare_environment() -> None:
    """Set what MLflow takes from the environment alone; it holds for this process and its children."""
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"  # a repeated create_run would make a second run: we look first
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(REQUEST_TIMEOUT_S))
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_UV_AUTO_DETECT", "false")  # or a stray uv.lock is packed into the model


@contextlib.contextmanager
def patience(seconds: int) -> Iterator[None]:
    """Let the server take so many seconds for an answer."""
    name = "MLFLOW_HTTP_REQUEST_TIMEOUT"
    before = os.environ[name]
    os.environ[name] = str(max(seconds, int(before)))
    try:
        yield
    finally:
        os.environ[name] = before


@contextlib.contextmanager
def turn(destination: str) -> Iterator[None]:
    """One process at a time on an sqlite file; nothing is locked for a server.

    sqlite fails one of two writers that have both begun to read, and MLflow would make the tables of a new file twice.
    """
    path = sqlite_path(destination)
    if path is None:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(f"{path.name}.lock")):
        yield
