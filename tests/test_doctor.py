"""lgsrr.doctor: a healthy machine passes, each failure is told with its remedy, and nothing holds it up."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lgsrr import cli, doctor_checks
from lgsrr.checkup import DoctorConfig, Finding, known_checks, load_check
from lgsrr.checkup_run import Told, run_check, run_checks
from lgsrr.doctor_ray import token_findings
from lgsrr.errors import (
    ConfigError,
    DataError,
    EncoderError,
    LgsrrError,
    MachineError,
    ModelError,
    StorageError,
    TrackingError,
)
from pipelines import doctor_checks as extraction_checks
from pipelines.calls import ExtractionError
from pipelines.doctor_model import Takes, fits, what_it_takes
from pipelines.shipped import SMALL
from pipelines.stand_in.faults import Fault, faults
from pipelines.stand_in.server import serve
from pipelines.videollama2.random_checkpoint import tiny, write_checkpoint
from tests.doctor_runs import doctor, install_metadata
from tests.mlflow_server import MlflowServer, hanging_server
from tests.processes import Process, wait_until

HERE = "tests.doctor_runs"
KEY = "sk-proj-do-not-tell-0123456789"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video model of random weights."""
    return write_checkpoint(tmp_path_factory.mktemp("models") / "tiny", tiny())


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the machine's own."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "MLFLOW_TRACKING_URI", "RAY_ADDRESS", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for Ray, whose sockets want short paths."""
    folder = Path(f"/tmp/d{os.getpid()}")
    folder.mkdir()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def the_only(findings: Iterator[Finding] | list[Finding]) -> Finding:
    [finding] = findings
    return finding


# As a whole


@pytest.mark.slow
def test_a_healthy_machine_passes_every_check(tmp_path: Path, checkpoint: Path, short: Path) -> None:
    with serve() as server:
        flags = ["--model", str(checkpoint), "--canary", "off", "--base-url", server.base_url, "--llm", "stand-in"]
        code, findings, said = doctor(
            tmp_path, *flags, "--out", "made/of/it", "--timeout-s", "240",
            RAY_TMPDIR=str(short), HOME=str(tmp_path), OPENAI_API_KEY=KEY,
        )  # fmt: skip
        assert server.seen.calls == 1
        assert server.seen.keys == {KEY}
    assert [f for f in findings if f["level"] == "fails"] == [], said
    assert (code, said) == (0, "")
    checks = {"versions", "storage", "tracking", "ray", "encoder", "endpoint", "video-model", "clip", "vllm"}
    assert {f["check"] for f in findings} == checks
    assert not {"runs", "made"} & {path.name for path in tmp_path.iterdir()}, "the doctor leaves nothing behind"
    assert KEY not in json.dumps(findings)


def test_what_fails_makes_the_exit_code_and_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where the folder should be")
    code, findings, _ = doctor(tmp_path, "--only", "storage,tracking", "--timeout-s", "120")
    assert code == 1
    assert all(f["do"] for f in findings if f["level"] == "fails")
    assert [f["level"] for f in findings if f["check"] == "storage"] == ["fails"]


def test_an_unknown_check_is_refused_by_the_names_of_those_that_are(tmp_path: Path) -> None:
    code, findings, said = doctor(tmp_path, "--only", "weather")
    assert (code, findings) == (2, [])
    assert "expected some of versions,storage" in said
    assert cli.DOCTOR not in said.splitlines()[-1]


def test_checks_of_pipelines_are_found_by_their_entry_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(install_metadata(tmp_path)))
    known = known_checks()
    assert next(iter(known)) == "versions"
    assert {"clip", "endpoint", "video-model", "vllm"} < known.keys()
    assert all(callable(load_check(target)) for target in known.values())


