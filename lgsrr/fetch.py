"""Bring the released tables here from the repository of LGSRR's authors.

    python -m lgsrr.catalog fetch --dest DIR [--source URL-or-path]

One shallow clone beside the destination, of the tables alone where the server can do that; then both datasets are
loaded and checked, and only what passed is renamed into place, with the commit in SOURCE.json. The tables are not
copied into the project: they carry licences of their own.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from lgsrr.catalog import load_dataset
from lgsrr.errors import DataError
from lgsrr.records import SPLITS
from lgsrr.released import FOLDERS, RELEASED, locate

SOURCE_URL = "https://github.com/thuiar/LGSRR"
"""The authors' repository, as named in the paper's abstract (https://aclanthology.org/2025.emnlp-main.1130)."""
SOURCE_FILE = "SOURCE.json"
_BESIDES = ("LICENSE*", "README*")
_STALLED = ("-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=60")  # bytes per second, seconds
_SAFE = ("-c", "core.symlinks=false", "-c", "core.hooksPath=/dev/null")  # a table is a file, and nothing is run


def fetch_tables(dest: Path, source: str = SOURCE_URL) -> bool:
    """Fetch the released tables into the folder `dest`; False where they have been fetched before.

    `source` is a URL or the path of a git repository of the authors' layout. Nothing is left at `dest` unless both
    datasets were there and sound. Raises DataError where git or the source cannot be had, the source is another
    repository, the tables are damaged, or `dest` holds something else.
    """
    if _already_fetched(dest, source):
        return False
    try:
        dest.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{dest.name}-", dir=dest.parent) as folder:
            clone, tables = Path(folder) / "clone", Path(folder) / "tables"
            commit = _clone(source, clone)
            _take_tables(clone, tables, source)
            record = {"source": _public(source), "commit": commit, "utterances": _checked(tables, source)}
            (tables / SOURCE_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
            os.rename(tables, dest)
    except OSError as error:
        raise DataError(f"{dest}: cannot be written: {error.strerror or error}. Choose another --dest.") from error
    return True


def read_source(dest: Path) -> dict[str, object]:
    """What SOURCE.json of a fetched folder says: source, commit, and utterances per dataset and split."""
    path = dest / SOURCE_FILE
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}). Remove {dest} and fetch again.") from None
    if not isinstance(record, dict):
        raise DataError(f"{path}: expected a JSON object. Remove {dest} and fetch again.")
    return record


def _already_fetched(dest: Path, source: str) -> bool:
    """Whether `dest` holds the tables of `source`; DataError where it holds anything else."""
    if not dest.is_dir():
        if dest.exists():
            raise DataError(f"{dest}: is a file; expected a folder to be made. Choose another --dest.")
        return False
    if (dest / SOURCE_FILE).is_file():
        there = read_source(dest).get("source")
        if there == _public(source):
            return True
        raise DataError(f"{dest}: holds tables fetched from {there}, not {_public(source)}. Choose another --dest.")
    if any(dest.iterdir()):
        raise DataError(f"{dest}: is not empty, and its content was not fetched. Choose another --dest.")
    return False


def _clone(source: str, clone: Path) -> str:
    """Clone the newest commit, the files of the tables alone, and return the commit's id."""
    local = Path(source).expanduser()
    url = local.resolve().as_uri() if local.exists() else source  # a plain path would ignore --depth
    _git(
        source,
        *_STALLED,
        *_SAFE,
        "clone",
        "--quiet",
        "--depth=1",
        "--filter=blob:none",
        "--no-checkout",
        "--",
        url,
        clone,
    )
    (clone / ".git" / "info").mkdir(exist_ok=True)
    patterns = "".join(f"{pattern}\n" for pattern in (*(f"{folder}/" for folder in FOLDERS), *_BESIDES))
    (clone / ".git" / "info" / "sparse-checkout").write_text(patterns, encoding="utf-8")
    checkout = (*_STALLED, *_SAFE, "-c", "core.sparseCheckout=true", "-c", "core.autocrlf=false", "checkout", "--quiet")
    _git(source, "-C", clone, *checkout, "HEAD")
    return _git(source, "-C", clone, "rev-parse", "HEAD").strip()


