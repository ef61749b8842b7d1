"""From a clip to the descriptions that a trained model reads: asked as they were asked for its training data.

The library knows no video model. A package that has one names a function under the entry point group
`lgsrr.describers`; the programs of this project do (`pipelines/describe_clips.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Protocol

from lgsrr.errors import ConfigError
from lgsrr.records import Aspect, DescribedBy
from lgsrr.saved_model import ModelCard

GROUP = "lgsrr.describers"
IN_PROCESS = ("vllm", "transformers")
"""Engines of extraction whose model can be loaded here by the same name."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClipSaid:
    """A clip, and what is said in it."""

    video: str
    """Path or URI."""
    text: str


class Describes(Protocol):
    """What stands behind an entry point."""

    def __call__(self, asked: Sequence[ClipSaid], how: DescribedBy) -> list[tuple[str, ...]]:
        """A text for each clip under each of `how.aspects`.

        Raises ClipError, which names the clips that cannot be described, and ModelError.
        """


def describe(asked: Sequence[ClipSaid], card: ModelCard, model: str | None = None) -> list[tuple[str, ...]]:
    """A description of each clip under each aspect of a trained model, in its order.

    `model` names another video model than the one that described the training data. Raises ConfigError where none is
    known or nothing is installed that describes, ClipError and ModelError.
    """
    how = described_by(card, model)
    names = [aspect.name for aspect in how.aspects]
    places = [names.index(aspect) for aspect in card.aspects]
    return [tuple(texts[place] for place in places) for texts in _describer()(asked, how)]


def described_by(card: ModelCard, model: str | None = None) -> DescribedBy:
    """How clips are described for a trained model. Raises ConfigError where no video model is known for it."""
    if not card.aspects:
        raise ConfigError("this model reads the text alone (K = 0), and a clip tells it nothing; leave out --video")
    known = card.described_by
    if model is not None:
        unasked = DescribedBy(engine="transformers", model=model, aspects=tuple(Aspect(name=a) for a in card.aspects))
        return dataclasses.replace(known or unasked, model=model)
    if known is None:
        reason = "this model does not say what described its training data"
    elif known.engine not in IN_PROCESS:
        where = "by rules that look at nothing" if known.engine == "scripted" else f"by {known.model!r} on a server"
        reason = f"the training data of this model were described {where} (engine {known.engine!r})"
    else:
        return known
    raise ConfigError(f"{reason}; name the VideoLLaMA2 that is to describe the clip: --describer-model FOLDER|HUB-ID")


def _describer() -> Describes:
    """The one that is installed, the first by name of several. Raises ConfigError."""
    found = sorted(entry_points(group=GROUP), key=lambda point: point.name)
    if not found:
        raise ConfigError(
            f"nothing is installed that describes clips: no entry point in the group {GROUP!r}. The project's own "
            "comes with its installation (make setup, or pip install --editable .); without one, give --description"
        )
    try:
        described: Describes = found[0].load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"{found[0].name}, which describes clips ({found[0].value}), cannot be loaded: {error}; install it again"
        ) from error
    return described
