"""A real server of the tests' own, by mlflow/serve.sh, which is killed and started again; and one that is silent."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.tiny import ROOT


class MlflowServer:
    """`mlflow/serve.sh` on a free loopback port, its database and artifacts under `folder`. Not started yet.

    Args:
        settings: of serve.sh, which come on top.
    """

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self._settings = settings
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, timeout_s: float = 90.0) -> None:
        """Start it where it does not run, and wait until it answers."""
        if self._process is not None:
            return
        environment = {
            **os.environ,
            "PYTHON": sys.executable,
            "LGSRR_MLFLOW_PORT": str(self.port),
            "LGSRR_MLFLOW_STATE": str(self.folder),
            "LGSRR_MLFLOW_DATABASE": f"sqlite:///{self.folder / 'server.db'}",
            **self._settings,
        }
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [ROOT / "mlflow" / "serve.sh"], stdout=log, stderr=log, start_new_session=True, env=environment
            )
        self._wait_until_it_answers(time.monotonic() + timeout_s)

    def _wait_until_it_answers(self, deadline: float) -> None:
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=1):
                return
            time.sleep(0.1)
        raise TimeoutError(f"mlflow server does not answer; see {self.folder / 'server.log'}")

    @property
    def pid(self) -> int:
        """Of the process that all others of the server come from."""
        assert self._process is not None, "the server is not running"
        return self._process.pid

    def pause(self) -> None:
        """Let it neither answer nor hang up, as an overloaded machine does."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Go on where `pause` came."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """Kill it and its workers as a power cut would."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@contextlib.contextmanager
def hanging_server() -> Iterator[str]:
    """The address of a server that accepts every connection and never says a word."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=100)
    held: list[socket.socket] = []

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                held.append(listener.accept()[0])

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for connection in held:
            connection.close()
