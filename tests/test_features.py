"""Texts are tokenised once, whole or cut as the lengths say, and kept under what decides the tokens."""

from __future__ import annotations

import dataclasses
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from lgsrr import features as features_module
from lgsrr.errors import ConfigError, DataError
from lgsrr.features import Features, Lengths, check_ranked, featurise
from lgsrr.pretrained import load_tokenizer
from lgsrr.records import Aspect, Dataset, Utterance
from tests.tables_on_disk import ACTIONS, ASPECTS, EXPRESSIONS, INTERACTION
from tests.tiny import sample_data

LENGTHS = Lengths(text=8, description=12)


def made(
    tiny_bert: Path, cache: Path, dataset: Dataset | None = None, k: int = 3, lengths: Lengths = LENGTHS
) -> Features:
    return featurise(dataset or sample_data(10), encoder=tiny_bert, lengths=lengths, num_aspects=k, cache=cache)


def with_text(dataset: Dataset, text: str) -> Dataset:
    first, *others = dataset.utterances
    return dataclasses.replace(dataset, utterances=(dataclasses.replace(first, text=text), *others))


def test_the_second_time_no_tokenizer_is_touched(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = made(tiny_bert, tmp_path)

    def refuse(folder: Path) -> None:
        raise AssertionError("the tokenizer was loaded again")

    monkeypatch.setattr(features_module, "load_tokenizer", refuse)
    second = made(tiny_bert, tmp_path)
    assert (second.ids, second.key) == (first.ids, first.key)
    np.testing.assert_array_equal(second.labels_U, first.labels_U)
    np.testing.assert_array_equal(second.positions_UK, first.positions_UK)
    for ours, theirs in zip(second.columns(), first.columns(), strict=True):
        np.testing.assert_array_equal(ours[0], theirs[0])
        np.testing.assert_array_equal(ours[1], theirs[1])


def test_whatever_decides_the_tokens_makes_another_key(tiny_bert: Path, tmp_path: Path) -> None:
    other_bert = Path(shutil.copytree(tiny_bert, tmp_path / "bert"))
    with (other_bert / "tokenizer_config.json").open("a") as file:
        file.write("\n")
    dataset = sample_data(10)
    renamed = (dataclasses.replace(dataset.aspects[0], name="Gestures"), *dataset.aspects[1:])
    made_of = [
        made(tiny_bert, tmp_path),
        made(tiny_bert, tmp_path, with_text(dataset, "something else")),
        made(tiny_bert, tmp_path, lengths=Lengths(text=9, description=12)),
        made(tiny_bert, tmp_path, lengths=Lengths(text=8, description=11)),
        made(tiny_bert, tmp_path, k=2),
        made(tiny_bert, tmp_path, dataclasses.replace(dataset, aspects=renamed)),
        made(other_bert, tmp_path),
    ]
    assert len({features.key for features in made_of}) == len(made_of)
    assert len(list((tmp_path / "tokens").iterdir())) == len(made_of)


def test_other_labels_or_rankings_share_the_tokens(tiny_bert: Path, tmp_path: Path) -> None:
    dataset = sample_data(10)
    unranked = tuple(dataclasses.replace(u, ranking=None, label=None) for u in dataset.utterances)
    other = made(tiny_bert, tmp_path, dataclasses.replace(dataset, utterances=unranked))
    assert other.key == made(tiny_bert, tmp_path).key
    assert (other.labels_U == -1).all()


def test_a_text_is_cut_to_its_length_and_keeps_its_first_and_last_token(tiny_bert: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(tiny_bert)
    features = made(tiny_bert, tmp_path)
    for (values, offsets), most in zip(features.columns(), [8, 12, 12, 12], strict=True):
        lengths = np.diff(offsets)
        assert lengths.max() == most  # something was cut, so that the next lines say something
        assert (values[offsets[:-1]] == tokenizer.cls_token_id).all()
        assert (values[offsets[1:] - 1] == tokenizer.sep_token_id).all()
    whole = tokenizer(sample_data(10).utterances[0].text)["input_ids"]
    values, offsets = features.columns()[0]
    assert values[: offsets[1] - 1].tolist() == whole[: offsets[1] - 1]


def test_the_tokenizer_of_the_tiny_encoder_knows_the_words_of_the_sample(tiny_bert: Path, tmp_path: Path) -> None:
    unknown = load_tokenizer(tiny_bert).unk_token_id
    assert all((values != unknown).all() for values, _ in made(tiny_bert, tmp_path).columns())


def test_a_text_of_ten_thousand_words_is_cut_at_once(tiny_bert: Path, tmp_path: Path) -> None:
    dataset = with_text(sample_data(10), "nice job " * 5_000)
    started = time.monotonic()
    values, offsets = made(tiny_bert, tmp_path, dataset).columns()[0]
    assert offsets[1] == 8
    assert values[7] == load_tokenizer(tiny_bert).sep_token_id
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("text", ['"quoted" and\ttabbed', "so 😀 happy 👍🏽", "naïve — café", "  spaces  "])
def test_quotes_tabs_emoji_and_accents_become_tokens(tiny_bert: Path, tmp_path: Path, text: str) -> None:
    values, offsets = made(tiny_bert, tmp_path, with_text(sample_data(10), text)).columns()[0]
    assert values[: offsets[1]].tolist() == load_tokenizer(tiny_bert)(text, truncation=True, max_length=8)["input_ids"]


@pytest.mark.parametrize("k", [0, 1, 2, 3])
def test_only_the_first_k_aspects_are_read(tiny_bert: Path, tmp_path: Path, k: int) -> None:
    features = made(tiny_bert, tmp_path, k=k)
    assert features.num_aspects == k
    assert features.tokens.column_names == ["text", *(a.name for a in sample_data().aspects[:k])]
    if k:
        assert features.positions_UK is not None
        assert features.positions_UK.shape == (30, k)
    else:
        assert features.positions_UK is None


@pytest.mark.parametrize("k", [4, -1])
def test_a_k_that_the_data_does_not_have_is_one_clear_message(tiny_bert: Path, tmp_path: Path, k: int) -> None:
    with pytest.raises(ConfigError, match=f"k is {k}"):
        made(tiny_bert, tmp_path, k=k)


def ranked(*ranking: str, id: str = "u0") -> Dataset:
    utterance = Utterance(
        id=id, text="t", split="train", label="Praise", descriptions=("a", "b", "c"), ranking=ranking or None
    )
    aspects = tuple(Aspect(name=name) for name in ASPECTS)
    return Dataset(name="mine", source="here.csv", labels=("Praise",), aspects=aspects, utterances=(utterance,))


def test_a_ranking_of_more_aspects_keeps_its_order_over_those_used(tiny_bert: Path, tmp_path: Path) -> None:
    dataset = ranked(INTERACTION, EXPRESSIONS, ACTIONS)
    by_k = {k: made(tiny_bert, tmp_path, dataset, k=k).positions_UK for k in (1, 2, 3)}
    assert {k: positions.tolist() for k, positions in by_k.items() if positions is not None} == {
        1: [[0]],
        2: [[1, 0]],  # Speakers' Actions, then Facial Expressions: the latter is the more important one
        3: [[2, 1, 0]],
    }


def test_a_missing_ranking_is_one_clear_message(tiny_bert: Path, tmp_path: Path) -> None:
    dataset = ranked(id="u7")
    positions = made(tiny_bert, tmp_path, dataset).positions_UK
    assert positions is not None
    with pytest.raises(DataError, match=r"1 training utterances of mine have no ranking .*'u7'.*--rank-weight 0"):
        check_ranked(dataset, positions)


def test_a_writer_that_dies_leaves_no_half_file(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("lgsrr.files._flush", die)  # everything is written, nothing is known to be on the disk
        with pytest.raises(KeyboardInterrupt):
            made(tiny_bert, tmp_path)
    assert list((tmp_path / "tokens").iterdir()) == []
    assert len(made(tiny_bert, tmp_path).ids) == 30


@pytest.mark.parametrize("lengths", [{"text": 2, "description": 9}, {"text": 9, "description": 0}])
def test_a_length_without_room_for_a_word_is_refused(lengths: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="at least 3"):
        Lengths(**lengths)


@pytest.mark.parametrize("k", [0, 1, 2, 3])
def test_the_first_aspects_of_more_are_what_fewer_aspects_would_be(tiny_bert: Path, tmp_path: Path, k: int) -> None:
    ours, theirs = made(tiny_bert, tmp_path).first_aspects(k), made(tiny_bert, tmp_path, k=k)
    for (values, offsets), (other_values, other_offsets) in zip(ours.columns(), theirs.columns(), strict=True):
        np.testing.assert_array_equal(values, other_values)
        np.testing.assert_array_equal(offsets, other_offsets)
    assert ours.num_aspects == k
    if k == 0:
        assert ours.positions_UK is None
    else:
        np.testing.assert_array_equal(ours.positions_UK, theirs.positions_UK)