def test_a_check_that_hangs_is_ended_with_all_that_it_started_and_holds_up_nobody(tmp_path: Path) -> None:
    checks = {name: f"{HERE}:{name}" for name in ("is_well", "hangs", "crashes", "raises")}
    told: dict[str, Told] = {}

    def now() -> float:
        """Time goes on when only the one that hangs is left: a busy machine may take as long as it likes."""
        return 1000.0 if len(told) == 3 and (tmp_path / "pids").exists() else 0.0

    for one in run_checks(checks, DoctorConfig(runs=str(tmp_path), timeout_s=0.25), now):
        told[one.name] = one
    assert list(told)[-1] == "hangs", "nobody waits for it"
    assert the_only(list(told["is_well"].findings)).found == f"runs are in {tmp_path}"
    late = the_only(list(told["hangs"].findings))
    assert late.level in ("fails", "warning")  # a busy machine is said to be one
    assert "had not ended after 0.25 s" in late.found
    assert "--only hangs" in late.do
    crashed = the_only(list(told["crashes"].findings))
    assert (crashed.level, "was killed by SIGSEGV; its last words: Segmentation fault" in crashed.found) == (
        "fails",
        True,
    )
    so_far, failed = told["raises"].findings
    assert (so_far.level, failed.level, failed.found) == ("ok", "fails", "RuntimeError: no … is good enough")
    for pid in map(int, (tmp_path / "pids").read_text().split()):
        wait_until(partial(_is_gone, pid), 60, "a check's processes to be gone")


def _is_gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return True
    return not Process(pid, state[19]).is_alive()


# Versions


def test_a_package_that_is_not_as_pinned_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(install_metadata(tmp_path / "ours")))
    assert [f.level for f in doctor_checks.versions(DoctorConfig())] == ["ok"]
    monkeypatch.syspath_prepend(str(install_metadata(tmp_path / "old", "ray", "2.40.0")))
    monkeypatch.syspath_prepend(str(install_metadata(tmp_path / "new", "vllm", "0.31.0")))
    wrong = {f.found: f.do for f in doctor_checks.versions(DoctorConfig())}
    assert set(wrong) == {"ray is 2.40.0; expected ==2.60.*", "vllm is 0.31.0; expected ==0.29.0"}
    assert "pip install 'ray==2.60.*'" in wrong["ray is 2.40.0; expected ==2.60.*"]


def test_a_package_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(install_metadata(tmp_path)))
    there = importlib.metadata.version

    def version(name: str) -> str:
        if name == "optuna":
            raise importlib.metadata.PackageNotFoundError(name)
        return there(name)

    monkeypatch.setattr("importlib.metadata.version", version)
    assert the_only(doctor_checks.versions(DoctorConfig())).found == "optuna is not installed; expected <5,>=4"


# Storage


def test_a_folder_that_cannot_be_written_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    found = the_only(doctor_checks.storages(DoctorConfig(runs=str(tmp_path / "file" / "runs"))))
    assert found.level == "fails"
    assert "cannot be written" in found.found
    assert "--runs" in found.do
    well = the_only(doctor_checks.storages(DoctorConfig(runs=str(tmp_path / "a" / "b"))))
    assert well.level in ("ok", "warning")  # the disk of this machine may be nearly full
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_a_folder_that_may_not_be_written_names_who_can_change_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, content: bytes) -> None:
        raise StorageError(f"{path}: no permission to have it written. Its owner can grant it: chmod -R a+rX on it.")

    monkeypatch.setattr("lgsrr.storage.write_bytes", refuse)  # root, as which tests may run, may write everywhere
    found = the_only(doctor_checks.storages(DoctorConfig(runs=str(tmp_path))))
    assert found.level == "fails"
    assert "chmod" in found.found


# The tracking server


@pytest.mark.slow
def test_a_server_that_refuses_by_host_is_told_as_such_with_the_flag_that_helps(
    tmp_path: Path,
) -> None:
    server = MlflowServer(tmp_path)
    another_name = f"127.1:{server.port}"  # leads to the same server, which was not told that it is called so
    config = DoctorConfig(tracking_uri=f"http://{another_name}", runs=str(tmp_path / "runs"))
    away = the_only(doctor_checks.tracking(config))
    assert (away.level, "nothing listens there" in away.found) == ("fails", True)
    assert "MLFLOW_TRACKING_URI" in away.do
    try:
        server.start(timeout_s=300)
        refused = the_only(doctor_checks.tracking(config))
    finally:
        server.kill()
    assert refused.level == "fails"
    assert "Invalid Host header" in refused.found
    assert "LGSRR_MLFLOW_NAMES=127.1 mlflow/serve.sh" in refused.do
    assert f"--allowed-hosts '127.1,{another_name}'" in refused.do


