"""`report.html` beside the output: what an extraction did, in one page that needs nothing else.

`facts_of` reads everything back from the output itself (receipts, quarantine, manifest), so that the page tells of all
runs together and can be made anew at any time; `pipelines.report_page` draws it. Only the pictures need the clips.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from lgsrr import storage
from lgsrr.extracted import DESCRIPTIONS_FOLDER, QUARANTINE_FOLDER, RANKINGS_FOLDER
from lgsrr.records import SPLITS

from .advice import advice
from .inputs import GIVEN
from .outcomes import STAGES
from .output import FOLDERS, Output
from .rank import PositionBias, position_bias
from .samples import Sample, draw_samples
from .settings import ExtractConfig
from .thumbnails import Pictures, pictures_of

REPORT_FILE = "report.html"
FIRST_IDS = 5


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of the funnel."""

    name: str
    counts: Mapping[str, int]
    """By split; a split that the step does not concern is left out."""
    note: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Utterances that were set aside for one reason."""

    stage: str
    reason: str
    count: int
    advice: str
    first: tuple[tuple[str, str], ...]
    """(id, detail) of the first few."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What a stage consumed, all runs together."""

    stage: str
    calls: int | None
    """None where they were not counted."""
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    waited_s: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """All that the page shows."""

    dataset: str
    out: str
    made_at: float
    """Seconds since 1970, UTC."""
    ended_early: str | None
    """Why the last run did not come to its end; None where it did."""
    makers: Mapping[str, tuple[str, ...]]
    """Stage → the models that made its rows, by their receipts."""
    funnel: tuple[Step, ...]
    failures: tuple[Failure, ...]
    """Most frequent first."""
    aspects: Mapping[str, Any]
    """aspects.json; empty where there is none."""
    places: Mapping[str, tuple[int, ...]]
    """Aspect → how often it came 1st, 2nd, 3rd, …, as the paper's Table 7."""
    bias: PositionBias | None
    spent: tuple[Spent, ...]
    replaced_usd: float
    """Dollars for rows that newer work has replaced."""
    runs: tuple[Mapping[str, Any], ...]
    """Of the manifest, oldest first."""
    samples: tuple[Sample, ...]
    pictures: Mapping[str, Pictures]

    @property
    def cost_usd(self) -> float:
        return sum(spent.cost_usd for spent in self.spent) + self.replaced_usd


def write_report(config: ExtractConfig, output: Output, *, ended_early: str | None = None) -> str:
    """Write the page of an output, whole or not at all, and say where it is.

    `ended_early` says why the run did not come to its end. Raises DataError where the output cannot be read or written.
    """
    from .report_page import report_page

    path = output.path(REPORT_FILE)
    storage.write_bytes(path, report_page(facts_of(config, output, ended_early=ended_early)))
    return path


def latest_report(config: ExtractConfig, output: Output, *, changed: bool) -> str:
    """Where the page of an output is; it is written where the output has `changed`, or there is none yet."""
    path = output.path(REPORT_FILE)
    return write_report(config, output) if changed or storage.kind(path) == "missing" else path


def facts_of(
    config: ExtractConfig, output: Output, *, ended_early: str | None = None, now: float | None = None
) -> Facts:
    """Read what an output holds."""
    manifest = output.manifest() or {}
    aspects = output.aspects() or {}
    samples = draw_samples(output, seed=config.seed)
    rankings = output.table(RANKINGS_FOLDER, ["id", "aspects", "shown"]).to_pylist()
    return Facts(
        dataset=config.dataset,
        out=output.out,
        made_at=time.time() if now is None else now,
        ended_early=ended_early,
        makers=_makers(output),
        funnel=_funnel(output),
        failures=_failures(output),
        aspects=aspects,
        places=places_of((row["aspects"] for row in rankings), [a["name"] for a in aspects.get("aspects", [])]),
        bias=bias_of(rankings),
        spent=spent_of(output),
        replaced_usd=float(manifest.get("cost_of_replaced_usd", 0.0)),
        runs=tuple(manifest.get("runs", ())),
        samples=samples,
        pictures=pictures_of(samples, videos=config.videos, data=config.data),
    )


def _makers(output: Output) -> dict[str, tuple[str, ...]]:
    found = {stage: _models(output, folder) for stage, folder in FOLDERS.items()}
    return {stage: tuple(sorted(models - {GIVEN})) for stage, models in found.items() if models - {GIVEN}}


def _models(output: Output, folder: str) -> set[str]:
    return set(output.table(folder, ["model"]).column("model").unique().to_pylist())


