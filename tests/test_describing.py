"""From a clip to a label: who describes it is found by an entry point, and asks as the training data were asked."""

from __future__ import annotations

import dataclasses
import io
import json
import tomllib
from collections.abc import Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from lgsrr import describing
from lgsrr import predict as predict_command
from lgsrr.catalog import load_dataset
from lgsrr.describing import ClipSaid, described_by
from lgsrr.errors import ClipError, ConfigError
from lgsrr.extracted import read_extracted
from lgsrr.predictions import Prediction
from lgsrr.predictions_print import print_predictions
from lgsrr.pretrained import load_encoder
from lgsrr.records import Aspect, DescribedBy
from lgsrr.saved_model import new_model, read_card, save_model
from lgsrr.train import model_card
from pipelines.output import Output
from tests.clips import moving_square, write_clip
from tests.extracted_outputs import ASPECTS as EXTRACTED
from tests.extracted_outputs import described, utterances, write_output
from tests.tables_on_disk import write_csv
from tests.tiny import LIMIT, ROOT, sample_data, tiny_config, unboxed

ASPECTS = tuple(aspect.name for aspect in sample_data().aspects)
KNOWN = DescribedBy(
    engine="vllm", model="seer", aspects=tuple(Aspect(name=name) for name in ("Scene Description", *ASPECTS))
)
"""One aspect more than the model uses, and not at the end."""


class Describer:
    """Stands behind the entry point: says of each clip its name and the aspect."""

    def __init__(self) -> None:
        self.asked: list[ClipSaid] = []
        self.how: list[DescribedBy] = []

    def __call__(self, asked: Sequence[ClipSaid], how: DescribedBy) -> list[tuple[str, ...]]:
        self.asked += asked
        self.how.append(how)
        return [tuple(f"{Path(said.video).stem}: {aspect.name}" for aspect in how.aspects) for said in asked]


@pytest.fixture
def describer(monkeypatch: pytest.MonkeyPatch) -> Describer:
    found = Describer()
    monkeypatch.setattr(describing, "_describer", lambda: found)
    return found


@pytest.fixture
def model(tiny_bert: Path, tmp_path: Path) -> Path:
    """An untrained model, as if its training data had been described by `KNOWN`."""
    return write_model(tmp_path / "model", tiny_bert, KNOWN)


def write_model(folder: Path, tiny_bert: Path, known: DescribedBy | None) -> Path:
    data = dataclasses.replace(sample_data(LIMIT), described_by=known)
    card = model_card(tiny_config(tiny_bert, folder, k=len(data.aspects)), data, tiny_bert)
    torch.manual_seed(0)
    save_model(folder, card, new_model(card, load_encoder(tiny_bert, "mean", None)), tiny_bert)
    return folder


