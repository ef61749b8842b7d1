"""What a run tells the tracking server, seen from the training driver: every call is written down and returns at once.

    tracker = Tracker(Path("runs"), TrackingConfig(), run_key="mintrec2-3f9a")
    tracker.start(dataset="mintrec2", name="lr 1e-4", params={...}, data=describe(dataset))
    tracker.metrics({"train_loss": 1.2, "dev_f1": 0.31}, step=1)
    tracker.finish()
    print(tracker.close().where)

Nothing here imports mlflow or waits for a server: calls append to the run's journal (`lgsrr.spool`), and a thread sends
it (`lgsrr.sender`) through `lgsrr.tracking`. The trade-off: what MLflow shows lags behind by a moment, and MLflow's id
of a run is not known before its start has arrived; until then a run goes by its `run_key`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from lgsrr.blotting import without_keys
from lgsrr.destination import TrackingConfig, run_url, spool_folder, ui_hint, without_password
from lgsrr.provenance import pinned_requirements, standard_tags
from lgsrr.records import SPLITS, Dataset
from lgsrr.sender import Sender, Sink
from lgsrr.spool import (
    Artifact,
    DataRef,
    Event,
    Journal,
    Metrics,
    ModelRegistered,
    ModelSaved,
    RunFinished,
    RunStarted,
    Status,
    Tags,
    check_run_key,
    decode,
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """How far a run's record had come when its tracker was closed."""

    pending: int
    """Events that are still in the journal; the next command sends them."""
    refused: int
    """Events that the server will never take; they are kept beside the journal with the reason."""
    run_id: str | None
    """MLflow's id; None where the server has not been reached."""
    run_url: str | None
    where: str
    """One line for a person: where the run is, or why it is not there yet."""


def describe(data: Dataset) -> DataRef:
    """A dataset as a run records it: its digest, its columns and how many utterances each split has."""
    profile = {f"{name} utterances": len(data.split(name)) for name in SPLITS}
    profile |= {"labels": len(data.labels), "aspects": len(data.aspects)}
    columns = ["id", "text", "split", "label", *(aspect.name for aspect in data.aspects)]
    schema = dict.fromkeys(columns, "string")
    return DataRef(name=data.name, digest=data.digest, source=without_keys(data.source), schema=schema, profile=profile)


