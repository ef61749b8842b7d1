"""Classify utterances with a trained model: label, probability and the three relations that are its reasons.

    python -m lgsrr.predict --model FOLDER --text "nice job" --description "Facial Expressions=She frowns."
    python -m lgsrr.predict --model FOLDER --text "nice job" --video clip.mp4
    python -m lgsrr.predict --model models:/lgsrr-mintrec2@champion --input utterances.jsonl > labels.jsonl

A clip is described first, by the video model and the prompts that described the model's training data. On a terminal
the answer is a table; in a pipe it is one JSON object per line.
"""

from __future__ import annotations

import dataclasses
import json
import posixpath
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import tyro

from lgsrr import cli
from lgsrr.aspects import find
from lgsrr.errors import ConfigError, DataError
from lgsrr.tables import Columns, Row, did_you_mean, read_table

if TYPE_CHECKING:
    from lgsrr.classifier import Asked
    from lgsrr.saved_model import ModelCard

PROG = "python -m lgsrr.predict"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictConfig:
    model: str
    """A model's folder, `runs:/<id>`, `models:/<name>/<version>` or `models:/<name>@<alias>`."""
    text: str | None = None
    """One utterance."""
    description: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """What is seen of it, once per aspect of the model: "Facial Expressions=She frowns at him." """
    video: str | None = None
    """The clip in which --text is said, in place of --description: a path or URI. With --input, the folder of the clips
    that its column `video` names, in place of the columns of the aspects."""
    describer_model: str | None = None
    """The VideoLLaMA2 that describes clips, `small`, a folder or a name on the hub; None: the one that described the
    model's training data."""
    input: str | None = None
    """Many utterances: a CSV, TSV, JSONL or Parquet file with `text`, a column per aspect and perhaps `id`."""
    json: bool = False
    """JSON lines on a terminal too."""
    runs: str = "runs"
    """Folder of the local tracking store, for `runs:/` and `models:/`."""

    def __post_init__(self) -> None:
        if (self.text is None) == (self.input is None):
            raise ConfigError("name either one utterance (--text) or a file of them (--input)")
        if self.input is not None and self.description:
            raise ConfigError("--description goes with --text; a file (--input) has a column per aspect")
        if self.video is not None and self.description:
            raise ConfigError("--video and --description both say what is seen; expected one of them")
        if self.describer_model is not None and self.video is None:
            raise ConfigError("--describer-model describes clips, and none is given; name one with --video")


def predict(config: PredictConfig) -> None:
    """Print the prediction of every utterance asked for."""
    from lgsrr.classifier import Classifier
    from lgsrr.destination import TrackingConfig
    from lgsrr.logged_models import resolve_model
    from lgsrr.saved_model import read_card

    folder = resolve_model(config.model, Path(config.runs), TrackingConfig())
    card = read_card(folder)
    if config.video is not None:
        asked = _from_clips(config, card)
    else:
        asked = list(_from_file(config.input, card.aspects) if config.input else _from_flags(config, card.aspects))
    answers = Classifier.load(folder).predict(asked)
    seen = [dict(zip(card.aspects, a.descriptions, strict=True)) for a in asked] if config.video is not None else None
    if config.json or not sys.stdout.isatty():
        for place, prediction in enumerate(answers):
            more = {} if seen is None else {"descriptions": seen[place]}
            print(json.dumps({**dataclasses.asdict(prediction), **more}, ensure_ascii=False))
        return
    from lgsrr.predictions_print import print_predictions

    print_predictions(asked, answers, seen=seen)


def _from_clips(config: PredictConfig, card: ModelCard) -> list[Asked]:
    """Utterances whose clips are described for this."""
    from lgsrr.classifier import Asked
    from lgsrr.describing import ClipSaid, describe

    assert config.video is not None
    if config.input is None:
        assert config.text is not None
        said = [("1", ClipSaid(video=config.video, text=_given_text(config.text)))]
    else:
        rows = enumerate(read_table(config.input, Columns(("text", "video"), ("id",), str.lower)), start=1)
        said = [
            (
                row.values.get("id") or str(number),
                ClipSaid(video=posixpath.join(config.video, _present(row, "video")), text=_present(row, "text")),
            )
            for number, row in rows
        ]
    described = describe([clip for _, clip in said], card, config.describer_model)
    return [
        Asked(id=name, text=clip.text, descriptions=texts) for (name, clip), texts in zip(said, described, strict=True)
    ]


def _given_text(text: str) -> str:
    if not text.strip():
        raise ConfigError("--text is empty; a prediction needs it")
    return text


def _from_flags(config: PredictConfig, aspects: Sequence[str]) -> Iterator[Asked]:
    from lgsrr.classifier import Asked

    assert config.text is not None
    text_said = _given_text(config.text)
    said: dict[str, str] = {}
    for flag in config.description:
        name, separator, text = flag.partition("=")
        aspect = find(name, aspects)
        if not separator or aspect is None:
            raise ConfigError(
                f"--description {flag!r} names no aspect of this model; expected ASPECT=TEXT with one of "
                f"{', '.join(aspects) or 'none: the model reads the text alone'}.{did_you_mean(name, aspects)}"
            )
        if aspect in said:
            raise ConfigError(f"--description names {aspect!r} twice")
        if not text.strip():
            raise ConfigError(f"--description of {aspect!r} is empty; a prediction needs it")
        said[aspect] = text
    missing = [aspect for aspect in aspects if aspect not in said]
    if missing:
        flags = " ".join(f'--description "{aspect}=..."' for aspect in missing)
        raise ConfigError(f"this model needs a description of {', '.join(missing)}; add {flags}")
    yield Asked(id="1", text=text_said, descriptions=tuple(said[aspect] for aspect in aspects))


def _from_file(path: str, aspects: Sequence[str]) -> Iterator[Asked]:
    from lgsrr.classifier import Asked

    columns = Columns(
        required=("text", *aspects), optional=("id",), rename=lambda name: find(name, aspects) or name.strip().lower()
    )
    for number, row in enumerate(read_table(path, columns), start=1):
        descriptions = tuple(_present(row, aspect) for aspect in aspects)
        yield Asked(id=row.values.get("id") or str(number), text=_present(row, "text"), descriptions=descriptions)


def _present(row: Row, column: str) -> str:
    value = row.values[column]
    if value is None or not value.strip():
        raise DataError(f"{row.place}: {column!r} is empty; a prediction needs it")
    return value


def main(argv: Sequence[str] | None = None) -> NoReturn:
    cli.run(
        predict,
        PredictConfig,
        prog=PROG,
        description=(__doc__ or "").split("\n\n")[0],
        example=f'{PROG} --model FOLDER --text "nice job" --description "Facial Expressions=She frowns."',
        argv=argv,
    )


if __name__ == "__main__":
    main()
