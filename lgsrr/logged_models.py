"""Trained models in MLflow: a model folder becomes a pyfunc there, and a name of MLflow's becomes a model folder again.

A pyfunc of ours is `data/<model folder>` (weights in safetensors), `code/lgsrr` (this package) and a signature, with no
pickle. It is logged in four steps that a replay can take up where they stopped, and MLflow does not load the model into
the training process to try it. The trade-off: the code that is packed is that of the process that delivers the model,
which after an upgrade in between is newer than the one that trained it.

Beside the weights the model folder may hold, for the page of the model and for `mlflow models serve`:

    signature.json        {"inputs": [{"name": "text", "type": "string"}, ...], "outputs": [...]}
    input_example.json    [{"text": "Come here.", ...}]: rows by column
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import tempfile
import urllib.parse
from pathlib import Path
from typing import Any

from lgsrr.destination import UPLOAD_TIMEOUT_S, TrackingConfig, patience, turn, without_password
from lgsrr.errors import ModelError, TrackingError
from lgsrr.files import atomic_path
from lgsrr.sender import RunRef, SinkAwayError, SinkRefusedError
from lgsrr.spool import ModelSaved

MODEL_NAME = "model"
"""Its name within a run: `runs:/<run id>/model`."""
_DIGEST_TAG = "lgsrr.folder_digest"
_SCORES = ("test_", "best_")
_RUN_URI = re.compile(rf"runs:/(?P<run>[^/]+)(/{MODEL_NAME})?/?")
_VERSION_URI = re.compile(r"models:/(?P<name>[^/@]+)(@(?P<alias>[^/]+)|/(?P<version>\d+))")
_MODEL_ID = re.compile(r"m-[0-9a-f]{32}")


# ---- from a folder to MLflow ---------------------------------------------------------------------------------------


def log_model(mlflow: Any, client: Any, destination: str, run: RunRef, event: ModelSaved) -> None:
    """Keep a model folder with its run, once: a folder of the same content that is there already is left as it is."""
    folder = Path(event.folder)
    if not folder.is_dir():
        raise SinkRefusedError(f"{folder} is no longer there; the model in it was to be kept with the run")
    with turn(destination):
        model = _find_or_create(client, run, _digest(folder))
    if str(model.status) == "READY":
        return
    with tempfile.TemporaryDirectory(prefix="lgsrr-pyfunc-") as temporary:
        packed = Path(temporary) / MODEL_NAME
        _pack(mlflow, model, run, event, packed)
        with patience(UPLOAD_TIMEOUT_S):
            client.log_model_artifacts(model.model_id, str(packed))
    with turn(destination):
        _link(mlflow, client, run, model.model_id)
        client.finalize_logged_model(model.model_id, "READY")


def _find_or_create(client: Any, run: RunRef, digest: str) -> Any:
    for model in _models_of(client, run):
        if model.tags.get(_DIGEST_TAG) == digest:
            return model
    return client.create_logged_model(
        run.experiment_id,
        name=MODEL_NAME,
        source_run_id=run.run_id,
        tags={_DIGEST_TAG: digest},
        params=client.get_run(run.run_id).data.params,
    )


def _models_of(client: Any, run: RunRef) -> list[Any]:
    """The run's models, the newest first."""
    found = client.search_logged_models([run.experiment_id], f"source_run_id = '{run.run_id}'")
    models = [model for model in found if model.name == MODEL_NAME]
    return sorted(models, key=lambda model: model.creation_timestamp, reverse=True)


def ready_model(client: Any, run: RunRef) -> Any | None:
    """The run's newest model whose upload has ended; None where it has none."""
    return next((model for model in _models_of(client, run) if str(model.status) == "READY"), None)


def _digest(folder: Path) -> str:
    """SHA-256 (hex) over the names and contents of a folder's files."""
    hasher = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        hasher.update(path.relative_to(folder).as_posix().encode() + b"\0")
        with path.open("rb") as file:
            hasher.update(hashlib.file_digest(file, "sha256").digest())
    return hasher.hexdigest()


def _pack(mlflow: Any, model: Any, run: RunRef, event: ModelSaved, packed: Path) -> None:
    """Write the pyfunc to `packed`. Its parts are given, so that MLflow has nothing to infer and loads nothing."""
    folder = Path(event.folder)
    mlflow.pyfunc.save_model(
        path=str(packed),
        loader_module=event.loader_module,
        data_path=str(folder),
        code_paths=[str(_package_folder(event.loader_module))],
        mlflow_model=mlflow.models.Model(
            artifact_path=model.artifact_location,
            run_id=run.run_id,
            model_uuid=model.model_id,
            model_id=model.model_id,
        ),
        signature=_signature(mlflow, folder),
        input_example=_input_example(folder),
        pip_requirements=list(event.requirements),
    )


def _package_folder(module: str) -> Path:
    """The folder of the top package that holds a module; the module itself is not imported."""
    spec = importlib.util.find_spec(module.partition(".")[0])
    if spec is None or not spec.submodule_search_locations:
        raise SinkRefusedError(f"the package of the model's loader {module!r} is not installed here")
    return Path(next(iter(spec.submodule_search_locations)))


def _signature(mlflow: Any, folder: Path) -> Any | None:
    path = folder / "signature.json"
    if not path.exists():
        return None
    sides = json.loads(path.read_text(encoding="utf-8"))
    schemas = {side: mlflow.types.Schema.from_json(json.dumps(columns)) for side, columns in sides.items()}
    return mlflow.models.ModelSignature(**schemas)


