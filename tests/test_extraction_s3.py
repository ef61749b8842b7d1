"""Extraction from a store into a store: an S3 of moto's on loopback, which throttles and hangs up where told to."""

from __future__ import annotations

import http.client
import itertools
import os
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lgsrr import storage
from lgsrr.catalog import load_dataset
from lgsrr.errors import DataError
from lgsrr.extracted import DESCRIPTIONS_FOLDER, RANKINGS_FOLDER
from pipelines.calls import ExtractionError
from pipelines.lease import leased
from pipelines.output import Output
from pipelines.settings import ExtractConfig
from pipelines.stand_in.server import StandIn, serve
from tests.conftest import tracked_in_memory
from tests.extraction_runs import (
    assert_nothing_twice,
    content,
    ids_of,
    names_of,
    run,
    settings,
    write_clips,
    write_table,
)
from tests.s3 import moto, s3_at

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("store", "ray_cluster")]
COUNTS: dict[Any, int] = {"train": 5, "dev": 1, "test": 1}
BUCKET = "s3://clips"
SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


class Front(ThreadingHTTPServer):
    """What stands before the store: passes requests on, and turns away every so many-th of them."""

    def __init__(self, behind: int) -> None:
        super().__init__(("127.0.0.1", 0), _Passing)
        self.behind = behind
        self.every: int | None = None
        """Each so many-th request is told to slow down or cut, in turn; None: none is."""
        self.numbers = itertools.count(1)
        self.failed: Counter[str] = Counter()


class _Passing(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Front

    def _pass(self) -> None:
        body = self._body()
        front, number = self.server, next(self.server.numbers)
        if front.every and number % front.every == 0:
            kind = ("throttled", "cut")[number // front.every % 2]
            front.failed[kind] += 1
            if kind == "cut":
                self.close_connection = True
                return
            self._reply(503, {}, SLOW_DOWN)
            return
        behind = http.client.HTTPConnection("127.0.0.1", front.behind, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() != "transfer-encoding"}
        behind.request(self.command, self.path, body, {**headers, "Content-Length": str(len(body))})
        answer = behind.getresponse()
        self._reply(answer.status, dict(answer.getheaders()), answer.read())
        behind.close()

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        length = headers.get("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is said."""


@pytest.fixture(scope="module")
def store() -> Iterator[Front]:
    """The store, and an environment that leads to it: set before Ray starts, so that its workers have it too."""
    with moto() as port:
        front = Front(port)
        threading.Thread(target=front.serve_forever, daemon=True).start()
        with s3_at(f"http://127.0.0.1:{front.server_address[1]}"), tracked_in_memory():
            files, _ = storage._remote(BUCKET)
            files.mkdir("clips")
            yield front
        front.shutdown()


@pytest.fixture(scope="module")
def clips(store: Front, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips on a disk, and the same ones in the store."""
    folder = write_clips(tmp_path_factory.mktemp("clips"), list(names_of(COUNTS)))
    for path in folder.iterdir():
        storage.write_bytes(f"{BUCKET}/videos/deep/{path.name}", path.read_bytes())
    return folder


@pytest.fixture
def server() -> Iterator[StandIn]:
    with serve() as running:
        yield running


def from_store(tmp_path: Path, server: StandIn, out: str, **changes: Any) -> ExtractConfig:
    table = write_table(tmp_path / "table.jsonl", COUNTS)
    given = {"videos": f"{BUCKET}/videos", "aspects": "A,E,I", **changes}
    return settings(table, out, server.base_url, **given)


def test_a_store_gets_what_a_disk_gets_and_the_catalog_reads_it(clips: Path, tmp_path: Path, server: StandIn) -> None:
    config = from_store(tmp_path, server, f"{BUCKET}/out")
    run(config)
    run(from_store(tmp_path, server, str(tmp_path / "out"), videos=str(clips)))
    assert content(config.out) == content(tmp_path / "out")
    assert ids_of(config.out, DESCRIPTIONS_FOLDER) == set(names_of(COUNTS))
    assert len(ids_of(config.out, RANKINGS_FOLDER)) == COUNTS["train"]
    assert len(load_dataset("mine", config.out).utterances) == sum(COUNTS.values())
    calls = server.seen.calls
    assert run(config)[0].nothing_to_do
    assert server.seen.calls == calls


def test_a_store_that_throttles_and_hangs_up_is_asked_again(
    store: Front, clips: Path, tmp_path: Path, server: StandIn
) -> None:
    config = from_store(tmp_path, server, f"{BUCKET}/shaky")
    store.every = 6
    try:
        run(config)
    finally:
        store.every = None
    assert min(store.failed["throttled"], store.failed["cut"]) >= 3
    assert server.seen.paid == COUNTS["train"]
    assert ids_of(config.out, DESCRIPTIONS_FOLDER) == set(names_of(COUNTS))
    assert len(ids_of(config.out, RANKINGS_FOLDER)) == COUNTS["train"]
    assert_nothing_twice(config.out)
    assert (Output(config.out).manifest() or {})["complete"]


def test_one_extraction_at_a_time_writes_to_a_prefix(clips: Path, tmp_path: Path, server: StandIn) -> None:
    config = from_store(tmp_path, server, f"{BUCKET}/held")
    with leased(config.out), pytest.raises(ExtractionError, match=rf"process {os.getpid()} on .* writes to this"):
        run(config)
    assert server.seen.calls == 0
    with leased(config.out):
        pass


def test_a_bucket_that_does_not_exist_is_one_message(tmp_path: Path, server: StandIn) -> None:
    with pytest.raises(DataError, match=r"s3://no-such-bucket"):
        run(from_store(tmp_path, server, "s3://no-such-bucket/out", videos=None))
    assert server.seen.calls == 0
