"""cluster/local.sh and cluster/submit.sh for real: a head and a worker, a job, and nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import Process, descendants, kill, wait_until
from tests.tiny import ROOT

PROGRAM = """
import lgsrr, os, ray
ray.init()
print("ran in", os.listdir(), ray.get(ray.remote(lambda: 6 * 7).remote()))
"""
LOCAL, SUBMIT = ROOT / "cluster" / "local.sh", ROOT / "cluster" / "submit.sh"


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.run(
        list(map(str, command)),
        env={**clean, "PYTHON": sys.executable, **environment},
        capture_output=True, text=True, timeout=1200,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Of a cluster that is stopped whatever the test came to."""
    yield tmp_path / "local"
    if (tmp_path / "local" / "nodes").is_file():
        run(LOCAL, "stop", LGSRR_LOCAL=str(tmp_path / "local"))


def nodes_of(folder: Path) -> set[Process]:
    """Every process that the script has started, by way of those that it wrote down."""
    started = [int(line.split()[0]) for line in (folder / "nodes").read_text().splitlines()]
    return {process for pid in started for process in descendants(pid)}


@pytest.mark.slow
@pytest.mark.timeout(3600)  # Ray gives a raylet 30 s to come up; on a busy machine the script tries again
def test_a_job_runs_with_the_clusters_token_and_not_without_and_stop_ends_what_was_started_alone(folder: Path) -> None:
    at = {"LGSRR_LOCAL": str(folder)}
    started = run(LOCAL, "start", "1", "1", **at)
    assert started.returncode == 0, started.stdout + started.stderr
    assert (folder / "token").stat().st_mode & 0o077 == 0
    cluster = nodes_of(folder)
    assert sum(" --num_prestart" in p.title() or "raylet/raylet" in p.title() for p in cluster) == 2
    bystander = subprocess.Popen(["sleep", "3600"])
    try:
        assert run(LOCAL, "start", **at).returncode == 1  # not a second one over it
        exports = run("bash", "-c", f"eval \"$('{LOCAL}' env)\" && env | grep ^RAY_", **at).stdout
        where = dict(line.split("=", 1) for line in exports.splitlines())

        done = run(SUBMIT, "--cpu-nodes", "1", "--", "python", "-c", PROGRAM, **where)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "they are there" in done.stdout
        (line,) = [line for line in done.stdout.splitlines() if line.startswith("ran in")]
        assert line.endswith("] 42")
        assert "pyproject.toml" in line
        assert "tests" not in line  # the code alone is sent: no data, no key that lies beside it

        ray_job = (sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--", "true")
        refused = run(*ray_job, **{**where, "RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN_PATH": ""})
        assert refused.returncode != 0
        assert "Missing authentication token" in refused.stdout + refused.stderr

        stopped = run(LOCAL, "stop", **at)
        assert stopped.returncode == 0, stopped.stderr
        wait_until(lambda: not any(process.is_alive() for process in cluster), 60, "the cluster's processes to end")
        assert bystander.poll() is None
        assert not (folder / "token").exists()
        assert "nothing was started" in run(LOCAL, "stop", **at).stderr
    finally:
        bystander.kill()
        bystander.wait()
        kill(process for process in cluster if process.is_alive())


@pytest.mark.parametrize(
    ("words", "environment", "message"),
    [
        (["--", "python", "x.py"], {"RAY_AUTH_TOKEN_PATH": "/nowhere"}, "no token of the cluster"),
        (["--", "python", "x.py", "--key", "sk-abcdefghijklmnopqrstuv"], {"RAY_AUTH_TOKEN": "t"}, "looks like a key"),
        (["--", "true"], {"RAY_AUTH_TOKEN": "t", "MLFLOW_TRACKING_URI": "https://a:b@host"}, "key or a password"),
        (["--gpu-nodes", "many", "--", "true"], {}, "a number of nodes is 'many'"),
        (["--gpu", "1"], {}, "--gpu is no option"),
        ([], {}, "no command"),
    ],
)
def test_submit_refuses_before_anything_is_sent(words: list[str], environment: dict[str, str], message: str) -> None:
    done = run(SUBMIT, *words, **environment)
    assert done.returncode == 2
    assert message in done.stderr
    assert "sk-abc" not in done.stderr
