"""Extraction, training and search on a cluster of several nodes that share nothing but a store and an encoder.

A head without CPUs, on which the drivers run, and two nodes of two CPUs, each with a cache, a key and a disk of its
own: the driver's folders are empty there. The store is moto's on loopback, or a real one, by the environment:
LGSRR_TEST_S3=s3://bucket/prefix, with credentials where AWS's own tools look for them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lgsrr import storage
from lgsrr.catalog import load_dataset
from lgsrr.errors import ConfigError, TrainingError
from lgsrr.extracted import DESCRIPTIONS_FOLDER, RANKINGS_FOLDER
from lgsrr.saved_model import read_card
from lgsrr.spool import ModelSaved
from lgsrr.train import train
from pipelines.calls import ExtractionError
from pipelines.settings import ExtractConfig
from pipelines.stand_in.limits import ServerLimits
from pipelines.stand_in.server import StandIn, serve
from tests.conftest import tracked_in_memory
from tests.extraction_runs import (
    assert_nothing_twice,
    charge,
    ids_of,
    names_of,
    run,
    settings,
    write_clips,
    write_table,
)
from tests.memory_sink import MemorySink
from tests.nodes import NODE_CPUS, Nodes, can_hide, nodes
from tests.s3 import moto, s3_at
from tests.search_runs import search_config, searched, table
from tests.tiny import numbers, tiny_config, without_dropout

pytestmark = pytest.mark.slow
COUNTS: dict[Any, int] = {"train": 30, "dev": 5, "test": 5}
NAMES = names_of(COUNTS)
AT_ONCE, RPM = 6, 240


@dataclasses.dataclass(frozen=True, kw_only=True)
class Site:
    """What a test works with."""

    nodes: Nodes
    store: str
    """A prefix of the store, this module's own."""
    mine: Path
    """A folder that the nodes do not see."""
    caches: tuple[Path, ...]
    """$LGSRR_CACHE of each node."""


@contextlib.contextmanager
def a_store() -> Iterator[str]:
    """A prefix of a store, and the environment that leads to it, which nodes started in the block have too."""
    if real := os.environ.get("LGSRR_TEST_S3"):
        prefix = storage.join(real, uuid.uuid4().hex)
        yield prefix
        storage.remove_folder(prefix)
        return
    with moto() as port, s3_at(f"http://127.0.0.1:{port}"):
        files, _ = storage._remote("s3://nodes")
        files.mkdir("nodes")
        yield "s3://nodes"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    import ray

    mine, caches = tmp_path_factory.mktemp("driver"), [tmp_path_factory.mktemp(f"node{n}") for n in range(2)]
    hidden = [mine] if can_hide() else []
    with pytest.MonkeyPatch.context() as patched, a_store() as store, nodes() as cluster:
        patched.setenv("LGSRR_CACHE", str(mine / "cache"))
        for number, cache in enumerate(caches):
            cluster.add(env={"LGSRR_CACHE": str(cache), "OPENAI_API_KEY": f"key-of-node-{number}"}, hidden=hidden)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        yield Site(nodes=cluster, store=store, mine=mine, caches=tuple(caches))
        ray.shutdown()


@pytest.fixture(scope="module")
def server() -> Iterator[StandIn]:
    with serve(latency_s=0.1, limits=ServerLimits(rpm=100_000)) as running:
        yield running


needs_own_disks = pytest.mark.skipif(not can_hide(), reason="a node gets no disk of its own here: mounting takes root")


# ---- extraction, training, search, each on what the one before left in the store -----------------------------------


@pytest.fixture(scope="module")
def extracted(site: Site, server: StandIn) -> ExtractConfig:
    """Clips of the store described and ranked on both nodes: first with half of the dollars, then to the end."""
    clips = write_clips(site.mine / "clips", list(NAMES))
    for path in clips.iterdir():
        storage.write_bytes(storage.join(site.store, "clips", path.name), path.read_bytes())
    config = settings(
        write_table(site.mine / "table.jsonl", COUNTS), storage.join(site.store, "out"), server.base_url,
        videos=storage.join(site.store, "clips"), aspects="A,E,I", callers=4, decoders=2, engines=2,
        concurrency=AT_ONCE, rpm=RPM, budget_usd=BUDGET_USD, runs=str(site.mine / "runs"),
    )  # fmt: skip
    with tracked_in_memory():
        with pytest.raises(ExtractionError, match=r"rank ended early: .*budget"):
            run(config)
        spent = charge(server.seen.bodies, server.seen.paid_by_body)
        assert 0.5 * BUDGET_USD < spent <= BUDGET_USD, "one budget of dollars, whatever the number of nodes"
        config = dataclasses.replace(config, budget_usd=100.0)
        run(config)
    return config


BUDGET_USD = 3.0


def test_two_nodes_extract_from_a_store_into_a_store_and_pay_for_nothing_twice(
    extracted: ExtractConfig, server: StandIn
) -> None:
    assert ids_of(extracted.out, DESCRIPTIONS_FOLDER) == set(NAMES)
    assert len(ids_of(extracted.out, RANKINGS_FOLDER)) == COUNTS["train"] == server.seen.paid
    assert_nothing_twice(extracted.out)
    assert len(load_dataset("mine", extracted.out).utterances) == sum(COUNTS.values())


