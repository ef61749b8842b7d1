"""The stage describe: its rows, their plan, and their way through Ray."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterator, Set
from pathlib import Path
from typing import TYPE_CHECKING

from lgsrr import storage
from lgsrr.errors import ConfigError
from lgsrr.records import Aspect

from .calls import fingerprint_of
from .clips import ClipFinder, NoClip
from .describe import Asking, DescribeWork, Naming, set_aside
from .describe_prompts import PROMPT_VERSION
from .describe_rows import DecodeRows, DescribeRows
from .engines import EngineConfig, Scripted
from .flow import Step, stream
from .inputs import Inputs
from .llm_setup import LlmSetup
from .outcomes import Outcome, Receipt
from .output import Output
from .plan import Candidate, Row, StagePlan, plan_stage
from .settings import ExtractConfig
from .shipped import model_folder

if TYPE_CHECKING:
    from .job import Job

ROWS = 4
"""Clips of a block: their frames lie in memory together."""
IN_THE_ACTOR = ("vllm", "transformers")
"""Engines that hold the model themselves, on the actor's GPUs where there are any."""
TOKENS_PER_FRAME = 100
"""For estimates alone."""


def engine_config(config: ExtractConfig) -> EngineConfig:
    """The engine that the settings ask for. Raises ConfigError where its model is a path, and there is no folder."""
    model = model_folder(config.model)
    is_path = config.model.startswith(("/", "./", "../", "~"))
    if config.engine in IN_THE_ACTOR and is_path and not Path(config.model).expanduser().is_dir():
        raise ConfigError(f"model is {config.model!r}, and there is no such folder; expected a folder or a hub's name")
    return EngineConfig(
        engine=config.engine,
        model="scripted" if config.engine == "scripted" else model,
        frames=config.frames,
        max_side=config.max_side,
        max_new_tokens=config.max_new_tokens,
        max_model_len=config.max_model_len,
        canary=config.canary,
        base_url=config.model_url,
        dtype=config.dtype,
        scripted=_script(config.script),
    )


def _script(path: str | None) -> Scripted:
    if path is None:
        return Scripted()
    try:
        return Scripted(**json.loads(storage.read_bytes(path)))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"script {path}: not what the scripted engine takes ({error})") from None


class DescribeStage:
    """Describing all utterances."""

    def __init__(self, config: ExtractConfig, inputs: Inputs, aspects: tuple[Aspect, ...]) -> None:
        self._config, self._inputs = config, inputs
        self._asking = Asking(aspects=aspects, prompting=config.prompting, engine=engine_config(config))

    def plan(self, output: Output, answers: Set[str]) -> StagePlan:
        """Every utterance, under all aspects; one without a clip is work too, which sets it aside."""
        config = self._config
        return plan_stage(
            "describe",
            self._candidates(),
            done=output.done("describe"),
            quarantined=output.quarantined("describe"),
            answers=answers,
            retry_quarantined=config.retry_quarantined,
            calls_per_row=1 if config.prompting == "joint" else len(self._asking.aspects),
        )

    def _candidates(self) -> Iterator[Candidate]:
        config = self._config
        finder = ClipFinder(videos=config.videos, beside=config.data)
        naming = Naming(self._asking.engine)
        for u in self._inputs.utterances:
            clip = finder.find(u)
            if isinstance(clip, NoClip):
                mark = fingerprint_of({"no clip": clip.reason})
                row = functools.partial(Row, id=u.id, fingerprint=mark, work=clip.reason)
                yield Candidate(id=u.id, fingerprint=mark, row=row)
                continue
            work = self._asking.work(name=u.id, text=u.text, uri=clip.uri, clip=clip.identity, naming=naming)
            yield Candidate(id=u.id, fingerprint=work.fingerprint, row=functools.partial(self._row, work))

    def _row(self, work: DescribeWork) -> Row:
        config = self._config
        tokens = config.frames * TOKENS_PER_FRAME + len(work.calls) * config.max_new_tokens // 2
        return Row(id=work.id, fingerprint=work.fingerprint, work=work.to_text(), calls=work.calls, tokens=tokens)

    def outcomes(self, plan: StagePlan, job: Job) -> Iterator[Outcome]:
        """The plan's rows, by decoders and engines."""
        clips = [row for row in plan.rows if row.calls]
        for row in plan.rows:
            if not row.calls:
                receipt = Receipt(fingerprint=row.fingerprint, model="none", prompt_version=PROMPT_VERSION)
                yield set_aside(row.id, receipt, "no_clip", row.work)
        if clips:
            steps = self._steps(job)
            work = [(row.id, row.work) for row in clips]
            yield from stream(work, steps, min(ROWS, len(clips)), stopped=job.stop_reason, over=job.over)

    def _steps(self, job: Job) -> list[Step]:
        config, board, out = self._config, job.board(), self._config.out
        gpus = self._gpus()
        decode = Step(
            kind=DecodeRows,
            arguments={
                "out": out, "frames": config.frames, "max_side": config.max_side, "board": board,
            },
            actors=config.decoders,
            num_cpus=1.0 if gpus else 0.25,
            calls=1,
        )  # fmt: skip
        setup = LlmSetup.start_remote_engine(config) if config.engine == "remote" else None
        describe = Step(
            kind=DescribeRows,
            arguments={"out": out, "asking": self._asking, "board": board, "setup": setup},
            actors=config.engines,
            num_cpus=1.0 if gpus else 0.25,
            num_gpus=gpus,
            calls=math.ceil(config.clips_in_flight / ROWS),
        )
        return [decode, describe]

    def _gpus(self) -> float:
        """GPUs of an engine. Raises ConfigError where they are asked for and the cluster has none."""
        import ray

        config = self._config
        have = ray.cluster_resources().get("GPU", 0.0)
        if config.engine not in IN_THE_ACTOR:
            return 0.0
        if config.gpus_per_engine is None:
            return 1.0 if have else 0.0
        if config.gpus_per_engine > have:
            raise ConfigError(
                f"gpus_per_engine is {config.gpus_per_engine:g}, but the cluster has {have:g} GPUs; add a GPU node, or "
                "leave --gpus-per-engine out to run on CPUs"
            )
        return config.gpus_per_engine
