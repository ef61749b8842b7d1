"""Give a model that was found the alias `champion`, by which it is used from then on.

    python -m tune.promote --dataset mintrec2               what can be promoted
    python -m tune.promote --dataset mintrec2 --candidate   what the last search proposes

A person can do the same in the MLflow UI: set the alias `champion` on a version's page. Here the numbers before and
after are shown beside each other, and a model of other data or labels is refused.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lgsrr import cli
from lgsrr.destination import TrackingConfig, turn, without_password
from lgsrr.errors import ConfigError, ModelError, TrackingError
from lgsrr.logged_models import resolve_model
from lgsrr.registry import (
    CANDIDATE,
    CHAMPION,
    PREFIX,
    SEARCH,
    SETTINGS,
    TRIAL,
    Version,
    register_version,
    registered_names,
    set_alias,
    versions,
)
from lgsrr.saved_model import ModelCard, read_card
from lgsrr.sender import RunRef, SinkAwayError, SinkRefusedError
from lgsrr.spool import ModelRegistered

PROG = "python -m tune.promote"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromoteConfig:
    dataset: str | None = None
    """Whose models; without one, all are listed."""
    candidate: bool = False
    """Promote the version that the last search proposes."""
    version: int | None = None
    """Promote the version of that number."""
    run: str | None = None
    """Promote the model of a run, by MLflow's id of it; it becomes a version where it is none yet."""
    other_data: bool = False
    """Promote a model of other data or labels than the champion's all the same."""
    runs: str = "runs"
    """Folder of the local tracking store; a server is named by $MLFLOW_TRACKING_URI."""

    def __post_init__(self) -> None:
        asked = [self.candidate, self.version is not None, self.run is not None]
        if sum(asked) > 1:
            raise ConfigError("more than one of --candidate, --version and --run is given; expected one of them")
        if any(asked) and self.dataset is None:
            raise ConfigError("--dataset is missing; expected the one whose champion it is to be, such as mintrec2")

    @property
    def promotes(self) -> bool:
        """Whether anything is to be promoted, not only listed."""
        return self.candidate or self.version is not None or self.run is not None


def promote(config: PromoteConfig, console: Console | None = None) -> Version | None:
    """List what can be promoted, or promote; returns the champion, None where only a list was asked for.

    Raises:
        ModelError: there is no such version, or its data or labels are not the champion's.
        TrackingError: the server cannot be reached.
    """
    console = console or cli.table_console()
    destination = TrackingConfig().destination(Path(config.runs))
    with _explained(destination):
        from lgsrr.tracking import connect

        client = connect(destination)
        if not config.promotes:
            _list(client, config, destination, console)
            return None
        before = next((v for v in versions(client, f"{PREFIX}{config.dataset}") if CHAMPION in v.aliases), None)
        if config.run is not None:
            _check_fits(f"runs:/{config.run}", before, config)  # before it becomes a version
        chosen = _chosen(client, config, destination)
        if before is not None and before.version == chosen.version:
            console.print(f"{chosen.uri} is the champion already; nothing was changed", highlight=False)
            return before
        _check_fits(chosen.uri, before, config)
        with turn(destination):
            set_alias(client, chosen, CHAMPION)
        _print_change(before, chosen, console)
        return chosen


@contextlib.contextmanager
def _explained(destination: str) -> Iterator[None]:
    from lgsrr.tracking import sorted_errors

    try:
        with sorted_errors(destination):
            yield
    except SinkAwayError as error:
        where = without_password(destination)
        raise TrackingError(f"{where} cannot be reached: {error}; name it by MLFLOW_TRACKING_URI or --runs") from error
    except SinkRefusedError as error:
        raise ModelError(f"{without_password(destination)} does not have it: {error}") from error


def _chosen(client: Any, config: PromoteConfig, destination: str) -> Version:
    """The version that is to be promoted."""
    name = f"{PREFIX}{config.dataset}"
    if config.run is not None:
        run = client.get_run(config.run)
        where = RunRef(run_id=run.info.run_id, experiment_id=run.info.experiment_id)
        with turn(destination):
            number = register_version(client, where, ModelRegistered(name=name))
    known = versions(client, name)
    if config.run is not None:
        return next(v for v in known if v.version == number)
    wanted = (lambda v: CANDIDATE in v.aliases) if config.candidate else (lambda v: v.version == str(config.version))
    found = next((v for v in known if wanted(v)), None)
    if found is None:
        what = "candidate" if config.candidate else f"version {config.version}"
        have = ", ".join(v.version for v in reversed(known)) or "none: run python tune/search.py, or give --run ID"
        raise ModelError(f"{name} in {without_password(destination)} has no {what}; its versions are {have}")
    return found