def predict(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    """What the command prints: its answers, or its one message."""
    with pytest.raises(SystemExit) as ended:
        predict_command.main(arguments)
    printed = capsys.readouterr()
    assert ended.value.code == code, printed.err
    assert "Traceback" not in printed.err
    return printed.out if code == 0 else unboxed(printed.err)


# ---- predict -------------------------------------------------------------------------------------------------------


def test_a_clip_is_described_as_the_training_data_were_and_its_answer_tells_what_was_seen(
    model: Path, describer: Describer, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = json.loads(predict(capsys, "--model", str(model), "--video", "new/clip7.mp4", "--text", "nice job"))
    assert describer.how == [KNOWN]
    assert describer.asked == [ClipSaid(video="new/clip7.mp4", text="nice job")]
    assert answer["descriptions"] == {aspect: f"clip7: {aspect}" for aspect in ASPECTS}
    flags = [part for aspect, text in answer["descriptions"].items() for part in ("--description", f"{aspect}={text}")]
    by_hand = json.loads(predict(capsys, "--model", str(model), "--text", "nice job", *flags))
    assert "descriptions" not in by_hand
    assert {name: value for name, value in answer.items() if name != "descriptions"} == by_hand


def test_many_clips_of_a_table_are_described_at_once(
    model: Path, describer: Describer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [("id", "text", "video", "label"), ("a", "nice job", "clips/1.mp4", "x"), ("a", "oh, please", "2.mp4", "y")]
    table = write_csv(tmp_path / "new.csv", rows)
    lines = predict(capsys, "--model", str(model), "--input", str(table), "--video", "s3://new").splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["a", "a"]
    assert [said.video for said in describer.asked] == ["s3://new/clips/1.mp4", "s3://new/2.mp4"]
    assert len(describer.how) == 1


def test_another_describer_is_named_and_asked_the_same(
    model: Path, tiny_bert: Path, tmp_path: Path, describer: Describer, capsys: pytest.CaptureFixture[str]
) -> None:
    does_not_say = write_model(tmp_path / "older", tiny_bert, None)
    for folder in (model, does_not_say):
        asked = ("--video", "c.mp4", "--text", "nice job", "--describer-model", "other")
        predict(capsys, "--model", str(folder), *asked)
    assert describer.how[0] == dataclasses.replace(KNOWN, model="other")
    assert [aspect.name for aspect in describer.how[1].aspects] == list(ASPECTS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--video", "c.mp4"], "name either one utterance (--text) or a file of them (--input)"),
        (["--text", " ", "--video", "c.mp4"], "--text is empty"),
        (["--text", "hi", "--video", "c.mp4", "--description", "A=Waves."], "--video and --description"),
        (["--text", "hi", "--describer-model", "m"], "name one with --video"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(
    arguments: list[str], message: str, model: Path, describer: Describer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in predict(capsys, "--model", str(model), *arguments, code=2)
    assert not describer.asked


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"described_by": None}, "does not say what described its training data"),
        ({"described_by": dataclasses.replace(KNOWN, engine="scripted")}, "by rules that look at nothing"),
        ({"described_by": dataclasses.replace(KNOWN, engine="remote")}, "by 'seer' on a server"),
        ({"aspects": ()}, "reads the text alone (K = 0)"),
    ],
)
def test_a_model_without_a_video_model_of_its_own_asks_for_one(
    changes: dict[str, Any], message: str, model: Path
) -> None:
    card = dataclasses.replace(read_card(model), **changes)
    with pytest.raises(ConfigError) as refused:
        described_by(card)
    assert message in str(refused.value)
    assert ("--describer-model" in str(refused.value)) == bool(card.aspects)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([], "no entry point in the group 'lgsrr.describers'"),
        ([EntryPoint("mine", "no.such.module:describe", describing.GROUP)], "mine, which describes clips"),
    ],
)
def test_an_installation_that_cannot_describe_says_so(
    points: list[EntryPoint], message: str, model: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(describing, "entry_points", lambda group: points)
    assert message in predict(capsys, "--model", str(model), "--video", "c.mp4", "--text", "hi", code=2)


def test_the_table_on_a_terminal_shows_what_was_seen_and_follows_no_markup_in_it() -> None:
    from lgsrr.classifier import Asked

    relation = {"Facial Expressions": 0.5}
    said = Prediction(
        id="1", label="Praise", probability=0.9, importance={"text": 0.5, **relation}, complementarity=relation,
        inconsistency=relation,
    )  # fmt: skip
    asked = Asked(id="1", text="hi", descriptions=("[red]She smiles.",))
    screen = Console(file=io.StringIO(), width=160)
    print_predictions([asked], [said], screen, seen=[{"Facial Expressions": "[red]She smiles."}])
    assert "[red]She smiles." in screen.file.getvalue()  # type: ignore[attr-defined]


# ---- what is known of the describer --------------------------------------------------------------------------------


def settings(**changes: Any) -> dict[str, Any]:
    asked = {"engine": "vllm", "model": "big", "prompting": "separate", "frames": 8, "max_side": 224}
    return {**asked, "max_new_tokens": 99, "llm": "gpt", **changes}


def test_a_dataset_and_its_models_know_who_described_the_clips(tmp_path: Path, tiny_bert: Path) -> None:
    """The last run that described, whatever was ranked later with other settings."""
    output = Output(str(tmp_path / "out"))
    output.write_utterances(utterances(8))
    output.commit([described(u.id) for u in utterances(8)])
    listed = [{"name": name, "instruction": f"Look at {name}.", "frequency": 9} for name in EXTRACTED]
    output.write_json("aspects.json", {"aspects": listed})
    runs = [
        {"settings": settings(model="old"), "stages": {"describe": {"done": 1}}},
        {"settings": settings(), "stages": {"describe": {"done": 5}, "rank": {"done": 5}}},
        {"settings": settings(model="no"), "stages": {"describe": {"done": 0}, "rank": {"done": 9}}},
        {"settings": settings(model="never"), "stages": {"rank": {"done": 9}}},
    ]
    output.write_json("manifest.json", {"complete": True, "runs": runs})
    known = load_dataset("mine", str(tmp_path / "out"), require=()).described_by
    assert known is not None
    assert (known.model, known.prompting, known.frames, known.max_side) == ("big", "separate", 8, 224)
    assert [(a.name, a.instruction) for a in known.aspects] == [(name, f"Look at {name}.") for name in EXTRACTED]
    assert read_card(write_model(tmp_path / "model", tiny_bert, known)).described_by == known


@pytest.mark.parametrize(
    "content", [None, "{", "[]", '{"runs": []}', '{"runs": [{"stages": {"describe": {"done": 1}}}]}']
)
def test_a_manifest_that_does_not_say_it_stops_nothing(tmp_path: Path, content: str | None) -> None:
    write_output(tmp_path)
    (tmp_path / "manifest.json").unlink()
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    assert read_extracted("mine", str(tmp_path)).described_by is None


def test_a_model_of_before_is_read_as_one_that_does_not_say(model: Path) -> None:
    raw = json.loads((model / "model.json").read_text())
    del raw["described_by"]
    (model / "model.json").write_text(json.dumps(raw))
    assert read_card(model).described_by is None


# ---- the project's own describer -----------------------------------------------------------------------------------


def test_the_entry_point_of_the_project_names_its_describer() -> None:
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][describing.GROUP]
    from pipelines.describe_clips import describe_clips

    loaded = [EntryPoint(name, value, describing.GROUP).load() for name, value in points.items()]
    assert loaded == [describe_clips]