class Tracker:
    """Records one run. The same `run_key` continues the same run, whatever became of the process that began it."""

    def __init__(
        self,
        runs_dir: Path,
        config: TrackingConfig,
        run_key: str,
        *,
        sink: Sink | None = None,
        sender: Sender | None = None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """Start the thread that sends, unless a `sender` that follows the spool is there for many runs.

        `sink` and `now_ms` (milliseconds since 1970) are replaced in tests.
        """
        self._config = config
        self._destination = config.destination(runs_dir)
        self._journal = Journal(spool_folder(runs_dir), run_key)
        self._now_ms = now_ms
        self._written = self._metrics_on_disk()
        self._sink = sink or (sender.sink if sender else mlflow_sink(self._destination))
        self._shared = sender is not None
        self._sender = sender or Sender(spool_folder(runs_dir), self._sink, run_key=run_key)
        if not self._shared:
            self._sender.start()

    def start(
        self,
        *,
        dataset: str,
        name: str,
        params: Mapping[str, object] | None = None,
        tags: Mapping[str, str] | None = None,
        data: DataRef | None = None,
        parent_run_id: str | None = None,
        parent_run_key: str | None = None,
    ) -> None:
        """The run begins, or goes on. Commit, versions, user and host are added to `tags`.

        A parent is named by MLflow's id, or by its own `run_key` where it may not have reached the server yet.
        """
        known = {"dataset": dataset} | ({"data.digest": data.digest, "data.source": data.source} if data else {})
        event = RunStarted(
            run_key=self._journal.run_key,
            destination=without_password(self._destination),
            experiment=self._config.experiment or f"lgsrr-{dataset}",
            name=name,
            parent_run_id=parent_run_id,
            parent_run_key=None if parent_run_key is None else check_run_key(parent_run_key),
            params={key: without_keys(str(value)) for key, value in (params or {}).items()},
            tags=_blotted(standard_tags() | known | dict(tags or {})),
            data=data,
            time_ms=self._now_ms(),
        )
        self._append(event)

    def metrics(self, values: Mapping[str, float], step: int, *, time_ms: int | None = None) -> None:
        """The numbers of one step, such as an epoch, sent in one call.

        A resumed run may repeat all its epochs: what its journal holds already (by step and name) is skipped. A run
        that had ended (failed, say) has no journal any more; there the same `time_ms` as the first time keeps MLflow
        from showing it twice.
        """
        new = {key: float(value) for key, value in values.items() if (step, key) not in self._written}
        if new:
            self._append(Metrics(values=new, step=step, time_ms=self._now_ms() if time_ms is None else time_ms))
            self._written.update((step, key) for key in new)

    def tags(self, values: Mapping[str, str]) -> None:
        """Tags that became known after the start; the last value wins."""
        self._append(Tags(values=_blotted(values)))

    def artifact(self, path: Path, artifact_path: str | None = None) -> None:
        """Keep a file or folder with the run, in the folder `artifact_path` of its artifacts.

        It is read when it is sent: leave it where it is, in the run's own folder.
        """
        self._append(Artifact(path=str(path.resolve()), artifact_path=artifact_path))

    def model(self, folder: Path, *, loader_module: str = "lgsrr.serving") -> None:
        """Keep a model folder as a pyfunc that `loader_module` loads; it is read when it is sent.

        The folder may hold `signature.json` and `input_example.json` (see `lgsrr.logged_models`).
        """
        requirements = pinned_requirements()
        self._append(ModelSaved(folder=str(folder.resolve()), loader_module=loader_module, requirements=requirements))

    def register(
        self, name: str, *, alias: str | None = None, tags: Mapping[str, str] | None = None, description: str = ""
    ) -> None:
        """Make the model of this run (`model` comes first) a version of the registered model `name`, with `alias`.

        Told a second time, it is the same version, whose tags, description and alias are set anew.
        """
        known = {key: str(value) for key, value in (tags or {}).items()}
        self._append(ModelRegistered(name=name, alias=alias, tags=known, description=description))

    def finish(self, status: Status = "FINISHED") -> None:
        """The run ends; its journal is deleted once all of it has arrived."""
        self._append(RunFinished(status=status, time_ms=self._now_ms()))

    def close(self, timeout_s: float = 10.0) -> Delivery:
        """Wait for the server, at most `timeout_s` seconds, and say how far the record has come.

        A shared sender is waited for as far as this run goes, and goes on sending.
        """
        pending = self._sender.flush(timeout_s, self._journal.run_key)
        if not self._shared:
            self._sender.stop()
        run = self._sink.find(self._journal.run_key)
        url = None if run is None else run_url(self._destination, run)
        refused = self._journal.refused()
        return Delivery(
            pending=pending,
            refused=refused,
            run_id=None if run is None else run.run_id,
            run_url=url,
            where=self._where(url, pending, refused),
        )

    def _where(self, url: str | None, pending: int, refused: int) -> str:
        lost = f"; {refused} records were not taken, see {self._journal.refused_path}" if refused else ""
        if pending == 0:
            return (url or ui_hint(self._destination)) + lost
        reason = f" ({self._sender.trouble})" if self._sender.trouble else ""
        server = without_password(self._destination)
        return f"{pending} records of this run have not reached {server}{reason}; the next command sends them{lost}"

    def _append(self, event: Event) -> None:
        self._journal.append(event)
        self._sender.notify(self._journal.run_key)

    def _metrics_on_disk(self) -> set[tuple[int, str]]:
        written: set[tuple[int, str]] = set()
        for line in self._journal.lines():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                event = decode(line.raw)
                if isinstance(event, Metrics):
                    written.update((event.step, key) for key in event.values)
        return written


def _blotted(values: Mapping[str, str]) -> dict[str, str]:
    return {key: without_keys(value) for key, value in values.items()}


def mlflow_sink(destination: str) -> Sink:
    """The sink that MLflow stands behind; it imports mlflow when it delivers something."""
    from lgsrr.tracking import MlflowSink

    return MlflowSink(destination)
