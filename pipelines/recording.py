"""One run of extraction as MLflow shows it: settings, counts, failures, tokens, dollars, speed, prompts and samples.

It goes through `lgsrr.tracker`, as training does: to a local database by default, to $MLFLOW_TRACKING_URI where that is
set, and into a journal while the server is away. A run is recorded at its end, in one go. What is kept with it is
copied to `<runs>/extract/<run key>/` first, since a journal names files and the output may be a store. Whatever becomes
of the tracking server, the extraction itself has come to its end before and is not touched.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lgsrr import storage
from lgsrr.blotting import without_keys
from lgsrr.destination import TrackingConfig
from lgsrr.errors import LgsrrError
from lgsrr.extracted import ASPECTS_FILE, MANIFEST_FILE, RANKINGS_FOLDER
from lgsrr.files import atomic_path
from lgsrr.replay import Replay
from lgsrr.spool import Status
from lgsrr.tracker import Tracker, describe

from . import discover
from .calls import Request
from .describe_prompts import PROMPT_VERSION, joint_prompt, separate_prompt
from .inputs import Inputs, aspects_in
from .output import FOLDERS, Output
from .rank import PROMPT_VERSION as RANK_VERSION
from .rank import RankAsk, rank_request, rank_work
from .report import REPORT_FILE, bias_of
from .samples import draw_samples
from .settings import ExtractConfig

if TYPE_CHECKING:
    from .manifest import StageReport

FOLDER = "extract"
_ODD = re.compile(r"[^A-Za-z0-9_.-]+")


def check_recording(config: ExtractConfig) -> None:
    """Whether runs can be recorded where the settings and the environment say. Raises ConfigError."""
    _tracking(config).destination(Path(config.runs))


def record(
    config: ExtractConfig,
    output: Output,
    inputs: Inputs,
    reports: Sequence[StageReport],
    *,
    started: float,
    command: str,
    status: Status = "FINISHED",
    reason: str = "",
    timeout_s: float = 60.0,
) -> str:
    """Record a run, and say in one line where it is, or why it is not there yet; never raises an LgsrrError.

    Args:
        reports: what each stage did.
        started: when the run began, seconds since 1970.
        command: the command line; keys in it are blotted out.
        status: FAILED or KILLED for a run that ended early.
        reason: why it did.
        timeout_s: how long the server is waited for; what is left is sent by the next command.
    """
    runs, key = Path(config.runs).resolve(), run_key(config.dataset, started)
    tags = {
        "lgsrr.program": "extract",
        "lgsrr.output": without_keys(output.out),
        "lgsrr.command": without_keys(command),
    }
    if reason:
        tags["lgsrr.ended_early"] = without_keys(reason)
    try:
        kept = _keep(runs / FOLDER / key, config, output, inputs)
        tracking = _tracking(config)
        replay = Replay(runs, tracking, skip=(key,))
        moments = iter((int(started * 1000),))  # the first moment that is asked for: the run began before now
        tracker = Tracker(runs, tracking, key, now_ms=lambda: next(moments, None) or time.time_ns() // 1_000_000)
        data = describe(inputs.dataset)
        tracker.start(dataset=config.dataset, name=key, params=params_of(config), data=data, tags=tags)
        tracker.metrics(metrics_of(output, reports), step=0)
        for path in kept:
            tracker.artifact(path)
        tracker.finish(status)
        where = tracker.close(timeout_s=timeout_s).where
        replay.close()
        return where
    except (LgsrrError, OSError) as error:
        return f"this run could not be recorded: {error}"


def run_key(dataset: str, started: float) -> str:
    """The run's own name, which also names its folder."""
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(started))
    plain = _ODD.sub("-", dataset).strip("-.")[:60] or "data"
    return f"extract-{plain}-{stamp}-{os.urandom(3).hex()}"


def params_of(config: ExtractConfig) -> dict[str, object]:
    """The settings, without passwords in addresses; the key itself is none of them."""
    return {
        name: without_keys(value) if isinstance(value, str) else value
        for name, value in dataclasses.asdict(config).items()
    }