def test_each_node_asks_with_the_key_of_its_own_environment(extracted: ExtractConfig, server: StandIn) -> None:
    assert server.seen.keys == {"key-of-node-0", "key-of-node-1"}


def test_the_limits_on_calls_at_once_and_on_requests_a_minute_hold_over_all_nodes(
    extracted: ExtractConfig, server: StandIn
) -> None:
    assert server.seen.most_at_once <= AT_ONCE
    admitted = server.seen.admitted_at
    for first, last in zip(admitted, admitted[12:], strict=False):
        # 12 at an even pace take 3 s; half a second's worth may go at once, and each may be late or early by 1.5 s.
        assert last - first > 12 * 60 / RPM - 0.5 - 1.5


@pytest.fixture
def sink() -> Iterator[MemorySink]:
    with tracked_in_memory() as memory:
        yield memory


def test_two_workers_on_two_nodes_train_as_one_does_with_checkpoints_in_the_store(
    site: Site, extracted: ExtractConfig, tiny_bert: Path, sink: MemorySink
) -> None:
    config = without_dropout(
        tiny_config(
            tiny_bert, site.mine / "runs", dataset="mine", data=extracted.out, limit=None, trainable_layers=1,
            cpus_per_worker=NODE_CPUS, storage=storage.join(site.store, "checkpoints"),
        )
    )  # fmt: skip
    both = train(dataclasses.replace(config, workers=2), Console(file=io.StringIO()))
    one = train(dataclasses.replace(config, runs=str(site.mine / "alone"), storage=storage.join(site.store, "alone")))
    for ours, theirs in zip(numbers(both.history), numbers(one.history), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-5)
    assert both.scores == pytest.approx(one.scores, rel=1e-4, abs=1e-5)
    for cache in site.caches:
        assert list(cache.glob("frozen/*.npy")), f"{cache}: each node keeps what lies under the trained layers"


def test_a_search_spreads_its_seeds_over_nodes_and_brings_the_winner_home(
    site: Site, extracted: ExtractConfig, tiny_bert: Path, sink: MemorySink
) -> None:
    config = search_config(
        tiny_bert, site.mine / "searched", dataset="mine", data=extracted.out, limit=None, trainable_layers=1,
        trials=4, seeds=1, epochs=2, patience=2, cpus_per_worker=NODE_CPUS, at_once=2,
        storage=storage.join(site.store, "searched"),
    )  # fmt: skip
    with watching(site.nodes, "ray::ImplicitFunc") as seen:
        answer, _ = searched(config)
    assert len(seen) == 2, "a node holds one seed at a time, and two train at once"
    rows = table(config)
    assert {row["state"] for row in rows} <= {"winner", "finished", "stopped"}
    assert rows[0]["id"] == answer["winner"]
    (saved,) = [event for _, event in sink.events if isinstance(event, ModelSaved)]
    assert read_card(Path(saved.folder)).scores["test_f1"] >= 0


@contextlib.contextmanager
def watching(cluster: Nodes, title: str) -> Iterator[set[str]]:
    """Ids of the nodes on which a process of that title was seen during the block."""
    found: set[str] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            found.update(n.node_id for n in cluster.workers if any(title in p.title() for p in cluster.processes(n)))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    yield found
    done.set()
    thread.join()


# ---- folders that are the driver's alone ---------------------------------------------------------------------------


@needs_own_disks
def test_an_output_that_nodes_do_not_see_ends_the_job_before_anything_is_paid(
    site: Site, server: StandIn, sink: MemorySink
) -> None:
    table = write_table(site.mine / "described.jsonl", {"train": 4}, described=True)
    calls = server.seen.calls
    with pytest.raises(ExtractionError, match=r"--out .*/out: the node .* does not see .*s3://"):
        run(settings(table, site.mine / "out", server.base_url, stages="rank", runs=str(site.mine / "runs")))
    assert server.seen.calls == calls


@needs_own_disks
def test_clips_that_nodes_do_not_see_end_the_job_and_are_not_set_aside(
    site: Site, extracted: ExtractConfig, sink: MemorySink
) -> None:
    config = dataclasses.replace(
        extracted, out=storage.join(site.store, "elsewhere"), videos=str(site.mine / "clips"), stages="describe"
    )
    with pytest.raises(ExtractionError, match=r"/clips: the node .* does not see .*--videos"):
        run(config)
    assert ids_of(config.out, "quarantine") == set()


@needs_own_disks
def test_checkpoints_that_nodes_do_not_see_end_training_at_once_with_the_flag_to_give(
    site: Site, tiny_bert: Path, sink: MemorySink
) -> None:
    started = time.monotonic()
    with pytest.raises(TrainingError, match=r"--storage .*/checkpoints/.*: the node .* does not see .*s3://"):
        train(tiny_config(tiny_bert, site.mine / "runs", workers=2, cpus_per_worker=NODE_CPUS, max_failures=3))
    assert time.monotonic() - started < 120


@needs_own_disks
def test_checkpoints_that_nodes_do_not_see_end_a_search_which_another_command_continues(
    site: Site, tiny_bert: Path, sink: MemorySink
) -> None:
    config = search_config(tiny_bert, site.mine / "hidden", trials=2, seeds=1, epochs=1, patience=1)
    with pytest.raises(ConfigError, match=r"--storage .*: the node .* does not see .*s3://"):
        searched(config)
    assert not list((site.mine / "hidden").glob("search/*/results/*")), "no seed was begun, so none has a result"
