"""cluster/local.sh and cluster/submit.sh for real: a head and a worker, jobs, and nothing left behind.

The nodes have keys in their environment, as those of a real cluster. After a job that extracts and trains, every byte
that was left is looked through for each of them: output, runs, MLflow's database, caches, Ray's files and the record
of the job.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lgsrr.config import recipe
from lgsrr.records import Split
from pipelines.stand_in.faults import Fault, faults
from pipelines.stand_in.server import serve
from tests import extraction_runs, tiny
from tests.extraction_runs import names_of, settings, write_clips, write_table
from tests.processes import Process, descendants, kill, wait_until
from tests.tiny import ROOT

PROGRAM = """
import lgsrr, os, ray
ray.init()
print("ran in", os.listdir(), ray.get(ray.remote(lambda: 6 * 7).remote()))
"""
LOCAL, SUBMIT = ROOT / "cluster" / "local.sh", ROOT / "cluster" / "submit.sh"
COUNTS: dict[Split, int] = {"train": 6, "dev": 2, "test": 2}
SECRETS = {
    "OPENAI_API_KEY": "canary-of-the-variable-5f1c",
    "AWS_SECRET_ACCESS_KEY": "canary-of-the-store-77aa",
    "MLFLOW_TRACKING_PASSWORD": "canary-of-mlflow-90b3",
    "HF_TOKEN": "canary-of-the-hub-1d2e",
}
IN_A_FILE = "canary-of-the-file-3e8d"


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.run(
        list(map(str, command)),
        env={**clean, "PYTHON": sys.executable, **environment},
        capture_output=True, text=True, timeout=1200,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Of a cluster with keys in its nodes' environment, which is stopped whatever the tests came to."""
    local = tmp_path_factory.mktemp("cluster") / "local"
    started = run(LOCAL, "start", "1", "2", LGSRR_LOCAL=str(local), MLFLOW_TRACKING_USERNAME="somebody", **SECRETS)
    assert started.returncode == 0, started.stdout + started.stderr
    yield local
    if (local / "nodes").is_file():
        run(LOCAL, "stop", LGSRR_LOCAL=str(local))


@pytest.fixture(scope="module")
def where(folder: Path) -> dict[str, str]:
    """What `local.sh env` sets."""
    exports = run("bash", "-c", f"eval \"$('{LOCAL}' env)\" && env | grep ^RAY_", LGSRR_LOCAL=str(folder)).stdout
    return dict(line.split("=", 1) for line in exports.splitlines())


def nodes_of(folder: Path) -> set[Process]:
    """Every process that the script has started, by way of those that it wrote down."""
    started = [int(line.split()[0]) for line in (folder / "nodes").read_text().splitlines()]
    return {process for pid in started for process in descendants(pid)}


@pytest.mark.slow
@pytest.mark.timeout(3600)  # Ray gives a raylet 30 s to come up; on a busy machine the script tries again
def test_a_job_runs_with_the_clusters_token_and_not_without(folder: Path, where: dict[str, str]) -> None:
    assert (folder / "token").stat().st_mode & 0o077 == 0
    assert run(LOCAL, "start", LGSRR_LOCAL=str(folder)).returncode == 1  # not a second one over it
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


def the_job(tmp_path: Path, key_file: Path, base_url: str, encoder: Path) -> str:
    """One command line: an extraction whose key is refused, one whose is not, and training on what it wrote."""
    table = write_table(tmp_path / "table.jsonl", COUNTS)
    clips = write_clips(tmp_path / "clips", list(names_of(COUNTS)))
    refused = settings(table, tmp_path / "out", base_url, videos=str(clips))
    taken = dataclasses.replace(refused, key_file=str(key_file))
    training = tiny.tiny_config(
        encoder, tmp_path / "runs", dataset="mine", data=refused.out, limit=None, epochs=1, k=3, batch_size=4
    )
    extract = [shlex.join(["pipelines/extract.py", *extraction_runs.flags(config)]) for config in (refused, taken)]
    train = shlex.join(tiny.flags(training, recipe("mine", str(encoder))))
    return f"python {extract[0]} && exit 9; python {extract[1]} && python -m lgsrr.train {train}"


def holders(folder: Path, secrets: list[str]) -> dict[str, list[str]]:
    """Files below that hold a secret, Parquet unpacked."""
    found: dict[str, list[str]] = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            if path.suffix == ".parquet":
                content += repr(pq.read_table(path).to_pylist()).encode()
            for secret in secrets:
                if secret.encode() in content:
                    found.setdefault(secret, []).append(str(path))
    return found


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_secret_is_in_anything_that_extraction_and_training_on_a_cluster_leave(
    tmp_path: Path, folder: Path, where: dict[str, str], tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("keys")
    key_file = elsewhere / "key"
    key_file.write_text(IN_A_FILE)
    with serve(faults=faults(Fault(kind="wrong_key", times=1))) as server:  # its answer repeats the key
        job = the_job(tmp_path, key_file, server.base_url, tiny_bert)
        done = run(SUBMIT, "--", "bash", "-c", job, LGSRR_CACHE=str(tmp_path / "cache"), **where)
        assert done.returncode == 0, done.stdout + done.stderr
        assert server.seen.keys == {SECRETS["OPENAI_API_KEY"], IN_A_FILE}, "both were used"
    record = run(sys.executable, "-m", "ray.scripts.scripts", "job", "list", **where)
    assert "lgsrr.train" in record.stdout, record.stdout + record.stderr
    said = done.stdout + done.stderr + record.stdout + record.stderr
    assert "rejected the key from $OPENAI_API_KEY" in said
    for written in ("out/manifest.json", "out/report.html", "runs/mlflow.db", "runs/train", "cache"):
        assert (tmp_path / written).exists()
    rays_files = Path((folder / "files").read_text().strip())
    assert list(rays_files.rglob("job-driver-*.log"))

    token = folder / "token"
    secrets = [*SECRETS.values(), IN_A_FILE, token.read_text()]
    assert holders(elsewhere, secrets) == {IN_A_FILE: [str(key_file)]}, "the search finds what is there"
    assert holders(tmp_path, secrets) == {}
    assert holders(rays_files, secrets) == {}
    assert holders(folder, secrets) == {token.read_text(): [str(token)]}
    assert not [secret for secret in secrets if secret in said]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_stop_ends_what_was_started_and_nothing_else(folder: Path) -> None:
    """The last that happens to the cluster of this file."""
    cluster = nodes_of(folder)
    assert sum(" --num_prestart" in p.title() or "raylet/raylet" in p.title() for p in cluster) == 2
    bystander = subprocess.Popen(["sleep", "3600"])
    try:
        stopped = run(LOCAL, "stop", LGSRR_LOCAL=str(folder))
        assert stopped.returncode == 0, stopped.stderr
        wait_until(lambda: not any(process.is_alive() for process in cluster), 60, "the cluster's processes to end")
        assert bystander.poll() is None
        assert not (folder / "token").exists()
        assert "nothing was started" in run(LOCAL, "stop", LGSRR_LOCAL=str(folder)).stderr
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
