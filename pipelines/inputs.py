"""What a run of extraction reads: the utterances, the aspects, and the descriptions that are there already."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from lgsrr.catalog import load_dataset
from lgsrr.errors import DataError
from lgsrr.records import Aspect, Dataset, Utterance

from .calls import Json, fingerprint_of
from .discover import by_hand
from .outcomes import Outcome, Receipt
from .output import Output
from .settings import ExtractConfig

GIVEN = "given"
"""Stands for the model on the receipt of a description that came with the data."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    """The data of a run."""

    dataset: Dataset
    """Limited as asked."""
    given: Mapping[str, Mapping[str, str]]
    """Utterance → aspect → description that came with the data."""

    @property
    def utterances(self) -> tuple[Utterance, ...]:
        return self.dataset.utterances


def read_inputs(config: ExtractConfig) -> Inputs:
    """Read and check the data. Raises DataError and ConfigError."""
    dataset = load_dataset(config.dataset, config.data, require=()).head(config.limit)
    names = [aspect.name for aspect in dataset.aspects]
    given = {u.id: dict(zip(names, u.descriptions, strict=True)) for u in dataset.utterances if u.descriptions}
    return Inputs(dataset=dataset, given=given)


def known_aspects(config: ExtractConfig, inputs: Inputs, output: Output) -> Mapping[str, Json]:
    """aspects.json of a run that does not discover: named by hand, found earlier, or the data's own.

    Raises DataError where there are none.
    """
    if config.aspects is not None:
        return by_hand(config.aspects).document
    found = output.aspects()
    if found is not None:
        return found
    if not inputs.dataset.aspects:
        raise DataError(
            f"{inputs.dataset.source}: the data name no aspects. Add the stage discover (--stages discover,…), or name "
            "the aspects: --aspects A,E,I"
        )
    listed = [dataclasses.asdict(aspect) for aspect in inputs.dataset.aspects]
    mark = fingerprint_of({"by": "data", "aspects": [aspect["name"] for aspect in listed]})
    return {"aspects": listed, "found": {"by": "data", "fingerprint": mark}}


def aspects_in(document: Mapping[str, Json]) -> tuple[Aspect, ...]:
    """The aspects of aspects.json, in order."""
    fields = ("name", "instruction", "frequency")
    return tuple(Aspect(**{name: entry.get(name) for name in fields}) for entry in document["aspects"])


def given_outcome(name: str, texts: Mapping[str, str]) -> Outcome:
    """A description that came with the data, as a row of the output."""
    mark = fingerprint_of({"given": dict(texts)})
    receipt = Receipt(fingerprint=mark, model=GIVEN)
    return Outcome(
        id=name, stage="describe", status="done", receipts=(receipt,), aspects=tuple(texts), texts=tuple(texts.values())
    )
