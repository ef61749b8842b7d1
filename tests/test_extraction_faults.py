"""Extraction whose actors, driver, disk or person at the keyboard end it: the same command completes it.

Nothing is lost, nothing stands twice, what comes out is what an undisturbed run gives, and no more is paid for than
the rows and the calls that were in flight when something died. Drivers are real processes on one Ray cluster.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lgsrr.errors import LgsrrError
from lgsrr.extracted import DESCRIPTIONS_FOLDER, RANKINGS_FOLDER
from lgsrr.train import train
from pipelines import describing_stage
from pipelines.answers import AnswerStore
from pipelines.engines import EngineConfig, Scripted
from pipelines.output import Output
from pipelines.settings import ExtractConfig
from pipelines.stand_in.server import StandIn, serve
from tests.extraction_runs import (
    assert_nothing_twice,
    content,
    flags,
    ids_of,
    names_of,
    run,
    settings,
    write_clips,
    write_table,
)
from tests.memory_sink import MemorySink
from tests.processes import Process, descendants, kill, wait_until
from tests.tiny import ROOT, tiny_config

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]
ROWS, AT_ONCE = 60, 8
RANKED = names_of({"train": ROWS})
CLIPS = names_of({"train": 12, "dev": 2, "test": 2})

_DIES = """
import sys
from pipelines import extract, extraction
from tests.chaos.points import arm

extraction.COMMIT_ROWS = 8
arm("extraction", sys.argv[1], int(sys.argv[2]))
sys.argv = ["pipelines/extract.py", *sys.argv[3:]]
extract.main()
"""
"""A driver that kills itself when it passes the named point for the nth time."""


@pytest.fixture
def server() -> Iterator[StandIn]:
    with serve(latency_s=0.05) as running:
        yield running


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("table") / "described.jsonl", {"train": ROWS}, described=True)


def ranking(table: Path, out: Path, server: StandIn) -> ExtractConfig:
    return settings(table, out, server.base_url, stages="rank", callers=2, concurrency=AT_ONCE)


@pytest.fixture(scope="module")
def undisturbed(ray_cluster: None, table: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """What ranking gives where nothing goes wrong."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    with serve() as server:
        run(ranking(table, out, server))
        assert server.seen.paid == ROWS
    return content(out)


def assert_whole(out: str, server: StandIn, undisturbed: dict[str, set[str]], *, lost: int = AT_ONCE) -> None:
    """Nothing lost, nothing twice, and at most `lost` calls paid for that another one had to repeat."""
    assert content(out) == undisturbed
    assert_nothing_twice(out)
    assert ROWS <= server.seen.paid <= ROWS + lost
    manifest = Output(out).manifest() or {}
    assert manifest["complete"]
    assert manifest["counts"]["rank"] == {"done": ROWS, "quarantined": 0}


# ---- actors --------------------------------------------------------------------------------------------------------


def actors(kind: str) -> list[Process]:
    """The Ray Data actors of this process's cluster that hold a class of that name."""
    return [p for p in descendants(os.getpid()) if p.title().startswith("ray::") and f"({kind})" in p.title()]


def kill_one(kind: str, when: Callable[[], bool]) -> tuple[threading.Thread, list[Process]]:
    """A thread that kills an actor at the right moment, and what it has killed."""
    killed: list[Process] = []

    def wait_and_kill() -> None:
        wait_until(lambda: bool(when() and actors(kind)), 120, f"an actor of {kind} at work")
        killed.extend(actors(kind)[:1])
        kill(killed)

    thread = threading.Thread(target=wait_and_kill)
    thread.start()
    return thread, killed


def test_a_killed_ranking_actor_costs_no_row_and_only_its_calls_in_flight(
    table: Path, tmp_path: Path, server: StandIn, undisturbed: dict[str, set[str]]
) -> None:
    config = ranking(table, tmp_path / "out", server)
    killer, killed = kill_one("RankRows", lambda: server.seen.paid >= 12)
    run(config)
    killer.join()
    assert killed
    assert_whole(config.out, server, undisturbed)


