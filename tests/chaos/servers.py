"""The language model's server in a process that can be hung, killed and started again, and the way to it, which can be
cut. What the server has charged for it writes to a file at once, so that the record outlives it."""

from __future__ import annotations

import contextlib
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

from tests.tiny import ROOT

LATENCY_S = 0.25
"""Of an answer: long enough that calls are in flight whenever something happens."""


class LlmServer:
    """The stand-in, on the same port however often it is started."""

    def __init__(self, folder: Path) -> None:
        self.journal = folder / "charged.txt"
        self.port = 0
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it where it does not run, and wait until it listens."""
        if self._process is not None:
            return
        line = [sys.executable, "-m", "pipelines.stand_in", "--port", str(self.port), "--latency-s", str(LATENCY_S)]
        line += ["--journal", str(self.journal), "--until-stdin-ends"]
        self._process = subprocess.Popen(line, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        self.port = int(said.rpartition(":")[2].partition("/")[0])

    def pause(self) -> None:
        """Let it neither answer nor hang up."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Go on where `pause` came."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill it, as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def charged(self, since: int = 0) -> list[str]:
        """Every answer charged for since that many had been, by the fingerprint of what was asked."""
        with contextlib.suppress(FileNotFoundError):
            return self.journal.read_text(encoding="utf-8").splitlines()[since:]
        return []


def paid_twice(charged: list[str]) -> int:
    """Answers that were charged for although the same had been before."""
    return sum(count - 1 for count in Counter(charged).values())


class Way:
    """A TCP proxy: the network between those who ask and the server."""

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self.port = 0
        self._ends: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._flows = threading.Event()
        self._listener: socket.socket | None = None
        self.mend()

    @property
    def base_url(self) -> str:
        """Where the server is to be asked."""
        return f"http://127.0.0.1:{self.port}/v1"

    def cut(self) -> None:
        """Reset every connection, and refuse those that are tried from now on."""
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)  # to close it alone would leave who waits in accept
            self._listener.close()
            self._listener = None
        with self._lock:
            ends, self._ends = self._ends, set()
        for end in ends:
            _reset(end)

    def hold(self) -> None:
        """Let nothing through, and tell nobody."""
        self._flows.clear()

    def mend(self) -> None:
        """As it was."""
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self.port), backlog=256)
            self.port = int(self._listener.getsockname()[1])
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True, name="way").start()
        self._flows.set()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                near = listener.accept()[0]
                try:
                    far = socket.create_connection(("127.0.0.1", self._to_port))
                except OSError:  # the server is away
                    _reset(near)
                    continue
                with self._lock:
                    self._ends |= {near, far}
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=(source, target), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while content := source.recv(65536):
                self._flows.wait()
                target.sendall(content)
        with self._lock:
            self._ends -= {source, target}
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def _reset(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.shutdown(socket.SHUT_RDWR)
    end.close()
