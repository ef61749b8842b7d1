"""tests.audit: what can be mended fails, what cannot is said, and a service that is away breaks nothing."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
from packaging.specifiers import SpecifierSet

from tests import audit


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether or not it is."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())


def report(*fixes: str, name: str = "Some_Package") -> dict[str, Any]:
    vulnerability = {"id": "PYSEC-1", "fix_versions": list(fixes), "aliases": [], "description": "bad"}
    skipped = {"name": "lgsrr", "skip_reason": "Dependency not found on PyPI"}
    return {"dependencies": [{"name": name, "version": "1.0", "vulns": [vulnerability]}, skipped]}


@pytest.mark.parametrize(
    ("fixes", "mended", "words"),
    [
        (("1.1",), 1, "mended by pip install 'Some_Package==1.1'"),
        (("2.0", "1.5"), 1, "pip install 'Some_Package==1.5'"),
        (("2.0",), 0, "fixed in 2.0, which our pins (<2) shut out"),
        ((), 0, "no fixed version yet"),
    ],
)
def test_only_what_can_be_mended_within_the_pins_fails(fixes: tuple[str, ...], mended: int, words: str) -> None:
    lines, count = audit.judged(report(*fixes), {"some-package": SpecifierSet("<2")})
    assert (count, len(lines)) == (mended, 1)
    assert words in lines[0]


def test_pins_are_those_of_all_that_is_installed() -> None:
    pins = audit.allowed_versions()
    assert not pins["ray"].contains("2.61.0")
    assert pins["ray"].contains("2.60.1")


@pytest.mark.parametrize(
    "answer",
    [
        subprocess.TimeoutExpired("pip-audit", 20),
        OSError("Connection refused"),
        {"dependencies": [{"name": "pip", "skip_reason": "Dependency not found on PyPI"}]},
    ],
)
def test_a_service_that_does_not_answer_is_one_line_and_breaks_nothing(
    answer: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(arguments: Any, timeout_s: float) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(audit, "_run", run)
    assert audit.main() == 0
    printed = capsys.readouterr().out
    assert printed.startswith("audit: left out, the service of known vulnerabilities does not answer here")
    assert printed.count("\n") == 1


def test_a_vulnerability_that_can_be_mended_fails_the_check(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(audit, "_run", lambda arguments, timeout_s: report("1.1"))
    assert audit.main() == 1
    assert "1 packages looked up, 1 known vulnerabilities, 1 to be mended" in capsys.readouterr().out
