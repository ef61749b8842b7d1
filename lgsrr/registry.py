"""Registered models in MLflow: one per dataset, `lgsrr-<dataset>`, whose versions are models that runs have logged.

A version carries what was found out about it as tags (all strings); `candidate` is the one that a search proposes,
`champion` the one that is used: `python -m lgsrr.predict --model models:/lgsrr-mintrec2@champion`. Whoever may write to
the server may move an alias, here or in the UI. The trade-off: scores are read from the run of each version, one
request each, so that a version that a person registered in the UI is listed like ours.

Tags of a version, as a search writes them:

    lgsrr.search, lgsrr.trial, lgsrr.seed   which search, which of its configurations, which seed's model this is
    lgsrr.settings                          what the configuration sets, as a JSON object
    dev_f1_mean, dev_f1_sd, dev_f1_seeds    dev macro F1 (fraction) over the seeds: mean, standard deviation, how many
    test_f1_mean, test_f1_sd, ...           the same on the test split, with test_acc and test_wf1 likewise
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lgsrr.logged_models import ready_model
from lgsrr.sender import RunRef, SinkRefusedError
from lgsrr.spool import ModelRegistered

CANDIDATE = "candidate"
CHAMPION = "champion"
PREFIX = "lgsrr-"
"""What the names of our registered models begin with; the dataset's name follows."""
SEARCH, TRIAL, SEED, SETTINGS = "lgsrr.search", "lgsrr.trial", "lgsrr.seed", "lgsrr.settings"

_MODEL_ID = re.compile(r"m-[0-9a-f]{32}")
_SHOWN_ON_MODEL = "mlflow.modelVersions"
"""Tag of a logged model by which the UI's page of it links to its versions."""


# ---- writing -------------------------------------------------------------------------------------------------------


def register_version(client: Any, run: RunRef, event: ModelRegistered) -> str:
    """Make the run's model a version of a registered model, once, and return its number; `turn` is the caller's.

    A version that is there already (by the model's id) gets the tags, the description and the alias that are told now.
    Raises SinkRefusedError where the run has no finished model, and MLflow's errors.
    """
    model = ready_model(client, run)
    if model is None:
        raise SinkRefusedError(
            f"run {run.run_id} has no finished model, so there is nothing to register as {event.name}; "
            "a model is logged (Tracker.model) before it is registered"
        )
    _make_registered_model(client, event.name)
    version = _find_version(client, event.name, model.model_id)
    if version is None:
        # Not `models:/<id>`, which MLflow's database store looks up in the tracking store of its own default.
        where = model.artifact_location
        version = client.create_model_version(
            event.name, where, run.run_id, await_creation_for=0, model_id=model.model_id
        )
    for key, value in event.tags.items():
        client.set_model_version_tag(event.name, version.version, key, value)
    if event.description:
        client.update_model_version(event.name, version.version, event.description)
    _show_on_model(client, model.model_id, event.name, str(version.version))
    if event.alias is not None:
        client.set_registered_model_alias(event.name, event.alias, str(version.version))
    return str(version.version)


def _make_registered_model(client: Any, name: str) -> None:
    from lgsrr.tracking import error_code

    dataset = name.removeprefix(PREFIX)
    about = (
        f"LGSRR models of {dataset}. `{CHAMPION}` is the one in use; `{CANDIDATE}` is what the last search proposes."
    )
    try:
        client.create_registered_model(name, description=about)
    except Exception as error:
        if error_code(error) != "RESOURCE_ALREADY_EXISTS":
            raise


def _find_version(client: Any, name: str, model_id: str) -> Any | None:
    """The version of a logged model: the first, where two writers made one each in the same moment."""
    found = [version for version in _all_versions(client, name) if model_id_of(version) == model_id]
    return min(found, key=lambda version: int(version.version), default=None)


def _all_versions(client: Any, name: str) -> list[Any]:
    return _all_pages(lambda token: client.search_model_versions(f"name = '{name}'", page_token=token))


def _all_pages(ask: Callable[[str | None], Any]) -> list[Any]:
    """What a search gives, page by page."""
    found: list[Any] = []
    token = None
    while True:
        page = ask(token)
        found += page
        token = page.token
        if not token:
            return found


def model_id_of(version: Any) -> str | None:
    """The logged model behind a version, whichever way it was registered; None for one that no run has logged."""
    found = _MODEL_ID.search(f"{version.model_id} {version.source}")
    return found[0] if found else None


def _show_on_model(client: Any, model_id: str, name: str, version: str) -> None:
    """Link the model's page in the UI to its version, as a server does by itself and a database does not."""
    listed: list[dict[str, Any]] = []
    with contextlib.suppress(ValueError):
        listed = json.loads(client.get_logged_model(model_id).tags.get(_SHOWN_ON_MODEL, "[]"))
    if (name, version) not in [(entry.get("name"), str(entry.get("version"))) for entry in listed]:
        entry = {"name": name, "version": version}
        client.set_logged_model_tags(model_id, {_SHOWN_ON_MODEL: json.dumps([*listed, entry])})


# ---- reading and promoting -----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A version of a registered model, with what is known of it."""

    name: str
    version: str
    aliases: tuple[str, ...]
    run_id: str | None
    tags: Mapping[str, str]
    scores: Mapping[str, float]
    """Of its run: `test_f1`, `best_dev_f1`, ...; empty where the run is gone."""
    created_ms: int

    @property
    def uri(self) -> str:
        """By which every command takes it."""
        return f"models:/{self.name}/{self.version}"


def registered_names(client: Any) -> list[str]:
    """Names of all our registered models."""
    ours = f"name LIKE '{PREFIX}%'"
    return sorted(
        model.name for model in _all_pages(lambda token: client.search_registered_models(ours, page_token=token))
    )


def versions(client: Any, name: str) -> list[Version]:
    """The versions of a registered model, the newest first; none where there is no such model."""
    aliases: dict[str, list[str]] = {}
    with _missing_is_nothing():
        for alias, version in client.get_registered_model(name).aliases.items():
            aliases.setdefault(str(version), []).append(alias)
    found = sorted(_all_versions(client, name), key=lambda version: -int(version.version))
    return [_version(client, found_version, aliases) for found_version in found]


def _version(client: Any, found: Any, aliases: Mapping[str, list[str]]) -> Version:
    scores: dict[str, float] = {}
    if found.run_id:
        with _missing_is_nothing():
            scores = dict(client.get_run(found.run_id).data.metrics)
    return Version(
        name=found.name,
        version=str(found.version),
        aliases=tuple(sorted(aliases.get(str(found.version), []))),
        run_id=found.run_id or None,
        tags=dict(found.tags),
        scores=scores,
        created_ms=int(found.creation_timestamp),
    )


@contextlib.contextmanager
def _missing_is_nothing() -> Iterator[None]:
    from lgsrr.tracking import error_code

    try:
        yield
    except Exception as error:
        if error_code(error) != "RESOURCE_DOES_NOT_EXIST":
            raise


def set_alias(client: Any, version: Version, alias: str) -> None:
    """Give a version an alias, and take it from the one that had it; `turn` is the caller's."""
    client.set_registered_model_alias(version.name, alias, version.version)
