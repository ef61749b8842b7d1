"""The doctor's checks of what training and search need: versions, storage, the tracking server, the text encoder.

Each is a function of the settings that yields findings, and may raise any `LgsrrError`, whose message is then the
finding. That of Ray is in `lgsrr.doctor_ray`.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import shutil
import sys
import urllib.parse
import uuid
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from lgsrr import storage
from lgsrr.checkup import GROUP, DoctorConfig, Finding
from lgsrr.destination import TrackingConfig, spool_folder, sqlite_path, ui_hint, without_password
from lgsrr.errors import DataError
from lgsrr.spool import journals, locked

_DISTRIBUTION = "lgsrr"
_LITTLE_ROOM = 5e9
"""Bytes; checkpoints of a bert-large run need 4 GB."""
_WAIT_S = "8"
"""Longest that the tracking server may take for one answer, seconds."""


# Versions


def versions(config: DoctorConfig) -> Iterator[Finding]:
    """Python and every package against the pins of the installed metadata; of extras, those that are installed."""
    try:
        metadata = importlib.metadata.metadata(_DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        yield Finding(level="fails", found="lgsrr is not installed here", do="in its folder: make setup")
        return
    wrong = list(_wrong_python(metadata["Requires-Python"]))
    looked_at = 0
    for line in importlib.metadata.requires(_DISTRIBUTION) or ():
        needed = Requirement(line)
        is_extra = "extra ==" in line
        if needed.marker is not None and not needed.marker.evaluate({"extra": _extra(line)}):
            continue
        there = _installed(needed.name)
        looked_at += there is not None
        if there is None and is_extra:
            continue
        wrong += _wrong_version(needed, there)
    yield from wrong
    if not importlib.metadata.entry_points(group=GROUP):
        found = "the checks of extraction are not known here: lgsrr was installed before they were there"
        yield Finding(level="warning", found=found, do="in its folder: make setup, or pip install --editable .")
    if not wrong:
        names = ("ray", "torch", "transformers", "mlflow")
        shown = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
        yield Finding(
            level="ok", found=f"Python {sys.version.split()[0]}, {looked_at} packages within their pins: {shown}"
        )


def _extra(line: str) -> str:
    """The extra that a requirement belongs to; empty where to none."""
    return line.partition("extra ==")[2].strip(" '\"()")


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _wrong_python(needed: str | None) -> Iterator[Finding]:
    running = sys.version.split()[0]
    if needed and not SpecifierSet(needed).contains(running, prereleases=True):
        yield Finding(
            level="fails", found=f"Python {running}; expected {needed}", do="make clean, then make PYTHON=python3.12"
        )


def _wrong_version(needed: Requirement, there: str | None) -> Iterator[Finding]:
    if there is None or not needed.specifier.contains(there, prereleases=True):
        found = f"{needed.name} is {there or 'not installed'}; expected {needed.specifier or 'any version'}"
        yield Finding(level="fails", found=found, do=_install(f"{needed.name}{needed.specifier}"))


def _install(requirement: str) -> str:
    return f"{sys.executable} -m pip install '{requirement}'"


# Storage


def storages(config: DoctorConfig) -> Iterator[Finding]:
    """Every folder and prefix that will be written to."""
    for where in dict.fromkeys(filter(None, (config.runs, config.out))):
        try:
            yield from _store(where) if storage.is_uri(where) else _folder(Path(where).expanduser())
        except DataError as error:
            yield Finding(level="fails", found=str(error), do="mend that, or name another place (--runs, --out)")
        except OSError as error:
            yield _unwritable(where, error)


def _folder(folder: Path) -> Iterator[Finding]:
    """Write (and with it rename and flush), list, read, lock and remove in a folder, which is made and unmade."""
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    path = folder / f"doctor-{uuid.uuid4().hex[:8]}"
    try:
        with _gone_again(made):
            storage.write_bytes(str(path), b"doctor")
            _seen(storage.names_in(str(folder)), path.name, storage.read_bytes(str(path)))
            with locked(path, wait=False) as descriptor:
                held = descriptor is not None
            path.unlink()
            room = shutil.disk_usage(folder).free
    finally:
        path.unlink(missing_ok=True)
    if not held:
        yield Finding(
            level="fails", found=f"{folder}: a file cannot be locked there", do="name a local disk for --runs"
        )
    elif room < _LITTLE_ROOM:
        found = f"{folder}: {room / 1e9:.1f} GB left; a run of a large encoder needs 4 GB for its checkpoints"
        yield Finding(level="warning", found=found, do="make room, or name another place with --runs or --storage")
    else:
        yield Finding(level="ok", found=f"{folder}: written, renamed, listed, locked; {room / 1e9:.0f} GB left")


@contextlib.contextmanager
def _gone_again(made: list[Path]) -> Iterator[None]:
    """The folders that a block makes are removed behind it, the innermost first."""
    try:
        yield
    finally:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()


def _store(prefix: str) -> Iterator[Finding]:
    """Write, list, read and remove an object; a store renames nothing, an object is there whole or not at all."""
    name = f"doctor-{uuid.uuid4().hex[:8]}"
    path = storage.join(prefix, name)
    storage.write_bytes(path, b"doctor")
    try:
        _seen(storage.names_in(prefix), name, storage.read_bytes(path))
    finally:
        storage.remove(path)
    yield Finding(level="ok", found=f"{without_password(prefix)}: written, listed, read, removed")


def _seen(names: list[str], name: str, content: bytes) -> None:
    if name not in names or content != b"doctor":
        raise DataError(f"what was written under the name {name} is not listed or not the same when it is read")


def _unwritable(where: str, error: OSError) -> Finding:
    do = "its owner can grant it (chmod u+rwX, or chown), or name another place (--runs, --out)"
    return Finding(level="fails", found=f"{where}: cannot be written ({error.strerror or error})", do=do)


# The tracking server


def tracking(config: DoctorConfig) -> Iterator[Finding]:
    """The server or database that runs are recorded in: whether it answers to us, and what still waits for it."""
    destination = TrackingConfig(uri=config.tracking_uri).destination(Path(config.runs))
    path = sqlite_path(destination)
    if path is not None and not path.exists():
        yield Finding(level="ok", found=f"{path} will be made by the first run")
    else:
        yield from _asked(destination)
    waiting = sum(1 for journal in journals(spool_folder(Path(config.runs))) if journal.pending())
    if waiting:
        found = f"{waiting} earlier runs are not in MLflow yet"
        yield Finding(level="warning", found=found, do=f"python -m lgsrr.tracking --runs {config.runs}")


def _asked(destination: str) -> Iterator[Finding]:
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = _WAIT_S
    from lgsrr.sender import SinkAwayError, SinkRefusedError
    from lgsrr.tracking import connect, sorted_errors

    shown = without_password(destination)
    try:
        with sorted_errors(destination):
            found = connect(destination).search_experiments(max_results=1)
    except (SinkAwayError, SinkRefusedError) as error:
        yield Finding(level="fails", found=f"{shown}: {error}", do=_server_remedy(destination, str(error)))
    else:
        runs = "answers" if found else "answers, and is empty"
        yield Finding(level="ok", found=f"MLflow {runs}: {ui_hint(destination)}")


def _server_remedy(destination: str, said: str) -> str:
    """What to do about each way in which a tracking server is no use."""
    parts = urllib.parse.urlsplit(destination)
    if "--allowed-hosts" in said:
        host = parts.netloc.rpartition("@")[2]
        return (
            f"start it with: LGSRR_MLFLOW_NAMES={parts.hostname} mlflow/serve.sh (or mlflow server --allowed-hosts "
            f"'{parts.hostname},{host}' …), or call it by a name it knows"
        )
    if "401" in said or "403" in said:
        return "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (or MLFLOW_TRACKING_TOKEN) to what it knows"
    if "Detected out-of-date database schema" in said:
        return f"after a backup: mlflow db upgrade {without_password(destination)}"
    if parts.scheme.startswith("http"):
        return "start it (mlflow/README.md), or correct MLFLOW_TRACKING_URI; until then runs wait under --runs"
    return "check that the database is there, and its address (MLFLOW_TRACKING_URI)"


# The text encoder


def encoder(config: DoctorConfig) -> Iterator[Finding]:
    """The encoder of training, from its folder to its weights."""
    from lgsrr.pretrained import encoder_folder, load_encoder, load_tokenizer

    folder = encoder_folder(config.encoder)
    load_tokenizer(folder)
    shape = load_encoder(folder).config
    size = f"{shape.num_hidden_layers} layers of {shape.hidden_size}"
    yield Finding(level="ok", found=f"{config.encoder}: {size}, read from {folder}")
