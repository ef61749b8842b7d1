"""vLLM for tests: what an engine on two cores needs, and why it is skipped where it cannot run."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.processes import descendants, kill, wait_until

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")  # a fork would inherit torch's threads, and hang
os.environ.setdefault("VLLM_ALLOW_INSECURE_SERIALIZATION", "1")  # sends the counting functions to the engine's process
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")


def why_not() -> str | None:
    """The reason why vLLM cannot be imported here, or None."""
    try:
        import vllm  # noqa: F401
    except Exception as error:
        return f"vLLM cannot be imported: {error!r}; `make clean setup` installs it where it can"
    return None


REASON = why_not()
needs_vllm = [pytest.mark.vllm, pytest.mark.skipif(REASON is not None, reason=REASON or "")]


def start(folder: Path, **settings: Any) -> Any:
    """An engine in a process of its own, float32, small batches so that prompts are cut in chunks."""
    from vllm import LLM

    defaults = {
        "dtype": "float32",
        "enforce_eager": True,
        "max_model_len": 1024,
        "max_num_seqs": 4,
        "max_num_batched_tokens": 256,
        "enable_chunked_prefill": True,
        "enable_prefix_caching": True,
        "disable_log_stats": True,
    }
    return LLM(str(folder), **{**defaults, **settings})


def stop(llm: Any) -> None:
    llm.llm_engine.engine_core.shutdown()


def greedy(tokens: int) -> Any:
    from vllm import SamplingParams

    return SamplingParams(temperature=0, max_tokens=tokens)


def ask(llm: Any, prompts: list[str], clips: list[Any], tokens: int = 16) -> list[Any]:
    """The engine's outputs for prompts and their clips; None is a prompt without a clip."""
    requests = [
        {"prompt": prompt} if clip is None else {"prompt": prompt, "multi_modal_data": {"video": clip}}
        for prompt, clip in zip(prompts, clips, strict=True)
    ]
    outputs: list[Any] = llm.generate(requests, greedy(tokens), use_tqdm=False)
    return outputs


def tokens_of(outputs: list[Any]) -> list[list[int]]:
    return [list(output.outputs[0].token_ids) for output in outputs]


def start_counting(model: Any) -> None:
    """Runs in the engine: notes how many clips go through tower and connector, call by call."""
    original = model.clip_tokens
    model.counted = []

    def counted(pixels_NTCHW: Any) -> Any:
        model.counted.append(len(pixels_NTCHW))
        return original(pixels_NTCHW)

    model.clip_tokens = counted


def read_count(model: Any) -> int:
    """Runs in the engine: clips since the last reading."""
    count: int = sum(model.counted)
    model.counted.clear()
    return count


class Server:
    """vLLM's OpenAI server over a checkpoint, in processes of its own; what it prints goes to a file."""

    FLAGS = ("--dtype=float32", "--enforce-eager", "--max-model-len=1024", "--max-num-seqs=4")

    def __init__(self, folder: Path, log: Path, **environment: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder, self.log = folder, log
        program = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
        address = ["--host=127.0.0.1", f"--port={self.port}"]
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [*program, *address, *self.FLAGS],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
            )

    def comes_up(self, timeout_s: float = 300) -> bool:
        """Waits until it answers, or has ended without."""
        wait_until(lambda: self.process.poll() is not None or self._answers(), timeout_s, f"a server ({self.log})")
        return self.process.poll() is None

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def chat(self, messages: list[dict[str, Any]], tokens: int) -> dict[str, Any]:
        """The first choice of a greedy chat completion; an answer that is no success raises its text."""
        body = {"messages": messages, "max_tokens": tokens, "temperature": 0, "return_token_ids": True}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/chat/completions",
            json.dumps({"model": str(self.folder), **body}).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                choice: dict[str, Any] = json.load(answer)["choices"][0]
                return choice
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{error.code}: {error.read().decode()}") from error

    def stop(self) -> None:
        below = descendants(self.process.pid)
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        kill(below)
