"""The demo around its commands: whose folder it is, what is done already, and nothing left behind, whatever happens."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from lgsrr.errors import ConfigError, DataError
from lgsrr.files import write_json
from pipelines.demo import folder as demo_folder
from pipelines.demo import running
from pipelines.demo.__main__ import again_command
from pipelines.demo.__main__ import main as demo_main
from pipelines.demo.folder import DemoFolder
from pipelines.demo.running import DemoError, Interrupts, Runner
from pipelines.demo.screen import print_screen
from pipelines.demo.settings import DemoConfig, Llm, choose_llm
from pipelines.demo.steps import Places, Step, run_folder, steps
from pipelines.output import Output
from tests.extracted_outputs import ASPECTS as EXTRACTED
from tests.extracted_outputs import described, utterances
from tests.processes import Process, descendants, wait_until
from tests.tables_on_disk import write_csv
from tests.tiny import ROOT, unboxed

IDENTITY = {"utterances": "240", "llm": "stand-in"}
STAND_IN = Llm(name="stand-in", where=None)
SLEEPS = "import time; time.sleep(600)"


@pytest.fixture(autouse=True)
def _nobody_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_MODEL", "MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


def step(tmp_path: Path, program: str = "", **more: object) -> Step:
    """A command of Python that leaves a file, unless its program ends it before."""
    left = tmp_path / "left"
    arguments = ("-c", f"{program}\nopen({str(left)!r}, 'w')")
    made = Step(name="one", says="does it", arguments=arguments, leaves=lambda: left)
    return dataclasses.replace(made, **more)  # type: ignore[arg-type]


@contextlib.contextmanager
def runner() -> Iterator[tuple[Runner, Interrupts]]:
    with Interrupts.held() as interrupts:
        yield Runner(Console(file=io.StringIO()), interrupts), interrupts


def refused(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one message of a demo that does not begin."""
    with pytest.raises(SystemExit) as ended:
        demo_main(arguments)
    printed = capfd.readouterr()
    assert ended.value.code == 2
    assert "Traceback" not in printed.err
    return unboxed(printed.err)


# ---- one step ------------------------------------------------------------------------------------------------------


def test_what_a_command_leaves_running_ends_with_it(tmp_path: Path) -> None:
    child = tmp_path / "child"
    program = (
        "import subprocess, sys, pathlib\n"
        f"one = subprocess.Popen([sys.executable, '-c', {SLEEPS!r}])\n"
        f"stat = pathlib.Path(f'/proc/{{one.pid}}/stat').read_text().rpartition(')')[2].split()\n"
        f"pathlib.Path({str(child)!r}).write_text(f'{{one.pid}} {{stat[19]}}')"
    )
    with runner() as (run, _):
        run.run(step(tmp_path, program), {}, "again")
    pid, started = child.read_text().split()
    left = Process(int(pid), started)
    wait_until(lambda: not left.is_alive(), 30, "the end of what the command left")


def test_a_command_that_fails_is_named_with_the_way_on(tmp_path: Path) -> None:
    with runner() as (run, _), pytest.raises(DemoError) as failed:
        run.run(step(tmp_path, "raise SystemExit(7)"), {}, "python -m pipelines.demo --seed 3")
    message = str(failed.value)
    assert "the step 'one' ended with exit code 7" in message
    assert message.endswith("python -m pipelines.demo --seed 3")
    assert "disk" not in message


def test_a_full_disk_and_a_kill_are_said_where_a_command_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "free_bytes", lambda path: 3_000_000)
    killed = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    with runner() as (run, _), pytest.raises(DemoError) as failed:
        run.run(step(tmp_path, killed), {}, "again")
    assert "was killed by SIGKILL" in str(failed.value)
    assert "The disk is full: 3 MB are free; make room" in str(failed.value)


def test_an_answer_is_in_its_file_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    with runner() as (run, _):
        with pytest.raises(DemoError):
            run.run(step(tmp_path, "print('half', flush=True); raise SystemExit(1)", answers=file), {}, "again")
        assert not file.exists()
        run.run(step(tmp_path, "print('whole')", answers=file), {}, "again")
    assert file.read_text() == "whole\n"


