"""The stand-in in a process of its own, so that its work does not count as the work of who calls it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lgsrr.errors import ConfigError

from .faults import Faults
from .limits import ServerLimits


@dataclasses.dataclass(frozen=True, slots=True)
class StandInProcess:
    """A server that runs elsewhere."""

    base_url: str

    def seen(self, *, bodies: bool = True) -> dict[str, Any]:
        """What it has seen so far, as `Seen.to_json` says it."""
        url = f"{self.base_url.removesuffix('/v1')}/_seen?bodies={int(bodies)}"
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(url, timeout=30) as response:
            return dict(json.load(response))


@contextlib.contextmanager
def serve(
    *, faults: Faults | None = None, limits: ServerLimits | None = None, latency_s: float = 0.0, port: int = 0
) -> Iterator[StandInProcess]:
    """A server for as long as the block lasts; it also ends when this process does, however that ends."""
    limits = limits or ServerLimits()
    command = [sys.executable, "-m", "pipelines.stand_in", "--port", str(port), "--until-stdin-ends"]
    command += ["--latency-s", str(latency_s), "--window-s", str(limits.window_s)]
    command += [
        word for flag, limit in (("--rpm", limits.rpm), ("--tpm", limits.tpm)) if limit for word in (flag, str(limit))
    ]
    with tempfile.TemporaryDirectory() as folder:
        if faults is not None:
            file = Path(folder) / "faults.json"
            file.write_text(json.dumps(faults.to_json()), encoding="utf-8")
            command += ["--faults", str(file)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        with process:
            try:
                assert process.stdout is not None
                said = process.stdout.readline().split()
                if not said:  # it has said why on stderr
                    raise ConfigError(f"the stand-in for a language model did not start: {' '.join(command)}")
                yield StandInProcess(said[-1])
            finally:
                process.kill()
