"""Checks side by side, each in a process of its own: one that hangs or crashes is a finding, and holds up nobody.

    python -m lgsrr.checkup_run TARGET < settings.json      one check by itself, with all that it prints

A process costs a tenth of a second and can be killed with all that it has started; a thread that waits in C for a
server that never answers cannot.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import IO

from lgsrr.blotting import without_keys
from lgsrr.checkup import DoctorConfig, Finding, load_check
from lgsrr.errors import LgsrrError

_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
"""Of every check: side by side, threads would only wait for each other."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What came of one check."""

    name: str
    findings: tuple[Finding, ...]
    seconds: float


def run_checks(
    checks: Mapping[str, str], config: DoctorConfig, now: Callable[[], float] = time.monotonic
) -> Iterator[Told]:
    """Run all checks at once and give each as it ends; after `config.timeout_s` those that have not are killed."""
    began = now()
    with contextlib.ExitStack() as stack:
        waiting = {name: stack.enter_context(_Running(target, config)) for name, target in checks.items()}
        ended = stack.enter_context(selectors.DefaultSelector())
        for name, running in waiting.items():
            ended.register(running.answers, selectors.EVENT_READ, name)
        while waiting:
            left = config.timeout_s - (now() - began)
            for key, _ in ended.select(left) if left > 0 else ():
                name = str(key.data)
                if waiting[name].read_on():
                    ended.unregister(key.fileobj)
                    findings = waiting.pop(name).findings()
                    yield Told(name=name, findings=findings, seconds=now() - began)
            if left <= 0:
                for name in list(waiting):
                    waiting.pop(name).end()
                    late = _late(name, config.timeout_s)
                    yield Told(name=name, findings=(late,), seconds=config.timeout_s)


def _late(name: str, timeout_s: float) -> Finding:
    """What hangs fails; on a machine that has other things to do it is not known whether it would."""
    load, cpus = os.getloadavg()[0], os.cpu_count() or 1
    again = f"give it more time: python -m lgsrr.doctor --only {name} --timeout-s 300, with the same settings"
    if load > 2 * cpus:
        found = f"not known: had not ended after {timeout_s:g} s, on a busy machine (load {load:.0f} on {cpus} CPUs)"
        return Finding(level="warning", found=found, do=again)
    found = f"had not ended after {timeout_s:g} s, and was ended: what it asked does not answer"
    return Finding(level="fails", found=found, do=again)


class _Running:
    """One check at work."""

    def __init__(self, target: str, config: DoctorConfig) -> None:
        self.target = target
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the check)
        reading, writing = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "lgsrr.checkup_run", target, str(writing)],
                stdin=subprocess.PIPE, stdout=self._said, stderr=self._said, pass_fds=(writing,),
                start_new_session=True, env={**os.environ, **_ENVIRONMENT},
            )  # fmt: skip
        finally:
            os.close(writing)
        self.answers = os.fdopen(reading, "rb")
        self._read = bytearray()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self._process.stdin as stream:
            stream.write(json.dumps(dataclasses.asdict(config)).encode())

    def read_on(self) -> bool:
        """Take what has come; True where that was all."""
        piece = os.read(self.answers.fileno(), 1 << 16)
        self._read += piece
        return not piece or self._read.endswith(b"\n")

    def findings(self) -> tuple[Finding, ...]:
        """What it found, or how it died."""
        if self._read.endswith(b"\n"):
            return tuple(Finding(**found) for found in json.loads(self._read))
        code = self._process.wait()
        self._said.seek(0)
        last = (self._said.read().decode(errors="replace").strip().splitlines() or ["nothing"])[-1]
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        found = f"the check {how}; its last words: {without_keys(last)[:300]}"
        return (Finding(level="fails", found=found, do=_by_itself(self.target)),)

    def end(self) -> None:
        """Kill it, with all that it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def __enter__(self) -> _Running:
        return self

    def __exit__(self, *reason: object) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):  # what it has started goes with it, in order
            if reason[0] is None and self._read.endswith(b"\n"):
                self._process.wait(5)
        self.end()
        self.answers.close()
        self._said.close()


def _by_itself(target: str) -> str:
    return f"see all of it: echo '{{}}' | python -m lgsrr.checkup_run {target}"


def run_check(target: str, config: DoctorConfig) -> list[Finding]:
    """Run one check here. Whatever it raises is a finding."""
    findings: list[Finding] = []
    try:
        findings.extend(load_check(target)(config))
    except LgsrrError as error:
        findings.append(Finding(level="fails", found=str(error)))
    except Exception as error:
        traceback.print_exc()
        said = " ".join(str(error).split())[:400]
        findings.append(Finding(level="fails", found=f"{type(error).__name__}: {said}", do=_by_itself(target)))
    return [
        dataclasses.replace(finding, found=without_keys(finding.found), do=without_keys(finding.do))
        for finding in findings
    ]


def main() -> None:
    """Run the check that the first argument names; the second is a descriptor for the findings (default: stdout)."""
    target, answers = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1
    findings = run_check(target, DoctorConfig(**json.load(sys.stdin)))
    sys.stdout.flush()
    with os.fdopen(answers, "w", encoding="utf-8") as stream:
        stream.write(json.dumps([dataclasses.asdict(finding) for finding in findings]) + "\n")


if __name__ == "__main__":
    main()