def test_a_tracking_server_that_hangs_is_given_up_by_the_check_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_checks, "_WAIT_S", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with hanging_server() as address:
        found = the_only(doctor_checks.tracking(DoctorConfig(tracking_uri=address, runs=str(tmp_path))))
    assert (found.level, "takes longer to answer" in found.found) == ("fails", True)


# The endpoint


def test_a_wrong_key_is_told_without_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serve(faults=faults(Fault(kind="wrong_key"))) as server:
        config = DoctorConfig(base_url=server.base_url, llm="stand-in")
        found = the_only(run_check("pipelines.doctor_checks:endpoint", config))
    assert found.level == "fails"
    assert "rejected the key from $OPENAI_API_KEY" in found.found
    assert "Check $OPENAI_API_KEY" in found.do
    assert KEY not in found.found + found.do


@pytest.mark.parametrize(
    ("kind", "level", "remedy"),
    [
        ("insufficient_quota", "fails", "Add credit"),
        ("model_not_found", "fails", "Check the model's name"),
        ("rate_limited", "warning", "--rpm"),
        ("server_error", "fails", "--base-url"),
        ("length", "ok", ""),
    ],
)
def test_whatever_an_endpoint_says_has_its_remedy(kind: Any, level: str, remedy: str) -> None:
    with serve(faults=faults(Fault(kind=kind))) as server:
        found = the_only(extraction_checks.endpoint(DoctorConfig(base_url=server.base_url, llm="stand-in")))
    assert (found.level, remedy in found.do) == (level, True)


def test_an_endpoint_that_is_away_is_told_with_its_address() -> None:
    found = the_only(extraction_checks.endpoint(DoctorConfig(base_url="http://127.0.0.1:9/v1")))
    assert found.level == "fails"
    assert "http://127.0.0.1:9/v1" in found.do


def test_no_key_is_a_warning_until_an_endpoint_is_asked_for(tmp_path: Path) -> None:
    assert the_only(extraction_checks.endpoint(DoctorConfig())).level == "warning"
    found = the_only(extraction_checks.endpoint(DoctorConfig(base_url="http://llm.example.org/v1")))
    assert (found.level, "OPENAI_API_KEY" in found.found) == ("fails", True)
    missing = the_only(extraction_checks.endpoint(DoctorConfig(key_file=str(tmp_path / "key"))))
    assert (missing.level, "cannot be read" in missing.found) == ("fails", True)


# Ray's token


def test_a_token_that_is_missing_is_told_before_ray_is_asked(tmp_path: Path) -> None:
    wanted = {"RAY_AUTH_MODE": "token", "RAY_ADDRESS": "head:6379"}
    found = the_only(token_findings(wanted, tmp_path))
    assert (found.level, "there is no token" in found.found) == ("fails", True)
    assert "ray get-auth-token" in found.do
    lost = the_only(token_findings({"RAY_AUTH_TOKEN_PATH": str(tmp_path / "lost")}, tmp_path))
    assert (lost.level, str(tmp_path / "lost") in lost.found) == ("fails", True)
    assert list(token_findings({**wanted, "RAY_AUTH_TOKEN": "x"}, tmp_path)) == []
    assert list(token_findings({"RAY_AUTH_MODE": "token"}, tmp_path)) == [], "a local cluster makes its own"


def test_a_token_that_others_can_read_and_a_cluster_without_one_are_warnings(tmp_path: Path) -> None:
    path = tmp_path / ".ray" / "auth_token"
    path.parent.mkdir()
    path.write_text("token")
    path.chmod(0o644)
    assert the_only(token_findings({}, tmp_path)).do == f"chmod 600 {path}"
    path.chmod(0o600)
    assert list(token_findings({}, tmp_path)) == []
    disabled = the_only(token_findings({"RAY_AUTH_MODE": "disabled", "RAY_ADDRESS": "head:6379"}, tmp_path))
    assert disabled.level == "warning"


