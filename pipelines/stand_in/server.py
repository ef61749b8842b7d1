"""The stand-in over HTTP: OpenAI's paths, on a loopback port, in a thread of this process or as the whole process.

with serve(faults=faults(Fault(kind="server_error", first=1))) as server:
    client = OpenAiClient(Endpoint(base_url=server.base_url))
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from aiohttp import web

from pipelines.calls import Json

from .batches import Batches
from .faults import Fault, FaultPicker, Faults
from .limits import ServerLimits, SlidingWindow
from .replies import NAME, Reply, asked_tokens, error, reply
from .seen import Seen

_HANG_S = 3600.0


class StandIn:
    """One server: what it is told to do, and what it has seen."""

    def __init__(
        self,
        *,
        faults: Faults = Faults(),  # noqa: B008  (it is frozen)
        limits: ServerLimits | None = None,
        latency_s: float = 0.0,
        keep_bodies: bool = True,
        batch_looks: int = 1,
        journal: Path | None = None,
    ) -> None:
        self.seen = Seen(keep_bodies=keep_bodies, journal=journal)
        self.port = 0
        self._faults = FaultPicker(faults)
        self._window = SlidingWindow(limits) if limits else None
        self._latency_s = latency_s
        self.batches = Batches(self.seen, self._faults, looks=batch_looks)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def start(self, port: int = 0) -> web.AppRunner:
        """Listen; whoever calls cleans the runner up."""
        runner = web.AppRunner(self._application(), access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
        self.port = runner.addresses[0][1]
        return runner

    def _application(self) -> web.Application:
        application = web.Application(client_max_size=300_000_000)
        application.router.add_post("/v1/chat/completions", self._chat)
        application.router.add_get("/v1/models", self._models)
        application.router.add_post("/v1/files", self._upload)
        application.router.add_get("/v1/files/{id}/content", self._download)
        application.router.add_post("/v1/batches", self._create_batch)
        application.router.add_get("/v1/batches", self._list_batches)
        application.router.add_get("/v1/batches/{id}", self._look_at_batch)
        application.router.add_post("/v1/batches/{id}/cancel", self._cancel_batch)
        application.router.add_get("/_seen", self._show_seen)
        return application

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        try:
            body = json.loads(raw)
        except ValueError:
            return _sent(error(400, "invalid_request_error", None, "The body is no JSON."))
        number, arrivals, name = self.seen.arrived(body, key)
        outcome = "gone"
        try:
            fault = self._faults.pick(number=number, text=raw.decode(), arrivals=arrivals)
            headers = self._admitted(body)
            if isinstance(headers, Reply):
                outcome = "limited"
                return _sent(headers)
            answer = reply(body, fault, key=key)
            if answer.is_paid:
                self.seen.charged(name)
            outcome = fault.kind if fault else str(answer.status)
            if self._latency_s:
                await asyncio.sleep(self._latency_s)
            return await _delivered(request, answer, fault, headers)
        finally:
            self.seen.left(outcome)

    def _admitted(self, body: Json) -> dict[str, str] | Reply:
        """The headers that say what is left of the limits, or the error that they are used up."""
        if self._window is None:
            return {}
        verdict = self._window.admit(asked_tokens(body))
        if verdict.admitted:
            self.seen.admitted_at.append(self._window.now())
            return verdict.headers
        message = f"Rate limit reached. Try again in {verdict.wait_s:.3f}s."
        return error(429, "requests", "rate_limit_exceeded", message, headers=verdict.headers)

    async def _models(self, request: web.Request) -> web.Response:
        named = {"id": NAME, "object": "model", "created": 0, "owned_by": NAME}
        return web.json_response({"object": "list", "data": [named]})

    async def _upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        file = form["file"]
        if not isinstance(file, web.FileField):
            return _sent(error(400, "invalid_request_error", None, "There is no file in the form."))
        return web.json_response(self.batches.add_file(file.file.read(), file.filename))

    async def _download(self, request: web.Request) -> web.Response:
        content = self.batches.files.get(request.match_info["id"])
        return _missing(request) if content is None else web.Response(body=content)

    async def _create_batch(self, request: web.Request) -> web.Response:
        try:
            batch, fault = self.batches.create(await request.json())
        except KeyError:
            return _missing(request)
        if fault and fault.kind == "batch_cut":
            _cut(request)
        return web.json_response(batch)

    async def _list_batches(self, request: web.Request) -> web.Response:
        limit = int(request.query.get("limit", 20))
        return web.json_response(self.batches.page(after=request.query.get("after"), limit=limit))

    async def _look_at_batch(self, request: web.Request) -> web.Response:
        batch_id = request.match_info["id"]
        known = batch_id in self.batches.batches
        return web.json_response(self.batches.look(batch_id)) if known else _missing(request)

    async def _cancel_batch(self, request: web.Request) -> web.Response:
        batch_id = request.match_info["id"]
        known = batch_id in self.batches.batches
        return web.json_response(self.batches.cancel(batch_id)) if known else _missing(request)

    async def _show_seen(self, request: web.Request) -> web.Response:
        return web.json_response(self.seen.to_json(bodies=request.query.get("bodies") != "0"))


async def _delivered(
    request: web.Request, answer: Reply, fault: Fault | None, headers: dict[str, str]
) -> web.StreamResponse:
    """Send an answer, or do to the connection what the fault says."""
    if fault and fault.kind == "hang":
        await asyncio.sleep(_HANG_S)
    if fault and fault.kind == "cut_before":
        _cut(request)
    if fault and fault.kind == "cut_within":
        begun = web.StreamResponse(headers={"content-type": "application/json"})
        begun.content_length = len(answer.body)
        await begun.prepare(request)
        await begun.write(answer.body[: len(answer.body) // 2])
        _cut(request)
    return _sent(answer, headers)


def _cut(request: web.Request) -> NoReturn:
    """End the connection without another word."""
    if request.transport is not None:
        request.transport.close()
    raise asyncio.CancelledError


def _sent(answer: Reply, headers: dict[str, str] | None = None) -> web.Response:
    named = {**(headers or {}), **answer.headers}
    return web.Response(status=answer.status, body=answer.body, headers=named, content_type="application/json")


def _missing(request: web.Request) -> web.Response:
    return _sent(error(404, "invalid_request_error", None, f"There is no {request.path}."))


@contextlib.contextmanager
def serve(
    *,
    faults: Faults = Faults(),  # noqa: B008
    limits: ServerLimits | None = None,
    latency_s: float = 0.0,
    keep_bodies: bool = True,
    batch_looks: int = 1,
    port: int = 0,
) -> Iterator[StandIn]:
    """A server in a thread of this process, for as long as the block lasts."""
    server = StandIn(
        faults=faults, limits=limits, latency_s=latency_s, keep_bodies=keep_bodies, batch_looks=batch_looks
    )
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name=NAME, daemon=True)
    thread.start()
    runner = asyncio.run_coroutine_threadsafe(server.start(port), loop).result()
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
