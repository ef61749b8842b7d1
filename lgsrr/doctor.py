"""In under a minute: what would fail later on this machine, and what to do about it.

    python -m lgsrr.doctor
    python -m lgsrr.doctor --model FOLDER --base-url http://host:8000/v1 --llm NAME --out s3://bucket/extracted

It runs nothing that costs more than one token, and leaves nothing behind. The exit code is 1 where something fails,
0 where all is well or there are warnings alone. What is not named by a flag is checked as the commands would find it.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import NoReturn

from rich.text import Text

from lgsrr import cli
from lgsrr.checkup import DoctorConfig, Finding, Level, chosen_checks
from lgsrr.checkup_run import run_checks

_STYLES: dict[Level, str] = {"ok": "green", "warning": "yellow", "fails": "bold red"}


def doctor(config: DoctorConfig) -> int:
    """Run all checks, print their lines as they come, and say how it stands."""
    checks, began = chosen_checks(config.only), time.monotonic()
    counts: Counter[Level] = Counter()
    width = max(map(len, checks))
    for told in run_checks(checks, config):
        for finding in told.findings:
            counts[finding.level] += 1
            _print(told.name, finding, width, as_json=config.json)
    if not config.json:
        print(_summary(counts, time.monotonic() - began))
    return 1 if counts["fails"] else 0


def _print(name: str, finding: Finding, width: int, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"check": name, **dataclasses.asdict(finding)}, ensure_ascii=False), flush=True)
    elif sys.stdout.isatty():
        colour = _STYLES[finding.level] if finding.do else ""
        cli.table_console().print(Text(line_of(name, finding, width), style=colour))
    else:
        print(line_of(name, finding, width), flush=True)


def line_of(name: str, finding: Finding, width: int = 0) -> str:
    """One finding as it is printed: how it stands, of what, what was found; below it, what to do."""
    line = f"{finding.level:<8} {name:<{width}}  {finding.found}"
    return f"{line}\n{' ' * (9 + width + 2)}-> {finding.do}" if finding.do else line


def _summary(counts: Counter[Level], seconds: float) -> str:
    told = {"ok": "{} ok", "warning": "{} to be looked at", "fails": "{} will fail"}
    parts = [words.format(counts[level]) for level, words in told.items() if counts[level]]  # type: ignore[index]
    return f"\n{', '.join(parts)} ({seconds:.0f} s)"


def main(argv: Sequence[str] | None = None) -> NoReturn:
    cli.run(
        doctor,
        DoctorConfig,
        prog=cli.DOCTOR,
        description=(__doc__ or "").split("\n\n")[0],
        example=f"{cli.DOCTOR} --model FOLDER --base-url http://host:8000/v1 --llm NAME --out s3://bucket/extracted",
        argv=argv,
    )


if __name__ == "__main__":
    main()