def test_ctrl_c_asks_the_command_to_end_its_affairs_and_waits_for_that(tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    program = (
        "import time\nprint('up', flush=True)\ntry:\n    time.sleep(600)\n"
        f"except KeyboardInterrupt:\n    time.sleep(0.3); open({str(saved)!r}, 'w')\n    raise SystemExit(130)"
    )
    up = tmp_path / "up"
    with runner() as (run, _):
        _when(lambda: _said(tmp_path, up), lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            run.run(step(tmp_path, program, answers=up), {}, "again")
    assert saved.exists()


def test_a_second_ctrl_c_ends_a_command_that_does_not_listen(tmp_path: Path) -> None:
    deaf = "import signal\nsignal.signal(signal.SIGINT, lambda *_: print('no', flush=True))\nprint('up', flush=True)\n"
    up = tmp_path / "up"
    with runner() as (run, interrupts):
        _when(lambda: _said(tmp_path, up), lambda: os.kill(os.getpid(), signal.SIGINT))
        _when(lambda: "no" in _said(tmp_path, up), lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(KeyboardInterrupt):
            run.run(step(tmp_path, deaf + SLEEPS, answers=up), {}, "again")
    assert interrupts.count == 2


def test_a_command_that_does_not_end_when_asked_is_killed_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "PATIENCE_S", 0.2)
    deaf = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('up', flush=True)\n"
    up = tmp_path / "up"
    with runner() as (run, _):
        _when(lambda: _said(tmp_path, up), lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            run.run(step(tmp_path, deaf + SLEEPS, answers=up), {}, "again")


def _said(tmp_path: Path, answers: Path) -> str:
    """What has been said so far: the file has its name only when it is whole."""
    return "".join(path.read_text() for path in tmp_path.glob(f".{answers.name}.*.part"))


def _when(condition: object, action: object) -> None:
    """Do something in a thread as soon as something holds."""

    def wait() -> None:
        wait_until(condition, 60, "the command")  # type: ignore[arg-type]
        action()  # type: ignore[operator]

    threading.Thread(target=wait, daemon=True).start()


# ---- the folder ----------------------------------------------------------------------------------------------------


def test_a_step_that_is_done_is_not_run_again_until_its_command_or_its_file_changes(tmp_path: Path) -> None:
    folder, one = DemoFolder(tmp_path / "demo"), step(tmp_path)
    with folder.held(IDENTITY):
        assert folder.seconds(one) is None
        folder.finished(one, 12.34)
        assert folder.seconds(one) is None  # its file is not there
        one.leaves().touch()
        assert folder.seconds(one) == 12.3
        assert folder.seconds(dataclasses.replace(one, arguments=("-c", "pass"))) is None

        def gone() -> Path:
            raise DataError("the data are gone")

        assert folder.seconds(dataclasses.replace(one, leaves=gone)) is None


def test_a_folder_with_other_content_is_refused_and_left_as_it_is(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    message = refused(capfd, "--out", str(tmp_path))
    assert "holds 'thesis.tex' and no demo" in message
    assert "--out" in message
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    assert "is a file" in refused(capfd, "--out", str(tmp_path / "thesis.tex"))


def test_a_demo_of_other_settings_is_refused_and_the_change_named(tmp_path: Path) -> None:
    with DemoFolder(tmp_path).held(IDENTITY):
        pass
    with (
        pytest.raises(ConfigError, match=r"llm: stand-in, now gpt"),
        DemoFolder(tmp_path).held({**IDENTITY, "llm": "gpt"}),
    ):
        pass
    with DemoFolder(tmp_path).held(IDENTITY):  # and the same one goes on
        pass


def test_two_demos_are_not_at_work_in_one_folder(tmp_path: Path) -> None:
    first, second = DemoFolder(tmp_path).held(IDENTITY), DemoFolder(tmp_path).held(IDENTITY)
    with first, pytest.raises(ConfigError, match="another demo is at work"), second:
        pass


def test_a_disk_without_room_is_said_before_anything_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_folder, "free_bytes", lambda path: 2_000_000)
    with pytest.raises(ConfigError, match="2 MB are free"), DemoFolder(tmp_path / "demo").held(IDENTITY):
        pass
    assert not (tmp_path / "demo").exists()


def test_a_damaged_mark_is_named(tmp_path: Path) -> None:
    (tmp_path / "demo.json").write_text("{")
    with pytest.raises(ConfigError, match=r"demo\.json is damaged"), DemoFolder(tmp_path).held(IDENTITY):
        pass


# ---- settings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--utterances", "0"], "utterances is 0; expected 60 or more"),
        (["--port", "70000"], "port is 70000"),
        (["--llm", "gpt-4o"], "neither OPENAI_API_KEY nor OPENAI_BASE_URL is set"),
    ],
)
def test_a_setting_that_cannot_be_is_named(
    arguments: list[str], message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(capfd, "--out", str(tmp_path / "demo"), *arguments)
    assert not (tmp_path / "demo").exists()


def test_a_port_that_is_taken_is_said_at_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with contextlib.closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        message = refused(capfd, "--out", str(tmp_path / "demo"), "--port", str(port))
        assert f"port {port} on 127.0.0.1" in message
        assert "free one" in message
        served = subprocess.run(
            [sys.executable, "-m", "pipelines.stand_in", "--port", str(port)], cwd=ROOT, capture_output=True, text=True
        )
    assert served.returncode == 2
    assert served.stderr.startswith(f"error: port {port} on 127.0.0.1 cannot be had: Address already in use")


def test_the_environment_decides_who_is_asked_and_for_how_much(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_llm(DemoConfig()) == STAND_IN
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    own = choose_llm(DemoConfig(llm="mine"))
    assert (own.name, own.where, own.price) == ("mine", "http://127.0.0.1:1/v1", (0.0, 0.0))
    monkeypatch.setenv("OPENAI_BASE_URL", "https://models.example.com/v1")
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        choose_llm(DemoConfig(llm="gpt-4o"))
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    with pytest.raises(ConfigError, match="price of 'mine' is not known"):
        choose_llm(DemoConfig(llm="mine"))
    real = choose_llm(DemoConfig())
    assert (real.name, real.price) == ("gpt-4o-mini", None)
    listed = {one.name: one for one in steps(DemoConfig(budget_usd=0.25), real)}
    for name in ("discover", "extract"):
        assert " --llm gpt-4o-mini --budget-usd 0.25 " in listed[name].shown
        assert "stand-in" not in listed[name].shown


def test_the_command_that_goes_on_names_what_was_given() -> None:
    assert again_command(DemoConfig()) == "python -m pipelines.demo"
    assert again_command(DemoConfig(seed=3, out="my demo")) == "python -m pipelines.demo --out 'my demo' --seed 3"


def test_every_command_of_the_demo_is_one_that_the_project_knows(tmp_path: Path) -> None:
    """Their command lines are parsed as they will be; nothing is run."""
    programs = []
    for one in steps(DemoConfig(out=str(tmp_path)), STAND_IN):
        module, *arguments = one.arguments[1:]
        programs.append(
            f"sys.argv = [{module!r}, *{arguments!r}, '--no-such-flag']\n"
            f"try: runpy.run_module({module!r}, run_name='__main__', alter_sys=True)\n"
            "except SystemExit as ended: assert ended.code == 2"
        )
    done = subprocess.run(
        [sys.executable, "-c", "import runpy, sys\n" + "\n".join(programs)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert unboxed(done.stderr).count("Unrecognized options: --no-such-flag") == len(programs), done.stderr


# ---- the screen ----------------------------------------------------------------------------------------------------


def write_results(config: DemoConfig) -> None:
    """What the commands leave that the screen reads."""
    at = Places(folder=config.folder)
    output = Output(str(at.extracted))
    output.write_utterances(utterances(8))
    output.commit([described(u.id) for u in utterances(8)])
    output.write_json("aspects.json", {"aspects": [{"name": name} for name in EXTRACTED]})
    for k, f1 in ((0, 0.481), (3, 0.972)):
        scores = {"dev_f1": f1, "test_acc": f1, "test_f1": f1}
        write_json(run_folder(config, k) / "result.json", {"scores": scores, "history": []})
    write_json(at.sample / "sample.json", {"text_alone_accuracy": 0.5})
    write_json(at.search / "answer.json", {"settings": {"lr": 0.000317, "k": 3, "pooling": "mean"}})
    at.new.mkdir()
    rows = [("id", "text", "split", "label", "video")]
    rows += [("n1", "nice [b]job[/b]", "test", "Praise", "clips/n1.mp4"), ("n2", "oh", "test", "Taunt", "clips/n2.mp4")]
    write_csv(at.new / "utterances.csv", rows)
    relations = {"text": 0.25, "Facial Expressions": 0.75}
    said = {"probability": 0.93, "importance": relations, "complementarity": {"Facial Expressions": 0.5}}
    said |= {"inconsistency": {"Facial Expressions": 0.125}, "descriptions": {"Facial Expressions": "Smiles [x]."}}
    lines = [json.dumps({"id": name, "label": "Praise", **said}) for name in ("n1", "n2")]
    at.predictions.write_text("".join(f"{line}\n" for line in lines))


@pytest.mark.parametrize("llm", [STAND_IN, Llm(name="gpt-4o-mini", where="https://api.openai.com/v1")])
def test_the_screen_says_what_was_done_what_it_brought_and_where_it_is(tmp_path: Path, llm: Llm) -> None:
    config = DemoConfig(out=str(tmp_path / "demo"))
    write_results(config)
    file = io.StringIO()
    print_screen(config, llm, {"sample": 12.4, "extract": 50.0}, Console(file=file, width=200))
    screen = " ".join(file.getvalue().split())
    assert "sample extract in all 12 s 50 s 62 s" in screen
    assert "text alone 48.1 48.1 48.1 LGSRR, with descriptions 97.2 97.2 97.2" in screen
    assert "the best that the words allow 50.0" in screen
    assert "lr 0.000317, k 3, pooling mean" in screen
    assert "of 2 new clips the champion understood 1; one of them: “nice [b]job[/b]” Praise 93 %" in screen
    assert "Facial Expressions 0.750 0.500 0.125 Smiles [x]." in screen
    assert ("a stand-in ranked the aspects by rules" in screen) == llm.is_stand_in
    assert ("gpt-4o-mini ranked the aspects" in screen) != llm.is_stand_in
    assert f"mlflow ui --backend-store-uri sqlite:///{tmp_path}/demo/mlflow.db" in screen
    assert f'--video {tmp_path}/demo/new/clips/n2.mp4 --text "oh"' in screen
    assert "ray job submit" in screen


# ---- all of it -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("after_s", [0.5, 4.0, 9.0])
def test_ctrl_c_leaves_no_process_whenever_it_comes(tmp_path: Path, after_s: float) -> None:
    """While Python starts, while clips are drawn, while Ray starts: the signal may come at any second."""
    demo = subprocess.Popen(
        [sys.executable, "-m", "pipelines.demo", "--out", str(tmp_path / "demo"), "--utterances", "60"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    seen: set[Process] = set()
    with contextlib.suppress(subprocess.TimeoutExpired):
        demo.wait(after_s)
    seen |= descendants(demo.pid)
    demo.send_signal(signal.SIGINT)
    while demo.poll() is None:
        seen |= descendants(demo.pid)
        with contextlib.suppress(subprocess.TimeoutExpired):
            demo.wait(0.2)
    assert demo.returncode in (130, -signal.SIGINT), demo.communicate()[0]
    wait_until(lambda: not any(process.is_alive() for process in seen), 30, "the end of all processes")
