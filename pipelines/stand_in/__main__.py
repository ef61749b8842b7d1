"""Run the stand-in until it is interrupted. The first line on stdout ends with its base URL."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
import sys
from pathlib import Path

from lgsrr import cli
from lgsrr.errors import ConfigError

from .faults import Faults
from .limits import ServerLimits
from .server import StandIn


@dataclasses.dataclass(frozen=True, kw_only=True)
class StandInConfig:
    """What the server does."""

    port: int = 0
    """Port on 127.0.0.1; 0 takes a free one and says which."""
    faults: Path | None = None
    """JSON file of the ways in which to fail."""
    rpm: int | None = None
    """Requests per minute that are let in; the rest gets 429."""
    tpm: int | None = None
    """Tokens per minute that are let in."""
    window_s: float = 60.0
    """Seconds of the window to which the limits apply."""
    latency_s: float = 0.0
    """Seconds until each answer."""
    journal: Path | None = None
    """File that gets a line for every answer that a real server would charge for; it outlives a kill."""
    until_stdin_ends: bool = False
    """End when stdin does, as it does when the process that started this one is gone."""


def main(config: StandInConfig) -> int:
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_run(config))
    return 0


async def _run(config: StandInConfig) -> None:
    server = StandIn(
        faults=Faults.from_file(config.faults) if config.faults else Faults(),
        limits=ServerLimits(rpm=config.rpm, tpm=config.tpm, window_s=config.window_s),
        latency_s=config.latency_s,
        journal=config.journal,
    )
    try:
        runner = await server.start(config.port)
    except OSError as error:
        raise ConfigError(
            f"port {config.port} on 127.0.0.1 cannot be had: {os.strerror(error.errno or 0)}; name another --port, or "
            "0 for a free one"
        ) from None
    print(f"stand-in listens on {server.base_url}", flush=True)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    if config.until_stdin_ends:
        loop.add_reader(sys.stdin, _end_with_stdin, ended)
    try:
        await ended.wait()
    finally:
        await runner.cleanup()


def _end_with_stdin(ended: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        ended.set()


if __name__ == "__main__":
    cli.run(
        main,
        StandInConfig,
        prog="python -m pipelines.stand_in",
        description="A small OpenAI-compatible server that answers by rules, for tests, benchmarks and the demo.",
        example="python -m pipelines.stand_in --port 8000 --rpm 500",
    )