def _git(source: str, *arguments: str | Path) -> str:
    """Run git, which asks no questions; its failure is one DataError about `source`."""
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    command = ["git", *map(str, arguments)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment, check=False)
    except FileNotFoundError:
        raise DataError(
            "git is not installed, or not on the PATH. Install it (apt install git), or clone "
            f"{_public(source)} elsewhere and name the clone with --data."
        ) from None
    if done.returncode:
        raise DataError(_why(source, done.stderr.replace(source, _public(source))))
    return done.stdout


def _why(source: str, said: str) -> str:
    """What git's complaint means for the user, with git's own words at the end."""
    lines = [line.strip() for line in said.splitlines() if line.startswith(("fatal:", "error:"))] or [said.strip()]
    words = f"(git: {_public(lines[0])})"
    source = _public(source)
    if re.search(r"resolve host|unable to access|connect to|timed out|unreachable|early EOF|too slow", said, re.I):
        return f"{source}: cannot be reached; is there a network? {words} Name a mirror or a clone with --source."
    if re.search(r"not found|does not exist|not appear to be a git|could not read Username|access denied", said, re.I):
        return f"{source}: no git repository there that may be read {words}. Expected {SOURCE_URL} or a copy of it."
    return f"{source}: cannot be cloned {words}. Expected {SOURCE_URL} or a copy of it."


def _take_tables(clone: Path, tables: Path, source: str) -> None:
    """Move the three folders of tables, and the licence, out of the clone."""
    root = locate(str(clone))
    missing = [name for name in FOLDERS if root is None or not (Path(root) / name).is_dir()]
    if root is None or missing:
        raise DataError(
            f"{_public(source)}: not the released tables, {', '.join(missing)} missing. Expected {SOURCE_URL} "
            "or a copy of it (--source)."
        )
    tables.mkdir()
    for name in FOLDERS:
        shutil.move(Path(root) / name, tables / name)
    for pattern in _BESIDES:
        for path in clone.glob(pattern):
            shutil.move(path, tables / path.name)


def _checked(tables: Path, source: str) -> dict[str, dict[str, int]]:
    """Load both datasets; utterances per dataset and split."""
    counts: dict[str, dict[str, int]] = {}
    for name in RELEASED:
        try:
            dataset = load_dataset(name, str(tables))
        except DataError as error:
            told = str(error).replace(f"{tables}{os.sep}", "")
            raise DataError(f"{_public(source)}: the tables are damaged, nothing was kept. {told}") from None
        counts[name] = {split: len(dataset.split(split)) for split in SPLITS}
    return counts


def _public(text: str) -> str:
    """`text` without the user name and the password or token that a URL in it may carry."""
    return re.sub(r"(\w+://)[^/@\s]+@", r"\1", text)


# The command


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fetch:
    """Where the tables go, and where they come from."""

    dest: Path
    """Folder to make; must not exist, be empty, or have been fetched before."""
    source: str = SOURCE_URL
    """URL or path of a git repository with the tables: the authors', a mirror, or your clone."""


def fetch(config: Fetch) -> None:
    """Fetch the tables, and say what came and how to look at it."""
    from rich.console import Console

    with Console(stderr=True).status(f"fetching {_public(config.source)}"):
        new = fetch_tables(config.dest, config.source)
    record = read_source(config.dest)
    print(f"{'fetched' if new else 'already fetched, nothing done'}: {config.dest}")
    print(f"from {record['source']}, commit {record['commit']}")
    print("see them with:")
    for name in RELEASED:
        print(f"    python -m lgsrr.catalog --dataset {name} --data {config.dest}")


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command `python -m lgsrr.catalog fetch`."""
    from lgsrr import cli

    cli.run(
        fetch,
        Fetch,
        prog="python -m lgsrr.catalog fetch",
        description="Bring the released tables from the authors' repository, check them, and put them in place.",
        example="python -m lgsrr.catalog fetch --dest ../lgsrr-tables",
        argv=argv,
    )
