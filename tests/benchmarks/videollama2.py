"""VideoLLaMA2 on vLLM beside our transformers model one clip at a time, which is the way of the authors' package.

    python -m tests.benchmarks.videollama2 --videos ../shared/videos

All on one random checkpoint of 37 M parameters, float32, 16 frames at 112 pixels, 64 new tokens an answer, in one run:

(a) clips per second, decoding included: vLLM with 32 requests in flight, against one clip after the other
(b) generated tokens per second of vLLM with 32 in flight, each on a clip of its own, against one at a time; the clips
    were asked about before, so that what is measured is generation
(c) the time of three prompts on one clip, against that of one prompt, on clips not seen before
(d) the peak of memory while the checkpoint is loaded by transformers, over the size of its weights

Turns alternate, so that a drift of the machine falls on both ways; the median of the turns' ratios is what counts.
While the transformers model runs, the engine's processes, which spin when idle, are stopped; and it runs on as many
threads as serve it best. The same few files stand for many clips: each request gives its clip a name of its own, so
that vLLM takes it for one that it has not seen.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import torch

from lgsrr import cli
from pipelines.videollama2 import VideoLlama2ForConditionalGeneration, VideoLlama2Processor
from pipelines.videollama2.canary import versions
from pipelines.videollama2.random_checkpoint import midsize, tiny, write_checkpoint
from tests.clips import moving_square, write_clip
from tests.test_videollama2_model import MEASURE

INSTRUCTIONS = (
    "Describe the speakers' actions in the video.",
    "Describe the speakers' facial expressions in the video.",
    "Describe how the speakers deal with each other in the video.",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    videos: str = "../shared/videos"
    """Folder with clips (*.mp4); where it is absent, clips are made."""
    turns: int = 3
    """Turns of each way; the medians over the turns are compared."""
    clips: int = 8
    """Clips in each turn of the transformers model; vLLM has `in_flight` of them."""
    in_flight: int = 32
    """Requests that vLLM has at once."""
    tokens: int = 64
    """New tokens of an answer."""
    eager: bool = False
    """Run vLLM without torch.compile."""


class Bench:
    """Both ways over one checkpoint, and the clips."""

    def __init__(self, folder: Path, files: list[Path], settings: Settings) -> None:
        self.settings = settings
        self.files = files
        self.names: Iterator[int] = itertools.count()
        self.processor = VideoLlama2Processor.from_pretrained(folder)
        self.prompts = [self.processor.build_prompt(words) for words in INSTRUCTIONS]
        self.model = VideoLlama2ForConditionalGeneration.from_pretrained(folder)
        self.threads = min((1, torch.get_num_threads()), key=self._seconds_on)
        torch.set_num_threads(self.threads)
        self.known = self.new(settings.in_flight)
        self.llm = self._engine(folder)

    def _seconds_on(self, threads: int) -> float:
        torch.set_num_threads(threads)
        self.by_transformers(1)
        return self.by_transformers(2)[0]

    def _engine(self, folder: Path) -> Any:
        from vllm import LLM

        return LLM(
            str(folder),
            dtype="float32",
            max_model_len=1024,
            max_num_seqs=self.settings.in_flight,
            max_num_batched_tokens=2048,
            block_size=32,  # of 128, the CPU's default, more of a prompt is computed again
            enforce_eager=self.settings.eager,
            disable_log_stats=True,
        )

    def file(self, clip: int) -> Path:
        return self.files[clip % len(self.files)]

    def request(self, clip: int, prompt: int = 0, file: Path | None = None) -> dict[str, Any]:
        """A prompt on the clip of that number, to vLLM a clip of its own, whatever its file."""
        return {
            "prompt": self.prompts[prompt],
            "multi_modal_data": {"video": file or self.file(clip)},
            "multi_modal_uuids": {"video": [f"clip-{clip}"]},
        }

    def by_vllm(self, requests: list[dict[str, Any]]) -> float:
        """Seconds that vLLM takes for all of them, in flight together."""
        from vllm import SamplingParams

        sampling = SamplingParams(temperature=0, max_tokens=self.settings.tokens, ignore_eos=True)
        started = time.perf_counter()
        outputs = self.llm.generate(requests, sampling, use_tqdm=False)
        seconds = time.perf_counter() - started
        assert all(len(output.outputs[0].token_ids) == self.settings.tokens for output in outputs)
        return seconds

    def by_transformers(self, clips: int) -> tuple[float, float]:
        """Seconds for `clips` clips one after the other, and the share of them spent on decoding and resizing."""
        count, preparing, started = self.settings.tokens, 0.0, time.perf_counter()
        for clip in range(clips):
            begun = time.perf_counter()
            inputs = self.processor(text=self.prompts[0], videos=self.file(clip))
            preparing += time.perf_counter() - begun
            self.model.generate(**inputs, max_new_tokens=count, min_new_tokens=count)
        seconds = time.perf_counter() - started
        return seconds, preparing / seconds

    def throughput(self) -> tuple[float, float, float]:
        """(a): clips per second of vLLM, of transformers, and the latter's share of decoding."""
        with stopped():
            seconds, decoding = self.by_transformers(self.settings.clips)
        many = self.by_vllm([self.request(clip) for clip in self.new(self.settings.in_flight)])
        return self.settings.in_flight / many, self.settings.clips / seconds, decoding

    def new(self, count: int) -> list[int]:
        """Numbers of clips that vLLM has not seen."""
        return list(itertools.islice(self.names, count))

    def generation(self) -> tuple[float, float]:
        """(b): tokens per second with all in flight, and one at a time."""
        requests = [self.request(clip) for clip in self.known]
        self.by_vllm(requests)
        alone = self.by_vllm(requests[:1])
        many = self.by_vllm(requests)
        return self.settings.tokens * len(requests) / many, self.settings.tokens / alone

    def three_prompts(self) -> tuple[float, float]:
        """(c): mean seconds for three prompts on a new clip, and for one prompt on a new clip, over the same files."""
        files = self.files[:4]
        three = one = 0.0
        for file, of_three, of_one in zip(files, self.new(len(files)), self.new(len(files)), strict=True):
            three += self.by_vllm([self.request(of_three, prompt, file) for prompt in range(3)])
            one += self.by_vllm([self.request(of_one, 0, file)])
        return three / len(files), one / len(files)


