"""The bundled sample: it is what its program makes, and it rewards reasoning over the descriptions."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lgsrr import sample_scenes as scenes
from lgsrr.aspects import CANONICAL
from lgsrr.catalog import SAMPLE_FOLDER, load_dataset
from lgsrr.errors import DataError
from lgsrr.records import SPLITS
from lgsrr.sample_table import write_sample

SAMPLE = load_dataset("sample", None)


def files(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def test_the_bundled_files_are_what_the_program_makes(tmp_path: Path) -> None:
    write_sample(tmp_path, seed=0)
    assert files(tmp_path) == files(SAMPLE_FOLDER)
    for name in files(tmp_path):
        made, bundled = tmp_path / name, SAMPLE_FOLDER / name
        if name.suffix == ".parquet":
            assert pq.read_table(made).equals(pq.read_table(bundled)), name
        else:
            assert made.read_text(encoding="utf-8") == bundled.read_text(encoding="utf-8"), name


def test_the_same_seed_makes_the_same_data_and_another_seed_other_data(tmp_path: Path) -> None:
    digests = []
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        write_sample(tmp_path / name, seed=seed)
        digests.append(load_dataset("sample", str(tmp_path / name)).digest)
    assert digests[0] == digests[1] != digests[2]


def test_the_files_are_small() -> None:
    assert sum((SAMPLE_FOLDER / name).stat().st_size for name in files(SAMPLE_FOLDER)) < 100_000


def test_splits_have_every_intent_in_the_same_share() -> None:
    counts = Counter((u.split, u.label) for u in SAMPLE.utterances)
    assert [len(SAMPLE.split(split)) for split in SPLITS] == [192, 48, 80]
    assert set(counts.values()) == {24, 6, 10}
    assert len(SAMPLE.labels) == 8


@pytest.mark.parametrize("split", SPLITS)
def test_nobody_can_tell_more_than_six_in_ten_by_the_text(split: str) -> None:
    heard: dict[str, Counter[str | None]] = defaultdict(Counter)
    utterances = [u for u in SAMPLE.utterances if u.split == split]
    for u in utterances:
        heard[u.text][u.label] += 1
    best = sum(max(labels.values()) for labels in heard.values()) / len(utterances)
    assert 0.5 <= best <= 0.6


def test_the_aspect_that_is_ranked_first_settles_the_intent() -> None:
    shorts = list(CANONICAL)[:3]
    for u in SAMPLE.utterances:
        assert u.label is not None
        decisive = u.descriptions[shorts.index(scenes.RANKINGS[u.label][0])]
        meant = [intent for intent, said in scenes.DECIDES.items() if any(wording in decisive for wording in said)]
        assert meant == [u.label]
        if u.split == "train":
            assert u.ranking == tuple(CANONICAL[short] for short in scenes.RANKINGS[u.label])


def test_a_linear_model_over_words_tells_nearly_all_with_the_descriptions_and_half_without() -> None:
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    train, test = SAMPLE.split("train"), SAMPLE.split("test")
    scores = []
    for told in (lambda u: u.text, lambda u: " ".join((u.text, *u.descriptions))):
        model = make_pipeline(CountVectorizer(), LogisticRegression(C=10, max_iter=1000))
        model.fit([told(u) for u in train], [u.label for u in train])
        scores.append(model.score([told(u) for u in test], [u.label for u in test]))
    assert scores[0] <= 0.6
    assert scores[1] >= 0.95


def test_no_description_stands_twice_and_each_is_of_the_length_that_a_model_writes() -> None:
    descriptions = [text for u in SAMPLE.utterances for text in u.descriptions]
    assert len(set(descriptions)) == len(descriptions)
    assert all(20 <= len(text.split()) <= 40 for text in descriptions)


def test_the_manifest_says_that_it_was_made_up() -> None:
    manifest = json.loads((SAMPLE_FOLDER / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["made_by"] == "lgsrr.sample_table"
    assert manifest["cost_usd"] == 0


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written"):
        write_sample(tmp_path / "file", seed=0)