def _input_example(folder: Path) -> Any | None:
    import pandas as pd

    path = folder / "input_example.json"
    return pd.DataFrame(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def _link(mlflow: Any, client: Any, run: RunRef, model_id: str) -> None:
    """Name the model as the run's output, once: MLflow itself would list it twice."""
    outputs = client.get_run(run.run_id).outputs
    if outputs is None or all(output.model_id != model_id for output in outputs.model_outputs):
        client.log_outputs(run.run_id, [mlflow.entities.LoggedModelOutput(model_id, step=0)])


def copy_scores_to_models(mlflow: Any, client: Any, run: RunRef) -> None:
    """Show a run's final numbers (test_…, best_…) on the page of its model too, where people compare models."""
    models = _models_of(client, run)
    names = [name for name in client.get_run(run.run_id).data.metrics if name.startswith(_SCORES)]
    if not models or not names:
        return
    last = [client.get_metric_history(run.run_id, name)[-1] for name in names]
    entity = mlflow.entities.Metric
    scores = [entity(m.key, m.value, m.timestamp, m.step, model_id=models[0].model_id) for m in last]
    client.log_batch(run.run_id, metrics=scores)


# ---- from MLflow to a folder ---------------------------------------------------------------------------------------


def resolve_model(uri: str, runs_dir: Path, config: TrackingConfig) -> Path:
    """The model folder that `uri` names: a folder, `runs:/ID[/model]`, `models:/NAME/VERSION` or `models:/NAME@ALIAS`.

    Artifacts on this machine are used where they lie; others are downloaded once into `<runs_dir>/models`. Raises
    ModelError where there is no such model or it is none of ours, TrackingError where the server cannot be reached.
    """
    if not uri.startswith(("runs:/", "models:/")):
        folder = Path(uri)
        if not folder.is_dir():
            raise ModelError(f"there is no folder {uri}; expected a model folder, runs:/ID, models:/NAME@ALIAS")
        return _model_folder(folder) if (folder / "MLmodel").exists() else folder
    destination = config.destination(runs_dir)
    from lgsrr.tracking import connect, load_mlflow, sorted_errors

    server = without_password(destination)
    try:
        with sorted_errors(destination):
            client = connect(destination)
            model = client.get_logged_model(_model_id(client, uri))
            return _model_folder(_fetch(load_mlflow(), destination, model, runs_dir / "models"))
    except SinkRefusedError as error:
        raise ModelError(f"{server} has no model {uri}: {error}") from error
    except SinkAwayError as error:
        raise TrackingError(f"{server} cannot be asked for {uri}: {error}") from error


def _model_id(client: Any, uri: str) -> str:
    """MLflow's id of the model that a name leads to."""
    if found := _RUN_URI.fullmatch(uri):
        return _model_of_run(client, found["run"])
    if found := _VERSION_URI.fullmatch(uri):
        name = found["name"]
        if found["alias"]:
            version = client.get_model_version_by_alias(name, found["alias"])
        else:
            version = client.get_model_version(name, found["version"])
        uri = f"{version.model_id} {version.source}"
    if found := _MODEL_ID.search(uri):
        return found[0]
    raise ModelError(
        f"{uri} leads to no model that a run has logged; "
        "expected runs:/ID, models:/NAME/VERSION, models:/NAME@ALIAS or models:/m-ID"
    )


def _model_of_run(client: Any, run_id: str) -> str:
    run = client.get_run(run_id)
    model = ready_model(client, RunRef(run_id=run_id, experiment_id=run.info.experiment_id))
    if model is None:
        raise ModelError(
            f"run {run_id} ({run.info.run_name}, {run.info.status}) has no finished model; "
            "if it has just ended, `python -m lgsrr.tracking` sends what is still on its way"
        )
    return str(model.model_id)


def _fetch(mlflow: Any, destination: str, model: Any, cache: Path) -> Path:
    """The pyfunc's folder on this machine: where it lies, or a copy that is there whole or not at all."""
    if str(model.status) != "READY":
        raise ModelError(f"model {model.model_id} is {model.status}: its upload has not ended; try again when it has")
    here = _local_path(model.artifact_location)
    if here is not None and (here / "MLmodel").exists():
        return here
    if not _MODEL_ID.fullmatch(model.model_id):
        raise ModelError(f"the server calls the model {model.model_id!r}, which is no id of MLflow's")
    copy: Path = cache / model.model_id
    if not copy.exists():
        with atomic_path(copy) as temporary, patience(UPLOAD_TIMEOUT_S):
            mlflow.artifacts.download_artifacts(
                artifact_uri=model.artifact_location, dst_path=str(temporary), tracking_uri=destination
            )
    found = next(copy.rglob("MLmodel"), None)
    if found is None:
        raise ModelError(f"what {model.artifact_location} holds is no MLflow model: there is no MLmodel file in {copy}")
    return found.parent


def _local_path(location: str) -> Path | None:
    parts = urllib.parse.urlsplit(location)
    return Path(urllib.parse.unquote(parts.path)) if parts.scheme in ("", "file") else None


def _model_folder(pyfunc: Path) -> Path:
    """Our model folder within a pyfunc; ModelError where the pyfunc is not one of ours."""
    from lgsrr.tracking import load_mlflow

    flavors = load_mlflow().models.Model.load(str(pyfunc)).flavors
    data = flavors.get("python_function", {}).get("data")
    folder: Path = (pyfunc / str(data)).resolve()
    if data is None or not folder.is_dir() or not folder.is_relative_to(pyfunc.resolve()):
        raise ModelError(
            f"{pyfunc} is no model of this project: its MLmodel names no data folder; log it with lgsrr.train"
        )
    return folder
