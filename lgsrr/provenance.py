"""Where a result came from: the code's git commit, the packages that were installed, who ran it and where.

Everything here is best effort: no git, no commit yet or an installed wheel give "unknown", never an error. What is
asked once is kept for the life of the process, so that a tag costs a training run nothing.
"""

from __future__ import annotations

import dataclasses
import functools
import getpass
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

_DISTRIBUTION = "lgsrr"
_GIT_TIMEOUT_S = 5.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GitState:
    """The code's state in git."""

    commit: str
    """Full hash, 40 hex digits."""
    dirty: bool
    """Whether tracked files differ from that commit."""


@functools.cache
def git_commit(folder: Path = Path(__file__).parent) -> GitState | None:
    """The state of the repository that `folder` (default: this package) is tracked in; None where there is none.

    A package installed into a `.venv` lies inside somebody's repository without being part of it: that is none, too.
    """
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    if commit is None or not _git(folder, "ls-files", "--", "."):
        return None
    return GitState(commit=commit, dirty=_git(folder, "status", "--porcelain", "--untracked-files=no") != "")


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_GIT_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


@functools.cache
def package_versions() -> dict[str, str]:
    """Installed version of this project and of each package that it needs, by name, in alphabetical order."""
    names = {_DISTRIBUTION, *_needed()}
    versions = {name: _version(name) for name in sorted(names)}
    return {name: version for name, version in versions.items() if version is not None}


def pinned_requirements() -> tuple[str, ...]:
    """The packages that this project needs, pinned as installed here: `torch==2.13.0`.

    This project itself is left out (a logged model carries its code), and so is a build mark like `+cpu`, because no
    public index serves it.
    """
    versions = package_versions()
    return tuple(f"{name}=={version.partition('+')[0]}" for name, version in versions.items() if name != _DISTRIBUTION)


def _needed() -> list[str]:
    try:
        declared = importlib.metadata.requires(_DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    plain = [line for line in declared if "extra ==" not in line]
    return [re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0] for line in plain]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def standard_tags() -> dict[str, str]:
    """Tags that every run carries: program, user, machine, commit and package versions.

    The `mlflow.` names are those that its UI shows in columns of their own.
    """
    git = git_commit()
    tags = {
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": Path(sys.argv[0] or "python").name,
        "mlflow.user": _user(),
        "host": platform.node(),
        "python": platform.python_version(),
        "git.commit": git.commit if git else "unknown",
        "git.dirty": str(git.dirty).lower() if git else "unknown",
    }
    if git is not None:
        tags["mlflow.source.git.commit"] = git.commit
    return tags | {f"package.{name}": version for name, version in package_versions().items()}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