def _card(uri: str, config: PromoteConfig) -> ModelCard:
    return read_card(resolve_model(uri, Path(config.runs), TrackingConfig()))


def _check_fits(uri: str, before: Version | None, config: PromoteConfig) -> None:
    """Raises ModelError where the model is not of the champion's data and labels, unless that is allowed."""
    ours = _card(uri, config)
    if config.other_data:
        return
    if ours.dataset != config.dataset:
        raise ModelError(f"{uri} was trained on {ours.dataset}, and {config.dataset} is asked for. {_HOW}")
    if before is None:
        return
    theirs = _card(before.uri, config)
    if ours.labels != theirs.labels:
        new, old = (sorted(set(a.labels) - set(b.labels)) for a, b in ((ours, theirs), (theirs, ours)))
        raise ModelError(
            f"{uri} knows other labels than the champion {before.uri}: only in it {new or 'none'}, only in the "
            f"champion {old or 'none'} (or another order). {_HOW}"
        )
    if ours.data_digest != theirs.data_digest:
        raise ModelError(
            f"{uri} was trained on other data (digest {ours.data_digest[:12]}, {ours.data}) than the champion "
            f"{before.uri} ({theirs.data_digest[:12]}, {theirs.data}), so their numbers cannot be compared. {_HOW}"
        )


_HOW = "To promote it all the same, add --other-data."


# ---- on a terminal -------------------------------------------------------------------------------------------------


def _list(client: Any, config: PromoteConfig, destination: str, console: Console) -> None:
    names = [f"{PREFIX}{config.dataset}"] if config.dataset else registered_names(client)
    listed = [version for name in names for version in versions(client, name)]
    if not listed:
        what = f"{names[0]} has no version" if config.dataset else "no model is registered"
        raise ModelError(f"{what} in {without_password(destination)}; python tune/search.py registers its winner")
    table = Table(box=None, pad_edge=False)
    for title in ("version", "alias", "what", "dev F1 %", "test F1 %", "when"):
        table.add_column(title, justify="right" if "%" in title else "left")
    for version in listed:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(version.created_ms / 1000))
        cells = (f"{version.name} {version.version}", ", ".join(version.aliases), _what(version))
        table.add_row(*map(Text, (*cells, _score(version, "dev_f1"), _score(version, "test_f1"), when)))
    console.print(table)
    console.print(f"promote one:   {PROG} --dataset {listed[0].name.removeprefix(PREFIX)} --version N", highlight=False)


def _what(version: Version) -> str:
    """Where a version came from, in short."""
    if SEARCH in version.tags:
        return f"{version.tags[SEARCH]}, {version.tags.get(TRIAL, '')} {version.tags.get(SETTINGS, '')}"
    return f"run {version.run_id}" if version.run_id else ""


def _score(version: Version, name: str) -> str:
    """Mean and deviation over seeds where a search wrote them down, else the score of the one run; percent."""
    with contextlib.suppress(KeyError, ValueError):  # a person may write what they like into a tag
        mean, spread = version.tags[f"{name}_mean"], version.tags.get(f"{name}_sd")
        return f"{100 * float(mean):.1f}" + (f" ± {100 * float(spread):.1f}" if spread else "")
    value = version.scores.get(name, version.scores.get(f"best_{name}"))
    return "" if value is None else f"{100 * value:.1f}"


def _print_change(before: Version | None, now: Version, console: Console) -> None:
    table = Table(box=None, pad_edge=False)
    titles = {"dev_f1": "dev F1 %", "test_acc": "test ACC %", "test_f1": "test F1 %", "test_wf1": "test WF1 %"}
    for title in ("", "version", *titles.values()):
        table.add_column(title, justify="right" if "%" in title else "left")
    for word, version in (("before", before), ("now", now)):
        if version is None:
            table.add_row(word, "no champion")
            continue
        table.add_row(word, version.version, *(_score(version, name) for name in titles))
    console.print(table)
    console.print(f"use it:   python -m lgsrr.predict --model models:/{now.name}@{CHAMPION} …", highlight=False)


def run(config: PromoteConfig) -> None:
    """The command."""
    promote(config)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    cli.run(
        run,
        PromoteConfig,
        prog=PROG,
        description=(__doc__ or "").split("\n\n")[0],
        example=f"{PROG} --dataset mintrec2 --candidate",
        argv=argv,
    )


if __name__ == "__main__":
    main()
