"""MLflow, and the only file that imports it: takes a run's events to a server or a database, each exactly once.

    python -m lgsrr.tracking --runs runs      send what earlier runs left behind, and say how to look at it

A run is found again by its tag `lgsrr.run_key`, a metric by its time, a model by the digest of its folder: whatever is
delivered a second time changes nothing. It is done by the explicit `MlflowClient`, not the fluent interface, because it
runs in a background thread of a process whose active run and tracking URI are not ours. mlflow takes seconds to import,
and is imported when something is delivered, never before; `load_mlflow` and `connect` are how others come by it.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lgsrr.cli import run
from lgsrr.destination import UPLOAD_TIMEOUT_S, patience, prepare_environment, sqlite_path, turn, without_password
from lgsrr.files import plain_name
from lgsrr.logged_models import copy_scores_to_models, log_model
from lgsrr.registry import register_version
from lgsrr.replay import ReplayCommand, replay_command
from lgsrr.sender import RunRef, SinkAwayError, SinkRefusedError
from lgsrr.spool import Artifact, DataRef, Event, Metrics, ModelRegistered, ModelSaved, RunFinished, RunStarted, Tags

_MAX_PARAM = 6000
_MAX_TAG = 8000
_MAX_DIGEST = 36
_PLAIN = {
    "Connection refused": "nothing listens there: the connection was refused",
    "timed out": "it takes longer to answer than MLFLOW_HTTP_REQUEST_TIMEOUT allows",
    "Failed to resolve": "there is no host of that name",
    "Invalid Host header": "it refuses the name it is called by (403, Invalid Host header): --allowed-hosts lacks it",
}
"""What MLflow says in 300 characters, said in a few words."""
_REFUSALS = frozenset({"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "INVALID_STATE"})


def load_mlflow() -> Any:
    """The module mlflow, imported with our settings in place and its chatter switched off (about 1.5 s, once)."""
    prepare_environment()
    import mlflow

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it logs each error that it also raises
    return mlflow


def connect(destination: str) -> Any:
    """An `MlflowClient` for a tracking URI. The first on a new sqlite file makes its tables (seconds); others wait."""
    mlflow = load_mlflow()
    if sqlite_path(destination) is not None:
        importlib.import_module("mlflow.store.tracking.sqlalchemy_store")  # slow: not while others wait their turn
    with turn(destination):
        return mlflow.MlflowClient(tracking_uri=destination, registry_uri=destination)


def error_code(error: Exception) -> str:
    """MLflow's name of what went wrong, such as RESOURCE_ALREADY_EXISTS; empty where the error is not MLflow's."""
    load_mlflow()
    from mlflow.exceptions import MlflowException

    return str(error.error_code) if isinstance(error, MlflowException) else ""


@contextlib.contextmanager
def sorted_errors(destination: str) -> Iterator[None]:
    """MLflow's errors as two kinds: SinkRefusedError for what can never be taken, SinkAwayError for all others."""
    load_mlflow()
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        refused = error.error_code in _REFUSALS
        raise (SinkRefusedError if refused else SinkAwayError)(_short(error, destination)) from error
    except OSError as error:  # requests' errors are OSErrors, and so is a full disk
        refused = getattr(getattr(error, "response", None), "status_code", 0) in (400, 404, 413)
        raise (SinkRefusedError if refused else SinkAwayError)(_short(error, destination)) from error


def _short(error: Exception, destination: str) -> str:
    """An error in a few words, without the password that MLflow copies into it from the URI."""
    text = " ".join(str(error).replace(destination, without_password(destination)).split())
    known = [words for mark, words in _PLAIN.items() if mark in text]
    return known[0] if known else text if len(text) <= 300 else text[:297] + "..."


class MlflowSink:
    """Delivers events to the destination that each run names, and keeps what it learned about runs in memory."""

    def __init__(self, destination: str) -> None:
        """`destination` is the configured URI in full; it lends its password to the runs that belong there."""
        self._destination = destination
        self._clients: dict[str, Any] = {}
        self._runs: dict[str, RunRef] = {}

    def find(self, run_key: str) -> RunRef | None:
        return self._runs.get(run_key)

    def deliver(self, run: RunStarted, event: Event) -> None:
        ours = run.destination == without_password(self._destination)
        destination = self._destination if ours else run.destination
        with sorted_errors(destination):
            if destination not in self._clients:
                self._clients[destination] = connect(destination)
            client = self._clients[destination]
            with turn(destination):
                ref = self._begin(client, event) if isinstance(event, RunStarted) else self._known(client, run)
            match event:
                case Artifact():
                    _log_artifact(client, ref, event)
                case ModelSaved():
                    log_model(load_mlflow(), client, destination, ref, event)
                case ModelRegistered():
                    with turn(destination):
                        register_version(client, ref, event)
                case _:
                    with turn(destination):
                        _log_record(client, ref, event)

    def _begin(self, client: Any, start: RunStarted) -> RunRef:
        experiment_id = _experiment(client, start.experiment)
        found = _run(client, experiment_id, start.run_key)
        if found is None:
            found = client.create_run(experiment_id, start.time_ms, _first_tags(start), start.name)
        else:
            client.update_run(found.info.run_id, status="RUNNING")
        self._runs[start.run_key] = RunRef(run_id=found.info.run_id, experiment_id=experiment_id)
        return self._runs[start.run_key]

    def _known(self, client: Any, run: RunStarted) -> RunRef:
        """The run of an event whose start was delivered by another process."""
        if run.run_key not in self._runs:
            experiment_id = _experiment(client, run.experiment)
            found = _run(client, experiment_id, run.run_key)
            if found is None:
                raise SinkRefusedError(f"run {run.run_key} is no longer in experiment {run.experiment}: deleted there?")
            self._runs[run.run_key] = RunRef(run_id=found.info.run_id, experiment_id=experiment_id)
        return self._runs[run.run_key]


