"""Secrets by file or environment, and nowhere else: after extraction, training and search as one job, every byte that
was left is looked through for each of them: output, runs, MLflow's database, caches, Ray's session and the job's spec.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from lgsrr.config import recipe
from pipelines.settings import ExtractConfig
from pipelines.stand_in.faults import Fault, faults
from pipelines.stand_in.server import serve
from tests import extraction_runs
from tests.extraction_runs import names_of, settings, write_clips, write_table
from tests.search_runs import search_config
from tests.tiny import ROOT, flags, tiny_config
from tune.settings import search_recipe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

COUNTS = {"train": 8, "dev": 4, "test": 4}
SECRETS = {
    "OPENAI_API_KEY": "canary-of-the-variable-5f1c",
    "AWS_SECRET_ACCESS_KEY": "canary-of-the-store-77aa",
    "MLFLOW_TRACKING_PASSWORD": "canary-of-mlflow-90b3",
    "HF_TOKEN": "canary-of-the-hub-1d2e",
    "RAY_AUTH_TOKEN": "canary0of0ray0c4d5e6f7a8b9c0d1e2f3",
}
IN_A_FILE = "canary-of-the-file-3e8d"


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Ray's own folder: short, since sockets lie in it, and the test's alone."""
    folder = Path(f"/tmp/k{os.getpid()}")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def the_job(tmp_path: Path, key_file: Path, base_url: str, encoder: Path) -> str:
    """One command line: an extraction that is refused, one that is not, training and a search on what it wrote."""
    table = write_table(tmp_path / "table.jsonl", COUNTS)
    clips = write_clips(tmp_path / "clips", list(names_of(COUNTS)))
    extraction = settings(table, tmp_path / "out", base_url, videos=str(clips))
    runs = tmp_path / "runs"
    changes: dict[str, Any] = {"dataset": "mine", "data": extraction.out, "limit": None, "epochs": 1, "k": 3}
    training = tiny_config(encoder, runs, **changes)
    search = search_config(encoder, runs, **changes, trials=1, seeds=1, patience=1)

    def line(script: list[str], words: list[str]) -> str:
        return shlex.join([sys.executable, *script, *words])

    def extract(config: ExtractConfig) -> str:
        return line(["pipelines/extract.py"], extraction_runs.flags(config))

    refused = extract(extraction)
    taken = extract(dataclasses.replace(extraction, key_file=str(key_file)))
    train = line(["-m", "lgsrr.train"], flags(training, recipe("mine", str(encoder))))
    look_for = line(["tune/search.py"], flags(search, search_recipe("mine", str(encoder))))
    return f"cd {ROOT} && {{ {refused} && exit 9; {taken} && {train} && {look_for}; }}"


def run_as_job(session: Path, entrypoint: str) -> tuple[str, str]:
    """Submit to a cluster of the test's own, wait, and give what the job printed and all that Ray says of it."""
    import ray
    from ray.job_submission import JobStatus, JobSubmissionClient

    context = ray.init(
        address="local", num_cpus=4, include_dashboard=True, dashboard_host="127.0.0.1", dashboard_port=0,
        _temp_dir=str(session), log_to_driver=False, logging_level="ERROR",
    )  # fmt: skip
    try:
        client = JobSubmissionClient(f"http://{context.dashboard_url}")
        job = client.submit_job(entrypoint=entrypoint)
        while (status := client.get_job_status(job)) not in (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.STOPPED):
            time.sleep(1)
        said = client.get_job_logs(job)
        assert status == JobStatus.SUCCEEDED, said
        return said, repr(client.get_job_info(job).dict())
    finally:
        ray.shutdown()


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


def test_no_secret_is_in_anything_that_a_whole_run_leaves(
    tmp_path: Path,
    session: Path,
    tiny_bert: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    home, elsewhere = tmp_path / "home", tmp_path_factory.mktemp("keys")
    home.mkdir()
    key_file = elsewhere / "key"
    key_file.write_text(IN_A_FILE)
    for name, value in {**SECRETS, "HOME": str(home), "LGSRR_CACHE": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "somebody")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with serve(faults=faults(Fault(kind="wrong_key", times=1))) as server:  # its answer repeats the key
        said, spec = run_as_job(session, the_job(tmp_path, key_file, server.base_url, tiny_bert))
        assert server.seen.keys == {SECRETS["OPENAI_API_KEY"], IN_A_FILE}, "both were used"
    assert "rejected the key from $OPENAI_API_KEY" in said
    secrets = [*SECRETS.values(), IN_A_FILE]
    assert holders(elsewhere, secrets).keys() == {IN_A_FILE}, "the search finds what is there"
    for written in ("out/manifest.json", "out/report.html", "runs/mlflow.db", "runs/train", "runs/search"):
        assert (tmp_path / written).exists()
    assert list(session.rglob("job-driver-*.log"))
    assert holders(tmp_path, secrets) == {}
    assert holders(session, secrets) == {}
    assert not [secret for secret in secrets if secret in said + spec]
