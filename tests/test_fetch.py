"""Fetching the released tables, from local git repositories of the authors' layout."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from lgsrr import fetch
from lgsrr.catalog import load_dataset
from lgsrr.errors import DataError
from lgsrr.fetch import fetch_tables
from tests.tables_on_disk import edit, write_released

LABEL_FILE = "data/data_text/MIntRec2.0/dev.tsv"


@pytest.fixture(autouse=True)
def _git_of_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings of the person who runs the tests."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    for dataset in ("mintrec2", "iemocap_da"):
        write_released(root / "data", dataset)
    (root / "LICENSE").write_text("MIT\n")
    (root / "run.py").write_text("print('code that nobody asked for')\n")
    git(root, "init", "--quiet")
    commit(root)
    return root


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def commit(root: Path) -> str:
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "tables")
    return git(root, "rev-parse", "HEAD")


def nothing_left(folder: Path) -> bool:
    return sorted(path.name for path in folder.iterdir()) == ["repository"]


@pytest.mark.parametrize("partial", ["true", "false"])
def test_fetched_tables_load_and_name_their_commit(tmp_path: Path, repository: Path, partial: str) -> None:
    git(repository, "config", "uploadpack.allowFilter", partial)
    dest = tmp_path / "new" / "tables"
    assert fetch_tables(dest, str(repository))
    assert load_dataset("mintrec2", str(dest)).digest == load_dataset("mintrec2", str(repository)).digest
    names = ["LICENSE", "SOURCE.json", "data_desc", "data_rank", "data_text"]
    assert sorted(path.name for path in dest.iterdir()) == names
    record = json.loads((dest / "SOURCE.json").read_text())
    assert record["commit"] == git(repository, "rev-parse", "HEAD")
    assert record["source"] == str(repository)
    assert record["utterances"]["iemocap_da"] == {"train": 6, "dev": 2, "test": 4}
    assert [path.name for path in dest.parent.iterdir()] == ["tables"]


def test_tables_at_the_root_of_a_mirror_are_found_too(tmp_path: Path, repository: Path) -> None:
    for name in ("data_text", "data_desc", "data_rank"):
        (repository / "data" / name).rename(repository / name)
    commit(repository)
    assert fetch_tables(tmp_path / "tables", repository.as_uri())


def test_a_second_fetch_does_nothing_and_says_so(
    tmp_path: Path, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = fetch.Fetch(dest=tmp_path / "tables", source=str(repository))
    fetch.fetch(config)
    assert capsys.readouterr().out.startswith("fetched: ")
    before = (config.dest / "SOURCE.json").stat().st_mtime_ns
    fetch.fetch(config)
    assert capsys.readouterr().out.startswith("already fetched, nothing done: ")
    assert (config.dest / "SOURCE.json").stat().st_mtime_ns == before


def test_an_empty_folder_is_filled_and_any_other_is_left_alone(tmp_path: Path, repository: Path) -> None:
    empty, other = tmp_path / "empty", tmp_path / "other"
    empty.mkdir()
    assert fetch_tables(empty, str(repository))
    other.mkdir()
    (other / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match=r"other: is not empty, .*Choose another --dest"):
        fetch_tables(other, str(repository))
    assert (other / "thesis.txt").read_text() == "years of work"
    with pytest.raises(DataError, match="is a file"):
        fetch_tables(other / "thesis.txt", str(repository))


def test_tables_of_another_source_are_not_mistaken_for_those_asked_for(tmp_path: Path, repository: Path) -> None:
    fetch_tables(tmp_path / "tables", str(repository))
    with pytest.raises(DataError, match=r"holds tables fetched from .*repository, not https://github\.com/thuiar"):
        fetch_tables(tmp_path / "tables")


def test_a_machine_without_git_is_told(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(DataError, match="git is not installed"):
        fetch_tables(tmp_path / "tables", str(repository))
    assert nothing_left(tmp_path)


def test_a_machine_without_network_is_told_and_a_token_in_the_url_is_not_shown(
    tmp_path: Path, repository: Path
) -> None:
    with pytest.raises(DataError, match=r"http://127\.0\.0\.1:9/LGSRR: cannot be reached") as told:
        fetch_tables(tmp_path / "tables", "http://me:token@127.0.0.1:9/LGSRR")
    assert "token" not in str(told.value)
    assert nothing_left(tmp_path)


def test_a_source_that_is_no_repository_is_told(tmp_path: Path, repository: Path) -> None:
    with pytest.raises(DataError, match=r"gone: no git repository there"):
        fetch_tables(tmp_path / "tables", str(tmp_path / "gone"))
    with pytest.raises(DataError, match=r"--upload-pack=evil: no git repository there"):
        fetch_tables(tmp_path / "tables", "--upload-pack=evil")
    assert nothing_left(tmp_path)


def test_a_repository_without_the_tables_is_told(tmp_path: Path, repository: Path) -> None:
    git(repository, "rm", "-r", "--quiet", "data/data_rank")
    commit(repository)
    with pytest.raises(DataError, match=r"not the released tables, data_rank missing. Expected https://github"):
        fetch_tables(tmp_path / "tables", str(repository))
    assert nothing_left(tmp_path)


def test_damaged_tables_are_told_with_the_row_and_nothing_is_kept(tmp_path: Path, repository: Path) -> None:
    edit(repository / LABEL_FILE, "Taunt", "Tau")
    commit(repository)
    with pytest.raises(DataError, match=r"damaged, nothing was kept. data_text/MIntRec2\.0/dev\.tsv, line 3: unknown"):
        fetch_tables(tmp_path / "tables", str(repository))
    assert nothing_left(tmp_path)


def test_a_table_that_is_a_link_to_elsewhere_is_not_followed(tmp_path: Path, repository: Path) -> None:
    table = repository / LABEL_FILE
    secret = tmp_path.with_name(f"{tmp_path.name}-elsewhere.tsv")
    table.rename(secret)
    table.symlink_to(secret)
    commit(repository)
    with pytest.raises(DataError, match="damaged, nothing was kept"):
        fetch_tables(tmp_path / "tables", str(repository))
