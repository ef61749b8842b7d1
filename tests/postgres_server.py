"""A real PostgreSQL of the tests' own: made in a folder, on a free loopback port, gone with the block.

It comes from Debian's package `postgresql`, which need not be set up or running. PostgreSQL refuses to run as root, and
so runs as the user `postgres` of that package then.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PASSWORD = "of-the-tests-50%-safe"
"""With a letter that means something in an address and in an ini file."""


def programs() -> Path:
    """Folder of initdb and postgres; skips the test where there is none, or root cannot become somebody else."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -float(path.parent.name))
    beside = shutil.which("initdb")
    places += [Path(beside).parent] if beside else []
    found = next((place for place in places if (place / "initdb").is_file() and (place / "postgres").is_file()), None)
    if found is None:
        pytest.skip("needs PostgreSQL's server: apt-get install postgresql")
    if os.geteuid() == 0 and not (shutil.which("runuser") and _has_user("postgres")):
        pytest.skip("PostgreSQL refuses to run as root, and there is no user `postgres` or no runuser to become it")
    return found


def _has_user(name: str) -> bool:
    import pwd

    with contextlib.suppress(KeyError):
        return bool(pwd.getpwnam(name))
    return False


class Postgres:
    """A running server with one empty database `mlflow` of the user `mlflow`."""

    def __init__(self, bin_folder: Path, port: int) -> None:
        self.bin, self.port = bin_folder, port
        self.environment = {
            **os.environ, "PGHOST": "127.0.0.1", "PGPORT": str(port), "PGUSER": "mlflow", "PGPASSWORD": PASSWORD,
        }  # fmt: skip

    def uri(self, database: str = "mlflow") -> str:
        """The address as a person writes it, its password encoded."""
        return f"postgresql://mlflow:{PASSWORD.replace('%', '%25')}@127.0.0.1:{self.port}/{database}"

    def run(self, program: str, *arguments: str) -> str:
        """What one of PostgreSQL's programs prints."""
        command = [str(self.bin / program), *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextlib.contextmanager
def postgres_server() -> Iterator[Postgres]:
    """A server for the block."""
    bin_folder = programs()
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    folder = Path(tempfile.mkdtemp(prefix="lgsrr-pg-", dir="/tmp"))  # not pytest's: its folders are root's alone
    try:
        password = folder / "password"
        password.write_text(PASSWORD)
        if as_user:
            for path in (folder, password):
                shutil.chown(path, "postgres")
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = int(probe.getsockname()[1])
        make = [*as_user, str(bin_folder / "initdb"), "-D", str(folder / "data"), "-U", "mlflow", "-A", "scram-sha-256"]
        make += ["--pwfile", str(password), "--no-sync", "--encoding", "UTF8", "--no-locale"]
        subprocess.run(make, check=True, capture_output=True, cwd="/")
        serve = [*as_user, str(bin_folder / "postgres"), "-D", str(folder / "data"), "-p", str(port)]
        for setting in ("listen_addresses=127.0.0.1", f"unix_socket_directories={folder}", "fsync=off"):
            serve += ["-c", setting]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(serve, stdout=log, stderr=log, cwd="/")
        try:
            server = Postgres(bin_folder, port)
            _wait(server, folder / "log")
            server.run("createdb", "mlflow")
            yield server
        finally:
            process.terminate()  # runuser passes it on: PostgreSQL waits for nobody's session to end by itself
            process.wait(timeout=60)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait(server: Postgres, log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        ready = subprocess.run([server.bin / "pg_isready", "-q"], env=server.environment)
        if ready.returncode == 0:
            return
        time.sleep(0.1)
    raise TimeoutError(f"PostgreSQL does not answer: {log.read_text()[-2000:]}")
