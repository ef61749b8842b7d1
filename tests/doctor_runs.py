"""The doctor as tests run it: installed as pyproject says it is, and with checks that hang, crash and are well."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lgsrr.checkup import DoctorConfig, Finding

ROOT = Path(__file__).resolve().parent.parent


def install_metadata(folder: Path, name: str = "lgsrr", version: str = "0.1.0", **changes: str) -> Path:
    """Write the metadata that an installation of pyproject.toml has, or of a package of that name; returns `folder`.

    In front of `sys.path` it is found before what is really installed. `changes`: pin by package.
    """
    place = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    place.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    if name == "lgsrr":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        lines.append(f"Requires-Python: {project['requires-python']}")
        lines += [f"Requires-Dist: {line}" for line in project["dependencies"]]
        for extra, needed in project["optional-dependencies"].items():
            lines += [f"Provides-Extra: {extra}", *(f'Requires-Dist: {line}; extra == "{extra}"' for line in needed)]
        groups = project["entry-points"]
        text = "".join(f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in groups[group].items()) for group in groups)
        (place / "entry_points.txt").write_text(text, encoding="utf-8")
    (place / "METADATA").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def doctor(
    folder: Path, *flags: str, timeout_s: float = 300, **environment: str
) -> tuple[int, list[dict[str, Any]], str]:
    """`python -m lgsrr.doctor --json` in a folder: exit code, findings, stderr."""
    metadata = folder / "metadata"
    if not metadata.exists():
        install_metadata(metadata)
    path = os.pathsep.join([str(metadata), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "lgsrr.doctor", "--json", *flags], cwd=folder, text=True, capture_output=True,
        timeout=timeout_s, env={**os.environ, "PYTHONPATH": path, **environment},
    )  # fmt: skip
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


# Checks for tests


def is_well(config: DoctorConfig) -> Iterator[Finding]:
    print("a library that talks")
    yield Finding(level="ok", found=f"runs are in {config.runs}")


def hangs(config: DoctorConfig) -> Iterator[Finding]:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(config.runs, "pids").write_text(f"{os.getpid()} {child.pid}")
    time.sleep(600)
    yield Finding(level="ok", found="never")


def crashes(config: DoctorConfig) -> Iterator[Finding]:
    print("Segmentation fault", file=sys.stderr, flush=True)
    os.kill(os.getpid(), 11)
    yield Finding(level="ok", found="never")


def raises(config: DoctorConfig) -> Iterator[Finding]:
    yield Finding(level="ok", found="so far")
    raise RuntimeError("no sk-proj-0123456789abcdefgh is good enough")
