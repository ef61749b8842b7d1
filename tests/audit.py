"""Known vulnerabilities among the packages that are installed, by pip-audit: a step of `make check`.

    python -m tests.audit

All that is found is printed. It fails for what can be mended here: a fixed version exists that every installed package
which needs the package allows. What nobody can mend yet (no fix, or one that a pin of Ray or vLLM shuts out) is said
and does not stop work. Where the service of vulnerabilities (PyPI's JSON) does not answer, one line says so; one
package is asked for first, so that finding that out takes seconds.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

_PROBE = "pip"
_PROBE_S, _AUDIT_S = 20.0, 50.0
_COMMAND = (sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off", "--timeout", "5")

Report = Mapping[str, Any]
"""What pip-audit prints as JSON."""


def main() -> int:
    """Audit, print, and say by the exit code whether something can be mended."""
    if importlib.util.find_spec("pip_audit") is None:
        print("audit: left out, pip-audit is not installed here (make setup)")
        return 0
    try:
        if not _answers():
            raise OSError("it does not know pip")
        report = _run((), _AUDIT_S)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        print(f"audit: left out, the service of known vulnerabilities does not answer here ({_brief(error)})")
        return 0
    lines, can_be_mended = judged(report, allowed_versions())
    for line in lines:
        print(line)
    print(
        f"audit: {audited(report)} packages looked up, {len(lines)} known vulnerabilities, {can_be_mended} to be mended"
    )
    return 1 if can_be_mended else 0


def _answers() -> bool:
    """Whether the service knows a package that it must know."""
    with tempfile.TemporaryDirectory() as folder:
        one = Path(folder) / "one.txt"
        one.write_text(f"{_PROBE}=={importlib.metadata.version(_PROBE)}\n", encoding="utf-8")
        return audited(_run(("--no-deps", "--disable-pip", "-r", str(one)), _PROBE_S)) == 1


def _run(arguments: Iterable[str], timeout_s: float) -> Report:
    done = subprocess.run([*_COMMAND, *arguments], capture_output=True, text=True, timeout=timeout_s, check=False)
    if not done.stdout.strip():
        raise OSError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "pip-audit said nothing")
    report: Report = json.loads(done.stdout)
    return report


def _brief(error: Exception) -> str:
    if isinstance(error, subprocess.TimeoutExpired):
        return f"not within {error.timeout:g} s"
    return " ".join(str(error).split())[:160]


def audited(report: Report) -> int:
    """How many packages the service knew; those that it did not are skipped by pip-audit."""
    return sum("vulns" in package for package in report["dependencies"])


def judged(report: Report, allowed: Mapping[str, SpecifierSet]) -> tuple[list[str], int]:
    """A line for each vulnerability, and how many can be mended within what is `allowed`, package by package."""
    lines, can_be_mended = [], 0
    for package in report["dependencies"]:
        pins = allowed.get(canonicalize_name(package["name"]), SpecifierSet())
        for found in package.get("vulns", ()):
            fixes = [fix for fix in found["fix_versions"] if _allows(pins, fix)]
            can_be_mended += bool(fixes)
            what = f"{package['name']} {package['version']}: {found['id']}"
            if fixes:
                lines.append(f"{what}: mended by pip install '{package['name']}=={fixes[0]}'")
            elif found["fix_versions"]:
                lines.append(f"{what}: fixed in {', '.join(found['fix_versions'])}, which our pins ({pins}) shut out")
            else:
                lines.append(f"{what}: no fixed version yet")
    return lines, can_be_mended


def _allows(pins: SpecifierSet, version: str) -> bool:
    try:
        return pins.contains(Version(version))
    except InvalidVersion:
        return False


def allowed_versions() -> dict[str, SpecifierSet]:
    """What all that is installed here asks of each package, together."""
    pins: dict[str, SpecifierSet] = defaultdict(SpecifierSet)
    for distribution in importlib.metadata.distributions():
        for line in distribution.requires or ():
            try:
                needed = Requirement(line)
            except InvalidRequirement:
                continue
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                pins[canonicalize_name(needed.name)] &= needed.specifier
    return dict(pins)


if __name__ == "__main__":
    sys.exit(main())