def test_clips_that_cannot_be_read_are_named_together_before_a_model_is_looked_for(tmp_path: Path) -> None:
    from pipelines.describe_clips import describe_clips

    (tmp_path / "noise.mp4").write_bytes(b"noise" * 100)
    asked = [ClipSaid(video=str(tmp_path / name), text="hi") for name in ("noise.mp4", "gone.mp4")]
    with pytest.raises(ClipError) as refused:
        describe_clips(asked, dataclasses.replace(KNOWN, model=str(tmp_path / "no model")))
    assert "2 clips cannot be described" in str(refused.value)
    assert all(said.video in str(refused.value) for said in asked)


def test_a_video_model_describes_clips_with_the_prompts_of_extraction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random weights say something, and never in the sections of the joint prompt."""
    from pipelines.describe_clips import describe_clips
    from pipelines.videollama2.random_checkpoint import tiny, write_checkpoint

    monkeypatch.setenv("VIDEOLLAMA2_CANARY", "off")
    folder = write_checkpoint(tmp_path / "tiny", tiny())
    clip = write_clip(tmp_path / "clip.mp4", moving_square(20))
    how = DescribedBy(
        engine="vllm", model=str(folder), aspects=KNOWN.aspects[:2], prompting="separate", max_new_tokens=12
    )
    asked = [ClipSaid(video=str(clip), text=text) for text in ("nice job", "oh, please")]
    texts = describe_clips(asked, how)
    assert [len(said) for said in texts] == [2, 2]
    assert all(text.strip() for said in texts for text in said)
    with pytest.raises(ClipError, match=r"(?s)2 clips cannot be described.*the section 'Scene Description' is missing"):
        describe_clips(asked, dataclasses.replace(how, prompting="joint"))