def test_a_head_node_that_is_away_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    monkeypatch.setenv("HOME", str(tmp_path))
    found = the_only(run_check("lgsrr.doctor_ray:ray_cluster", DoctorConfig()))
    assert (found.level, "nothing answers there" in found.found) == ("fails", True)
    assert "ray start --head" in found.do


# The video model


def test_a_damaged_model_folder_is_told_by_the_file_that_is_damaged(checkpoint: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checkpoint, tmp_path / "model"))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4000])
    config = DoctorConfig(model=str(folder))
    found = the_only(run_check("pipelines.doctor_model:video_model", config))
    assert (found.level, str(weights) in found.found, "truncated" in found.found) == ("fails", True, True)
    weights.unlink()
    assert "holds no weights" in the_only(run_check("pipelines.doctor_model:video_model", config)).found
    (folder / "config.json").write_text("{")
    assert "config.json cannot be read" in the_only(run_check("pipelines.doctor_model:video_model", config)).found


def test_a_models_memory_is_that_of_its_tensors_and_of_one_longest_sequence(checkpoint: Path) -> None:
    takes = what_it_takes(checkpoint)
    size = (checkpoint / "model.safetensors").stat().st_size
    assert takes.weights == pytest.approx(size, rel=0.05)  # stored as it runs, and a header
    assert takes.per_token == 2 * 3 * 2 * (48 // 4) * 4
    assert what_it_takes(checkpoint, dtype="bfloat16").weights == takes.weights / 2
    assert (takes.tokens, what_it_takes(checkpoint, max_model_len=100).tokens) == (2048, 100)


def test_a_model_that_does_not_fit_is_told_with_what_would() -> None:
    seven = Takes(weights=15.5e9, per_token=131072, tokens=32768)
    assert the_only(fits(seven, gpus=[80e9], free=0, firm=True)).level == "ok"
    small = the_only(fits(seven, gpus=[80e9, 16e9], free=500e9, firm=True))
    assert (small.level, "--dtype bfloat16" in small.do) == ("fails", True)
    tight = the_only(fits(seven, gpus=[24e9], free=0, firm=True))
    most = int(tight.do.split()[1])
    assert tight.level == "fails"
    fitting = Takes(weights=15.5e9, per_token=131072, tokens=most)
    assert the_only(fits(fitting, gpus=[24e9], free=0, firm=True)).level == "ok"
    assert the_only(fits(seven, gpus=[], free=64e9, firm=True)).level == "warning", "it would crawl on CPUs"
    assert the_only(fits(seven, gpus=[], free=8e9, firm=False)).level == "warning", "nobody asked for it"
    assert "build for CPUs" in the_only(fits(seven, gpus=None, free=0, firm=True)).found


# A clip


def test_a_clip_that_cannot_be_decoded_is_told(tmp_path: Path) -> None:
    path = tmp_path / "letter.mp4"
    path.write_text("This is a letter and no film.\n" * 40)
    found = the_only(run_check("pipelines.doctor_checks:clip", DoctorConfig(clip=str(path))))
    assert (found.level, str(path) in found.found) == ("fails", True)
    assert "sets such a clip aside" in found.do


def test_the_small_model_is_known_by_its_name() -> None:
    found = run_check("pipelines.doctor_model:video_model", DoctorConfig(model="small"))
    assert found[0].level == "ok"
    assert f"{SMALL}: whole" in found[0].found


# Commands point to it


@pytest.mark.parametrize(
    ("error", "points"),
    [
        (DataError("row 3 has no label"), False),
        (ConfigError("lr is 0"), False),
        (StorageError("disk full"), True),
        (MachineError("no key"), True),
        (EncoderError("no hub"), True),
        (ModelError("truncated"), True),
        (TrackingError("away"), True),
        (ExtractionError("ended early"), True),
        (ImportError("no module named torch"), True),
    ],
)
def test_a_command_that_fails_points_to_the_doctor_where_the_machine_may_be_at_fault(
    error: Exception, points: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(config: DoctorConfig) -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        cli.run(command, DoctorConfig, prog="python -m x", description="d", example="e", argv=[])
    last = capsys.readouterr().err.splitlines()[-1]
    assert ended.value.code == (error.exit_code if isinstance(error, LgsrrError) else 1)
    assert (last.startswith(f"{cli.DOCTOR} checks this machine")) == points