def _experiment(client: Any, name: str) -> str:
    """The experiment's id. It is made where it is missing, and brought back where somebody deleted it in the UI."""
    found = client.get_experiment_by_name(name)
    if found is None:
        return _new_experiment(client, name)
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def _new_experiment(client: Any, name: str) -> str:
    from mlflow.exceptions import MlflowException

    path = sqlite_path(client.tracking_uri)
    location = None if path is None else str(path.parent / "artifacts" / plain_name(name))
    kind = {"mlflow.experimentKind": "custom_model_development"}  # or its UI opens on pages for language models
    try:
        return str(client.create_experiment(name, artifact_location=location, tags=kind))
    except MlflowException as error:
        if error.error_code == "RESOURCE_ALREADY_EXISTS":  # another run made it in this moment
            return str(client.get_experiment_by_name(name).experiment_id)
        raise


def _run(client: Any, experiment_id: str, run_key: str) -> Any | None:
    """The run of a key. A second, empty one comes of a request that timed out here and got through there: it goes."""
    found = client.search_runs([experiment_id], f"tags.`lgsrr.run_key` = '{run_key}'")
    if not found:
        return None
    first, *others = sorted(found, key=lambda run: (not run.data.metrics, run.info.start_time, run.info.run_id))
    for other in others:
        if not other.data.metrics:
            client.delete_run(other.info.run_id)
    return first


def _first_tags(start: RunStarted) -> dict[str, str]:
    """What a run must carry from its first moment on, so that it is found again; MLflow reads its user here alone."""
    tags = {key: value for key, value in start.tags.items() if key.startswith("mlflow.")}
    tags["lgsrr.run_key"] = start.run_key
    if start.parent_run_key is not None:
        tags["lgsrr.parent_run_key"] = start.parent_run_key
    if start.parent_run_id is not None:
        tags["mlflow.parentRunId"] = start.parent_run_id
    return tags


def _log_record(client: Any, ref: RunRef, event: Event) -> None:
    from mlflow.entities import Metric

    match event:
        case RunStarted():
            _log_start(client, ref, event)
        case Metrics(values=values, step=step, time_ms=time_ms):
            client.log_batch(ref.run_id, metrics=[Metric(key, value, time_ms, step) for key, value in values.items()])
        case Tags(values=values):
            _log_tags(client, ref, values)
        case RunFinished(status=status, time_ms=time_ms):
            copy_scores_to_models(load_mlflow(), client, ref)
            client.set_terminated(ref.run_id, status, time_ms)


def _log_tags(client: Any, ref: RunRef, values: Mapping[str, str]) -> None:
    from mlflow.entities import RunTag

    client.log_batch(ref.run_id, tags=[RunTag(key, _fit(value, _MAX_TAG)) for key, value in values.items()])


def _log_start(client: Any, ref: RunRef, start: RunStarted) -> None:
    """Params, tags, data and family. MLflow never changes a param: a resumed run's new value becomes a tag."""
    from mlflow.entities import DatasetInput, InputTag, Param

    known = client.get_run(ref.run_id).data.params
    params = {key: _fit(value, _MAX_PARAM) for key, value in start.params.items()}
    client.log_batch(ref.run_id, params=[Param(key, value) for key, value in params.items() if key not in known])
    changed = {f"resumed.{key}": value for key, value in params.items() if known.get(key, value) != value}
    _log_tags(client, ref, {**start.tags, **changed})
    if start.data is not None:
        dataset = DatasetInput(_dataset(start.data), tags=[InputTag("mlflow.data.context", "training")])
        client.log_inputs(ref.run_id, datasets=[dataset])
    _join_family(client, ref, start)


def _dataset(data: DataRef) -> Any:
    """The dataset in the JSON forms that the UI reads. MLflow cuts digests at 36; the tag data.digest has all of it."""
    from mlflow.entities import Dataset

    columns = [{"type": kind, "name": name} for name, kind in data.schema.items()]
    return Dataset(
        name=data.name,
        digest=data.digest[:_MAX_DIGEST],
        source_type="local",
        source=json.dumps({"uri": data.source}),
        schema=json.dumps({"mlflow_colspec": columns}),
        profile=json.dumps(dict(data.profile)),
    )


def _join_family(client: Any, ref: RunRef, start: RunStarted) -> None:
    """Nest this run in its parent, and its children in it, whichever of them reached the server first."""
    if start.parent_run_key is not None:
        parent = _run(client, ref.experiment_id, start.parent_run_key)
        if parent is not None:
            client.set_tag(ref.run_id, "mlflow.parentRunId", parent.info.run_id)
    children = client.search_runs([ref.experiment_id], f"tags.`lgsrr.parent_run_key` = '{start.run_key}'")
    for child in children:
        if "mlflow.parentRunId" not in child.data.tags:
            client.set_tag(child.info.run_id, "mlflow.parentRunId", ref.run_id)


def _fit(value: str, limit: int) -> str:
    if len(value) <= limit:
        return value
    mark = f"... ({len(value)} characters)"
    return value[: limit - len(mark)] + mark


def _log_artifact(client: Any, ref: RunRef, event: Artifact) -> None:
    if not Path(event.path).exists():
        raise SinkRefusedError(f"{event.path} is no longer there; it was to be kept with the run")
    with patience(UPLOAD_TIMEOUT_S):
        client.log_artifact(ref.run_id, event.path, event.artifact_path)


if __name__ == "__main__":
    run(
        replay_command,
        ReplayCommand,
        prog="python -m lgsrr.tracking",
        description="Send what earlier runs could not deliver to their tracking server, and say how to look at it.",
        example="python -m lgsrr.tracking --runs runs",
    )
