"""mlflow/serve.sh refuses what would be unsafe, and compose.yaml holds together; nothing is started."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.shell_tools import complaints
from tests.tiny import ROOT

FOLDER = ROOT / "mlflow"
LONG = "a-long-enough-secret-of-the-tests"


def serve(tmp_path: Path, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """serve.sh with a Python that only says how it is called."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\n[ "$1" = -c ] && exit 0\necho "called: $*"\nenv | grep -e ^MLFLOW -e ^LGSRR\n')
    python.chmod(0o755)
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "LGSRR"))}
    return subprocess.run(
        [FOLDER / "serve.sh", *words],
        env={**ours, "PYTHON": str(python), "LGSRR_MLFLOW_STATE": str(tmp_path / "state"), **settings},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"LGSRR_MLFLOW_HOST": "0.0.0.0"}, "it would listen on 0.0.0.0 without passwords"),
        ({"LGSRR_MLFLOW_HOST": "127.evil.example"}, "it would listen on 127.evil.example without passwords"),
        ({"MLFLOW_AUTH_ADMIN_PASSWORD": "short"}, "fewer than 12 letters"),
        ({"MLFLOW_AUTH_ADMIN_PASSWORD": LONG}, "MLFLOW_FLASK_SERVER_SECRET_KEY has fewer than 32 letters"),
        (
            {"LGSRR_MLFLOW_DATABASE": "mysql://u:p@h/n"},
            "begins with 'mysql:'; expected sqlite:///FILE or postgresql://",
        ),
    ],
)
def test_what_would_be_unsafe_is_refused_with_one_message(
    settings: dict[str, str], message: str, tmp_path: Path
) -> None:
    done = serve(tmp_path, **settings)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "u:p" not in done.stderr


def test_without_settings_it_is_sqlite_on_loopback(tmp_path: Path) -> None:
    done = serve(tmp_path)
    assert "--host 127.0.0.1 --port 5000 --workers 1 " in done.stdout
    assert f"MLFLOW_BACKEND_STORE_URI=sqlite:///{tmp_path}/state/mlflow.db" in done.stdout
    assert "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false" in done.stdout
    assert "basic-auth" not in done.stdout


def test_a_file_of_settings_is_read_and_not_run_and_the_environment_comes_first(tmp_path: Path) -> None:
    file = tmp_path / "server.env"
    file.write_text(
        "# a comment\n\nLGSRR_MLFLOW_PORT=5001\nLGSRR_MLFLOW_NAMES=a.example,b.example\n"
        f"MLFLOW_AUTH_ADMIN_PASSWORD=$(touch {tmp_path}/ran) and `touch {tmp_path}/ran`\n"
        f"MLFLOW_FLASK_SERVER_SECRET_KEY={LONG}\nLGSRR_MLFLOW_DATABASE=postgresql://u:p%25@h/n"
    )
    done = serve(tmp_path, "--env-file", str(file), LGSRR_MLFLOW_PORT="5002")
    assert done.returncode == 0, done.stderr
    (called,) = [line for line in done.stdout.splitlines() if line.startswith("called:")]
    assert "--port 5002 --workers 4 --app-name basic-auth" in called
    assert "a.example,a.example:*,b.example,b.example:*" in called
    assert "p%25" not in called
    assert "MLFLOW_BACKEND_STORE_URI=postgresql+psycopg://u:p%25@h/n" in done.stdout
    assert f"MLFLOW_AUTH_ADMIN_PASSWORD=$(touch {tmp_path}/ran)" in done.stdout
    assert not (tmp_path / "ran").exists()
    assert "database_uri = postgresql+psycopg://u:p%%25@h/n" in (tmp_path / "state" / "auth.ini").read_text()


def test_a_line_that_is_no_setting_is_named(tmp_path: Path) -> None:
    (tmp_path / "server.env").write_text("LGSRR_MLFLOW_PORT=1\nexport X=1\n")
    done = serve(tmp_path, "--env-file", str(tmp_path / "server.env"))
    assert (done.returncode, "line 2 of" in done.stderr) == (2, True)


# ---- what a team starts with Docker


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))
    return loaded


def test_the_example_names_every_setting_that_compose_wants_and_holds_no_secret() -> None:
    example = (FOLDER / "server.env.example").read_text(encoding="utf-8")
    given = dict(line.split("=", 1) for line in example.splitlines() if re.match("[A-Z]", line))
    text = re.sub(r"(?m)^\s*#.*$", "", (FOLDER / "compose.yaml").read_text(encoding="utf-8"))
    assert set(re.findall(r"\$\{([A-Z0-9_]+)", text)) == given.keys()
    assert {name for name, value in given.items() if value} == {"LGSRR_MLFLOW_NAMES"}


def test_only_the_proxy_is_reached_from_outside_and_every_image_has_a_version() -> None:
    services = compose()["services"]
    assert {name for name, service in services.items() if "ports" in service} == {"proxy"}
    assert {name for name, service in services.items() if "outside" in service["networks"]} == {"proxy"}
    assert compose()["networks"]["inside"] == {"internal": True}
    for service in services.values():
        assert re.search(r":\d+\.\d+", service["image"])
    for needed, service in (("postgres", "mlflow"), ("bucket", "mlflow"), ("mlflow", "proxy")):
        assert needed in services[service]["depends_on"]


def test_the_server_of_compose_has_passwords_and_its_names() -> None:
    environment = compose()["services"]["mlflow"]["environment"]
    assert environment["MLFLOW_AUTH_ADMIN_PASSWORD"].startswith("${MLFLOW_AUTH_ADMIN_PASSWORD:?")
    assert environment["LGSRR_MLFLOW_NAMES"].startswith("${LGSRR_MLFLOW_NAMES:?")
    assert "reverse_proxy mlflow:5000" in compose()["configs"]["proxy"]["content"]


def test_its_image_is_pinned_does_not_run_as_root_and_hadolint_has_nothing_to_say() -> None:
    text = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
    assert "\nUSER 1000\n" in text
    assert all("==" in package for package in re.findall(r'"([^"]+)" ', text.split("pip install", 1)[1].split("&&")[0]))
    assert complaints("hadolint", FOLDER / "Dockerfile") == ""


def test_the_pictures_of_the_page_are_there_and_small() -> None:
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\]\((pictures/[^)]+)\)", page))
    assert named == {f"pictures/{path.name}" for path in (FOLDER / "pictures").iterdir()}
    assert len(named) >= 3
    assert all((FOLDER / name).stat().st_size < 120_000 for name in named)


def test_both_images_have_the_same_versions() -> None:
    pins = (ROOT / "cluster" / "constraints.txt").read_text(encoding="utf-8")
    for package in re.findall(r'"(mlflow|psycopg|boto3)(?:\[\w+\])?==([\d.]+)"', (FOLDER / "Dockerfile").read_text()):
        assert "==".join(package) in pins.splitlines()
