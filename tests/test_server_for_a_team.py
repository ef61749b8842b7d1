"""The tracking server as a team runs it: PostgreSQL, artifacts in S3, passwords; killed in mid-run, nothing lost."""

from __future__ import annotations

import base64
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from lgsrr.tracking import connect
from tests import test_many_writers
from tests.mlflow_server import MlflowServer
from tests.postgres_server import PASSWORD, Postgres, postgres_server
from tests.processes import descendants
from tests.s3 import moto

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]  # a busy machine takes minutes to start a server twice

ADMIN, SIGNATURE, KEY = "the admin's, of the tests", "0123456789abcdef" * 2, "a-key-of-the-bucket"


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """Address of an S3 server with an empty bucket `mlflow`."""
    import boto3

    with moto() as port:
        address = f"http://127.0.0.1:{port}"
        client = boto3.client(
            "s3", endpoint_url=address, region_name="us-east-1", aws_access_key_id="team", aws_secret_access_key=KEY
        )
        client.create_bucket(Bucket="mlflow")
        yield address


@pytest.fixture(scope="module")
def server(postgres: Postgres, bucket: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """Running, and what it is called with is in the environment of whoever asks."""
    found = MlflowServer(
        tmp_path_factory.mktemp("server"),
        LGSRR_MLFLOW_DATABASE=postgres.uri(),
        LGSRR_MLFLOW_ARTIFACTS="s3://mlflow/artifacts",
        LGSRR_MLFLOW_NAMES="mlflow.example.org",
        LGSRR_MLFLOW_WORKERS="2",
        MLFLOW_AUTH_ADMIN_PASSWORD=ADMIN,
        MLFLOW_FLASK_SERVER_SECRET_KEY=SIGNATURE,
        MLFLOW_S3_ENDPOINT_URL=bucket,
        AWS_ACCESS_KEY_ID="team",
        AWS_SECRET_ACCESS_KEY=KEY,
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MLFLOW_TRACKING_USERNAME", "admin")
        patched.setenv("MLFLOW_TRACKING_PASSWORD", ADMIN)
        try:
            found.start(timeout_s=900)
            yield found
        finally:
            found.kill()


def status(server: MlflowServer, password: str | None = ADMIN, body: bytes | None = None, **headers: str) -> int:
    """What is answered to a question, or to a change where there is a body."""
    page = "experiments/search?max_results=1" if body is None else "experiments/create"
    request = urllib.request.Request(f"{server.uri}/api/2.0/mlflow/{page}", data=body, headers=headers)
    request.add_header("Content-Type", "application/json")
    if password is not None:
        request.add_header("Authorization", "Basic " + base64.b64encode(f"admin:{password}".encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_who_gives_no_password_or_another_is_refused(server: MlflowServer) -> None:
    assert (status(server), status(server, None), status(server, "password1234")) == (200, 401, 401)


def test_it_answers_to_its_own_names_and_no_others(server: MlflowServer) -> None:
    answers = [status(server, Host=name) for name in ("mlflow.example.org", f"localhost:{server.port}", "evil.example")]
    assert answers == [200, 200, 403]


def test_a_page_from_elsewhere_changes_nothing(server: MlflowServer) -> None:
    assert status(server, body=b'{"name": "theirs"}', Origin="https://evil.example") == 403
    assert status(server, body=b'{"name": "ours"}', Origin="https://mlflow.example.org") == 200


def test_no_process_and_no_log_shows_a_secret(server: MlflowServer) -> None:
    shown = " ".join(process.title() for process in descendants(server.pid))
    shown += Path(f"/proc/{server.pid}/cmdline").read_text() + (server.folder / "server.log").read_text()
    assert "uvicorn" in shown
    for secret in (PASSWORD, PASSWORD.replace("%", "%25"), ADMIN, SIGNATURE, KEY):
        assert secret not in shown
    assert (server.folder / "auth.ini").stat().st_mode & 0o077 == 0


def test_no_job_runners_are_started(server: MlflowServer) -> None:
    assert not [p.title() for p in descendants(server.pid) if "huey" in p.title() or "jobs" in p.title()]


def test_a_file_goes_to_the_bucket_and_comes_back(server: MlflowServer, bucket: str, tmp_path: Path) -> None:
    import boto3

    (tmp_path / "a.txt").write_text("a file")
    client = connect(server.uri)
    run = client.create_run(client.create_experiment("files"))
    client.log_artifact(run.info.run_id, str(tmp_path / "a.txt"))
    (tmp_path / "back").mkdir()
    back = client.download_artifacts(run.info.run_id, "a.txt", str(tmp_path / "back"))
    assert Path(back).read_text() == "a file"
    s3 = boto3.client(
        "s3", endpoint_url=bucket, region_name="us-east-1", aws_access_key_id="team", aws_secret_access_key=KEY
    )
    (stored,) = s3.list_objects_v2(Bucket="mlflow")["Contents"]
    assert stored["Key"].startswith("artifacts/")


def test_32_runs_written_at_once_while_the_server_is_killed_and_comes_back_are_all_there_once(
    server: MlflowServer, postgres: Postgres, tmp_path: Path
) -> None:
    killed = threading.Event()

    def kill_in_mid_run() -> None:
        counted = 0
        while counted < 8:  # of 32 runs some are there, most are not, whatever the speed of this machine
            counted = int(postgres.run("psql", "-Atc", "select count(*) from runs", "mlflow"))
            time.sleep(0.05)
        server.kill()
        killed.set()
        server.start(timeout_s=900)

    killer = threading.Thread(target=kill_in_mid_run)
    killer.start()
    test_many_writers.run_writers(tmp_path / "runs", server.uri)
    killer.join()  # a busy machine may take longer to start the server than the writers to give up on it
    test_many_writers.send_the_rest(tmp_path / "runs", server.uri)
    assert killed.is_set()
    test_many_writers.check(server.uri)


def test_a_backup_as_the_page_describes_it_holds_every_run(
    server: MlflowServer, postgres: Postgres, tmp_path: Path
) -> None:
    """After the test above: its runs."""
    before = postgres.run("psql", "-Atc", "select run_uuid from runs order by 1", "mlflow")
    backup = str(tmp_path / "mlflow.dump")
    postgres.run("pg_dump", "--format=custom", f"--file={backup}", "mlflow")
    postgres.run("createdb", "restored")
    postgres.run("pg_restore", "--exit-on-error", "--dbname=restored", backup)
    assert postgres.run("psql", "-Atc", "select run_uuid from runs order by 1", "restored") == before != ""
    assert "admin" in postgres.run("psql", "-Atc", "select username from users", "restored")