@contextlib.contextmanager
def stopped() -> Iterator[None]:
    """Stops the processes below this one, which are the engine's, and lets them go on."""
    engine = psutil.Process().children(recursive=True)
    for process in engine:
        process.suspend()
    try:
        yield
    finally:
        for process in engine:
            process.resume()


def loading(folder: Path, small: Path) -> float:
    """(d): peak of memory over the weights' size, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(small), str(folder)], capture_output=True, text=True, check=True
    )
    peak, weights = map(int, done.stdout.split())
    return peak / weights


def turns(count: int, measure: Callable[[], tuple[float, ...]]) -> list[tuple[float, ...]]:
    """A turn that warms up, and `count` that are kept."""
    measure()
    return [measure() for _ in range(count)]


def report(name: str, aim: str, unit: str, rows: list[tuple[float, ...]]) -> None:
    first, second = (statistics.median(row[i] for row in rows) for i in (0, 1))
    ratios = [row[0] / row[1] for row in rows]
    print(
        f"{name}  {first:7.2f} against {second:7.2f} {unit}: {statistics.median(ratios):.2f} times "
        f"({min(ratios):.2f} to {max(ratios):.2f}), aim {aim}",
        flush=True,
    )


def measure(settings: Settings) -> None:
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    with tempfile.TemporaryDirectory() as place:
        files = sorted(Path(settings.videos).glob("*.mp4"))
        if not files:
            files = [write_clip(Path(place) / f"{i}.mp4", moving_square(200, 360, 640, seed=i)) for i in range(4)]
        folder = write_checkpoint(Path(place) / "midsize", midsize())
        small = write_checkpoint(Path(place) / "tiny", tiny())
        bench = Bench(folder, files, settings)
        parameters = sum(p.numel() for p in bench.model.parameters())
        print(", ".join(f"{k} {v}" for k, v in versions().items()), sep="")
        print(
            f"{parameters / 1e6:.1f} M parameters, {settings.in_flight} in flight, {settings.tokens} new tokens; ",
            end="",
        )
        print(f"transformers on {bench.threads} threads, the machine's load {os.getloadavg()[0]:.1f}")
        rows = turns(settings.turns, bench.throughput)
        report("(a) vLLM / transformers   ", ">= 2.0", "clips/s", rows)
        print(f"    transformers spends {100 * statistics.median(r[2] for r in rows):.0f} % on decoding and resizing")
        report("(b) in flight / one by one", ">= 5", "tokens/s", turns(settings.turns, bench.generation))
        report("(c) three prompts / one   ", "<= 1.5", "s", turns(settings.turns, bench.three_prompts))
        print(f"(d) loading holds {loading(folder, small):.2f} times the weights at its peak, aim < 2")
        bench.llm.llm_engine.engine_core.shutdown()


if __name__ == "__main__":
    cli.run(
        measure, Settings, prog="python -m tests.benchmarks.videollama2",
        description=(__doc__ or "").split("\n\n")[0], example="python -m tests.benchmarks.videollama2 --turns 3",
    )  # fmt: skip