def metrics_of(output: Output, reports: Sequence[StageReport]) -> dict[str, float]:
    """The numbers of a run: `<stage>/…` of this run, `output/…` of the output in all."""
    numbers: dict[str, float] = {}
    for r in reports:
        worked = r.done + r.set_aside
        numbers |= {
            f"{r.stage}/rows": r.rows,
            f"{r.stage}/before": r.before,
            f"{r.stage}/done": r.done,
            f"{r.stage}/set_aside": r.set_aside,
            f"{r.stage}/input_tokens": r.usage.input_tokens,
            f"{r.stage}/output_tokens": r.usage.output_tokens,
            f"{r.stage}/cost_usd": r.usage.cost_usd,
            f"{r.stage}/seconds": r.seconds,
        }
        if worked and r.seconds > 0:
            speed = "clips_per_second" if r.stage == "describe" else "rows_per_second"
            numbers[f"{r.stage}/{speed}"] = worked / r.seconds
        numbers |= {f"{r.stage}/failed/{_ODD.sub('_', name)}": count for name, count in r.reasons.items()}
    numbers["cost_usd"] = sum(r.usage.cost_usd for r in reports)
    numbers["output/utterances"] = len(output.utterances())
    for stage in FOLDERS:
        numbers[f"output/{stage}/done"] = len(output.done(stage))
        numbers[f"output/{stage}/set_aside"] = len(output.quarantined(stage))
    numbers["output/cost_usd"] = output.cost_usd()
    bias = bias_of(output.table(RANKINGS_FOLDER, ["aspects", "shown"]).to_pylist())
    if bias is not None:
        numbers["position_bias/shown_first_ranked_first"] = bias.first_first
        numbers["position_bias/kendall_tau"] = bias.correlation
    return {name: float(value) for name, value in numbers.items()}


def prompts_of(config: ExtractConfig, output: Output, inputs: Inputs) -> Iterator[tuple[str, str]]:
    """(stage, text): one prompt of each stage that was asked for, as it is or would be sent for the first utterance."""
    training = any(u.split == "train" for u in inputs.utterances)
    if "discover" in config.stage_list and config.aspects is None and training:
        ask = discover.DiscoverAsk(
            model=config.llm, k=config.k, rounds=config.rounds, subset=config.subset, seed=config.seed
        )
        request = discover.requests(inputs.utterances, inputs.dataset.labels, ask)[0]
        yield "discover", _prompt(discover.PROMPT_VERSION, request)
    aspects = aspects_in(output.aspects() or {"aspects": []})
    if not aspects:
        return
    if "describe" in config.stage_list and inputs.utterances:
        said = inputs.utterances[0].text
        text = joint_prompt(said, aspects) if config.prompting == "joint" else separate_prompt(said, aspects[0])
        yield "describe", f"{PROMPT_VERSION}\n\n[{config.frames} frames of the clip]\n{text}\n"
    names = [aspect.name for aspect in aspects]
    work = rank_work(inputs.utterances, output.descriptions(), names, seed=config.seed)[:1]
    if "rank" in config.stage_list and work:
        yield "rank", _prompt(RANK_VERSION, rank_request(work[0], RankAsk(model=config.llm)))


def _prompt(version: str, request: Request) -> str:
    said = "\n\n".join(f"[{message['role']}]\n{message['content']}" for message in request.messages)
    return f"{version}\n\n{said}\n\n[answer's schema]\n{json.dumps(request.schema, indent=2, ensure_ascii=False)}\n"


def _keep(folder: Path, config: ExtractConfig, output: Output, inputs: Inputs) -> list[Path]:
    """Lay what is kept with the run into a folder that stays, and say what lies there."""
    for name in (ASPECTS_FILE, MANIFEST_FILE, REPORT_FILE):
        content = storage.read_if_there(output.path(name))
        if content is not None:
            _write(folder / name, without_keys(content.decode()) if name == MANIFEST_FILE else content.decode())
    for stage, text in prompts_of(config, output, inputs):
        _write(folder / "prompts" / f"{stage}.txt", text)
    lines = (json.dumps(dataclasses.asdict(s), ensure_ascii=False) for s in draw_samples(output, seed=config.seed))
    _write(folder / "samples.jsonl", "".join(f"{line}\n" for line in lines))
    return sorted(folder.iterdir())


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(text.encode(errors="replace"))


def _tracking(config: ExtractConfig) -> TrackingConfig:
    return TrackingConfig(experiment=config.experiment or experiment_of(config.dataset))


def experiment_of(dataset: str) -> str:
    """The experiment of a dataset's extractions, where the settings name none."""
    return f"lgsrr-{dataset}-extraction"