@pytest.mark.parametrize("kind", ["DescribeRows", "DecodeRows"])
def test_a_killed_decoder_or_engine_costs_no_row(
    kind: str, tmp_path: Path, server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = describing_stage.engine_config

    def slow(config: ExtractConfig) -> EngineConfig:
        return dataclasses.replace(plain(config), scripted=Scripted(seconds_per_clip=0.15))

    clips = write_clips(tmp_path / "clips", list(CLIPS))
    spoken = write_table(tmp_path / "table.jsonl", {"train": 12, "dev": 2, "test": 2})
    config = settings(spoken, tmp_path / "out", server.base_url, videos=str(clips), aspects="A,E", stages="describe")
    run(dataclasses.replace(config, out=str(tmp_path / "undisturbed")))
    monkeypatch.setattr(describing_stage, "engine_config", slow)
    killer, killed = kill_one(kind, lambda: len(AnswerStore(config.out).fingerprints()) >= 2)
    run(config)
    killer.join()
    assert killed
    assert content(config.out) == content(tmp_path / "undisturbed")
    assert_nothing_twice(config.out)
    assert ids_of(config.out, DESCRIPTIONS_FOLDER) == set(CLIPS)


# ---- the driver ----------------------------------------------------------------------------------------------------


def start(config: ExtractConfig, log: Path, *, dies: str = "", at: int = 0) -> subprocess.Popen[bytes]:
    """The command in a process group of its own, on this process's cluster."""
    import ray

    line = [sys.executable, *(["-c", _DIES, dies, str(at)] if dies else ["pipelines/extract.py"]), *flags(config)]
    environment = {**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    with log.open("wb") as stream:
        return subprocess.Popen(
            line, cwd=ROOT, env=environment, stdout=stream, stderr=stream, stdin=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("point", "at"),
    [("before a part", 2), ("after a part", 3), ("before the manifest", 1), ("while tidying", 1)],
)
def test_a_driver_killed_at_any_point_is_followed_by_the_same_command(
    point: str, at: int, table: Path, tmp_path: Path, server: StandIn, undisturbed: dict[str, set[str]]
) -> None:
    config, log = ranking(table, tmp_path / "out", server), tmp_path / "log"
    driver = start(config, log, dies=point, at=at)
    assert driver.wait(timeout=120) == -signal.SIGKILL, log.read_text()
    assert not (Output(config.out).manifest() or {}).get("complete")
    settled(server)
    run(config)
    assert_whole(config.out, server, undisturbed)
    calls = server.seen.calls
    assert run(config)[0].nothing_to_do
    assert server.seen.calls == calls


def settled(server: StandIn) -> None:
    """Wait until the actors of a driver that is gone are gone as well, and ask no more."""
    wait_until(lambda: not actors("RankRows"), 60, "Ray to end what its driver left")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_driver_that_is_asked_to_stop_drains_and_pays_for_nothing_twice(
    number: signal.Signals, table: Path, tmp_path: Path, server: StandIn, undisturbed: dict[str, set[str]]
) -> None:
    config, log = ranking(table, tmp_path / "out", server), tmp_path / "log"
    driver = start(config, log)
    wait_until(lambda: server.seen.paid >= 12 or driver.poll() is not None, 120, "some rankings")
    os.killpg(driver.pid, number)
    assert driver.wait(timeout=60) == 1, log.read_text()
    said = log.read_text()
    assert ("interrupted" if number == signal.SIGINT else "asked to stop") in said
    assert all(word in said for word in ("safe", "cost", "continue"))
    assert "Traceback" not in said
    paid = server.seen.paid
    assert 12 <= paid < ROWS
    assert len(ids_of(config.out, RANKINGS_FOLDER)) == paid, "every answer that was paid for is a row"
    run(config)
    assert_whole(config.out, server, undisturbed, lost=0)


# ---- the disk ------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of a megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_ends_the_job_before_much_is_paid_and_room_lets_it_go_on(
    table: Path, small_disk: Path, server: StandIn, undisturbed: dict[str, set[str]]
) -> None:
    config, ballast = ranking(table, small_disk / "out", server), small_disk / "ballast"
    ballast.write_bytes(bytes(850_000))
    with pytest.raises(LgsrrError, match=r"No space left on device.*Make room"):
        run(config)
    assert 0 < server.seen.paid < ROWS, "nobody goes on paying for answers that cannot be kept"
    ballast.unlink()
    run(config)
    assert_whole(config.out, server, undisturbed)


def test_an_output_that_may_only_be_read_is_named_before_anything_is_asked(
    table: Path, small_disk: Path, server: StandIn, undisturbed: dict[str, set[str]]
) -> None:
    config = ranking(table, small_disk / "out", server)
    with mounted_to_read(small_disk), pytest.raises(LgsrrError, match=r"disk/out.*cannot be written"):
        run(config)
    assert server.seen.calls == 0
    run(config)
    assert_whole(config.out, server, undisturbed)
    with mounted_to_read(small_disk), pytest.raises(LgsrrError, match=r"disk/out.*cannot be written"):
        run(config)


@contextlib.contextmanager
def mounted_to_read(folder: Path) -> Iterator[None]:
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)


# ---- the whole command ---------------------------------------------------------------------------------------------


def test_the_command_makes_data_that_training_reads_and_explain_starts_no_ray(
    tmp_path: Path, server: StandIn, tiny_bert: Path, sink: MemorySink
) -> None:
    counts = {"train": 12, "dev": 2, "test": 2}
    clips, spoken = write_clips(tmp_path / "clips", list(CLIPS)), write_table(tmp_path / "table.jsonl", counts)  # type: ignore[arg-type]
    config = settings(spoken, tmp_path / "out", server.base_url, videos=str(clips))
    log = tmp_path / "log"

    told = start(dataclasses.replace(config, explain=True), log)
    below: set[Process] = set()
    while told.poll() is None:
        below |= descendants(told.pid)
    assert told.returncode == 0, log.read_text()
    assert not [p.title() for p in below if "raylet" in p.title() or "gcs_server" in p.title()]
    assert "discover" in log.read_text()
    assert server.seen.calls == 0
    assert not Path(config.out).exists()

    assert start(config, log).wait(timeout=180) == 0, log.read_text()
    assert start(config, log).wait(timeout=60) == 0, log.read_text()
    assert "everything is done already; nothing was asked" in log.read_text()
    trained = train(
        dataclasses.replace(tiny_config(tiny_bert, tmp_path / "runs"), dataset="mine", data=config.out, k=3, epochs=1)
    )
    assert trained.scores