def _funnel(output: Output) -> tuple[Step, ...]:
    split_of = {row["id"]: row["split"] for row in output.utterances()}
    described = output.ids(DESCRIPTIONS_FOLDER)
    models = output.table(DESCRIPTIONS_FOLDER, ["id", "model"])
    given = set(models.filter(pc.equal(models.column("model"), GIVEN)).column("id").to_pylist())
    troubled = output.table(QUARANTINE_FOLDER, ["id", "stage", "reason"]).to_pylist()
    clip_failed = [row["id"] for row in troubled if row["stage"] == "describe" and row["reason"] != "no_clip"]
    looked = any(row["stage"] == "describe" for row in troubled) or len(given) < len(described)
    ranked = output.ids(RANKINGS_FOLDER)

    def step(name: str, ids: Iterable[str], *, splits: Sequence[str] = SPLITS, note: str = "") -> Step:
        counts = Counter(split_of[i] for i in ids if i in split_of)
        return Step(name=name, counts={split: counts[split] for split in splits}, note=note)

    steps = [step("utterances", split_of)]
    if looked:
        steps.append(step("with a clip", {*described, *clip_failed}, note="found, whether it could be decoded or not"))
    note = f"{len(given):,} of the descriptions came with the data" if given else ""
    steps.append(step("described", described, note=note))
    steps.append(
        step("ranked", ranked, splits=("train",), note="training split alone: labels stay out of dev and test")
    )
    return tuple(steps)


def _failures(output: Output) -> tuple[Failure, ...]:
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in output.table(QUARANTINE_FOLDER, ["id", "stage", "reason", "detail", "advice"]).to_pylist():
        groups.setdefault((row["stage"], row["reason"]), []).append(row)
    failures = [
        Failure(
            stage=stage,
            reason=reason,
            count=len({row["id"] for row in rows}),
            advice=rows[0]["advice"] or advice(reason),
            first=tuple((row["id"], row["detail"] or "") for row in rows[:FIRST_IDS]),
        )
        for (stage, reason), rows in groups.items()
    ]
    return tuple(sorted(failures, key=lambda failure: (-failure.count, failure.stage, failure.reason)))


def places_of(rankings: Iterable[Sequence[str]], names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Aspect → how often it came 1st, 2nd, …; the aspects of `names` first, and none where nothing is ranked."""
    counts: Counter[tuple[str, int]] = Counter()
    for order in rankings:
        counts.update((name, place) for place, name in enumerate(order))
    if not counts:
        return {}
    listed = list(dict.fromkeys([*names, *sorted(name for name, _ in counts)]))
    size = 1 + max(place for _, place in counts)
    return {name: tuple(counts[name, place] for place in range(size)) for name in listed}


def bias_of(rankings: Iterable[Mapping[str, Any]]) -> PositionBias | None:
    """The position bias of those rankings that know the order in which their aspects were shown."""
    known: dict[tuple[tuple[str, ...], tuple[str, ...]], tuple[tuple[str, ...], tuple[str, ...]]] = {}
    pairs = []
    for r in rankings:
        if r["shown"] and sorted(r["shown"]) == sorted(r["aspects"]):
            pair = (tuple(r["shown"]), tuple(r["aspects"]))
            pairs.append(known.setdefault(pair, pair))  # of millions of rankings few differ
    alike = [pair for pair in pairs if len(pair[0]) == len(pairs[0][0])]
    return position_bias(alike) if alike and len(alike[0][0]) > 1 else None


def spent_of(output: Output) -> tuple[Spent, ...]:
    """What each stage consumed, from the receipts; what failed is counted where it failed."""
    columns = ["attempts", "input_tokens", "output_tokens", "cost_usd", "waited_s"]
    failed = output.table(QUARANTINE_FOLDER, ["stage", *columns])
    rows = {stage: failed.filter(pc.equal(failed.column("stage"), stage)).select(columns) for stage in STAGES}
    for stage, folder in FOLDERS.items():
        rows[stage] = pa.concat_tables([output.table(folder, columns), rows[stage]])
    found = (output.aspects() or {}).get("found", {})
    spent = [_spent(stage, rows[stage]) for stage in STAGES if len(rows[stage])]
    if found.get("by") == "llm":
        sums = {name: found.get(name, 0) for name in ("input_tokens", "output_tokens", "cost_usd")}
        spent.insert(0, Spent(stage="discover", calls=None, **sums))
    return tuple(spent)


def _spent(stage: str, rows: pa.Table) -> Spent:
    # all rows that one answer made carry its waiting; the row with its calls is the one that counts
    called = rows.filter(pc.greater(rows.column("attempts"), 0))
    return Spent(
        stage=stage,
        calls=_sum(rows, "attempts"),
        input_tokens=_sum(rows, "input_tokens"),
        output_tokens=_sum(rows, "output_tokens"),
        cost_usd=_sum(rows, "cost_usd"),
        waited_s=_sum(called, "waited_s"),
    )


def _sum(rows: pa.Table, column: str) -> Any:
    """0 where there is nothing to add."""
    return pc.sum(rows.column(column), min_count=0).as_py()
