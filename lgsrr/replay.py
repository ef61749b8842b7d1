"""What earlier runs left behind on its way to the tracking server, and the command that sends it.

Any command may start a `Replay` when it begins and forget it: it works in the background, costs nothing where nothing
was left (then mlflow is not even imported), and what it does not get out stays where it is. Each run goes to the
destination that it was recorded for, whatever is configured now; so no run is split between two servers.
"""

from __future__ import annotations

import collections
import dataclasses
from pathlib import Path

from lgsrr.destination import TrackingConfig, spool_folder, ui_hint
from lgsrr.sender import Sender, Sink, destination_of
from lgsrr.spool import journals
from lgsrr.tracker import mlflow_sink


class Replay:
    """What earlier runs left behind on its way to the server, in the background."""

    def __init__(self, runs_dir: Path, config: TrackingConfig, *, skip: tuple[str, ...] = (), sink: Sink | None = None):
        """Begin at once; runs that another process is sending, and those in `skip`, are left to it."""
        self._sender = Sender(spool_folder(runs_dir), sink or mlflow_sink(config.destination(runs_dir)), skip=skip)
        self._sender.start()

    @property
    def sent(self) -> collections.Counter[str]:
        """How many events have been sent, by run key."""
        return self._sender.delivered

    @property
    def trouble(self) -> str | None:
        """Why the last try failed; None where it did not."""
        return self._sender.trouble

    def close(self, timeout_s: float = 0.0) -> int:
        """Wait until everything is out, at most `timeout_s` seconds, and stop; how many events are still pending."""
        pending = self._sender.flush(timeout_s)
        self._sender.stop()
        return pending


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReplayCommand:
    """What `python -m lgsrr.tracking` takes."""

    runs: Path = Path("runs")
    """Folder of the runs, as it was given to training."""
    uri: str | None = None
    """Tracking server or database, as it was given to training; default: $MLFLOW_TRACKING_URI, then RUNS/mlflow.db."""
    timeout_s: float = 60.0
    """Seconds to wait for a server that is away."""


def replay_command(command: ReplayCommand) -> int:
    """Send what earlier runs left, say what became of each and how to look at it; 1 where something is still here."""
    spool, config = spool_folder(command.runs), TrackingConfig(uri=command.uri)
    destinations = {j.run_key: destination_of(j) for j in journals(spool) if j.pending()}
    replay = Replay(command.runs, config)
    pending = replay.close(command.timeout_s)
    left = {journal.run_key: journal.pending() for journal in journals(spool)}
    width = max(map(len, destinations), default=0)
    for run_key, destination in destinations.items():
        print(
            f"{run_key:<{width}}  {replay.sent[run_key]:>5} sent  {left.get(run_key, 0):>5} pending  to {destination}"
        )
    if not destinations:
        print(f"nothing was left to send in {spool}")
    if pending:
        reason = replay.trouble or f"{command.timeout_s:g} s were too short, or another process is sending it"
        print(f"{pending} records could not be sent: {reason}")
        print(f"they stay in {spool}; the next command tries again; delete a run's files there to give it up")
    for destination in sorted({*destinations.values()} or {config.destination(command.runs)}):
        print(f"look at it: {ui_hint(destination)}")
    return 1 if pending else 0
