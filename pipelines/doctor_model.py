"""The doctor's check of the video model: whether its files are whole, whether it fits, and whether it speaks.

What it takes is estimated from the headers of its weights and its config, before a byte of them is read:

    weights    elements × bytes of the dtype it will run in
    room       keys and values of one longest sequence: 2 × layers × KV heads × head size × bytes × tokens
    the rest   a tenth of the weights and 1 GB, for activations, CUDA graphs and the libraries themselves

against 92 % of the smallest GPU, which is what vLLM takes, or what memory is free where there is none. vLLM itself
refuses to start where the room of one sequence is not there. An estimate: within a gigabyte for 7B models.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lgsrr.checkup import DoctorConfig, Finding, Level
from lgsrr.errors import ModelError

from .decoding import Decoded
from .settings import ExtractConfig
from .shipped import model_folder

VLLM_SHARE = 0.92
"""Of a GPU's memory: vLLM's gpu_memory_utilization."""
REST_SHARE, REST_BYTES = 0.1, 1e9
_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
_QUICK_BYTES = 2e9
"""A larger model takes longer to read than the doctor has."""
_PATIENT_S = 300.0
_SAID_TOKENS = 8
_UNITS = (".safetensors", ".bin")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Takes:
    """What a model takes of memory, bytes."""

    weights: float
    per_token: float
    """Keys and values of one token; 0 where the config does not say."""
    tokens: int
    """Of its longest sequence."""

    @property
    def bare(self) -> float:
        """Without room for a single token."""
        return self.weights * (1 + REST_SHARE) + REST_BYTES

    @property
    def whole(self) -> float:
        return self.bare + self.per_token * self.tokens


def video_model(config: DoctorConfig) -> Iterator[Finding]:
    """The model that describes: its files, and the memory for it."""
    name = config.model or ExtractConfig.model
    if config.engine != "vllm":
        yield Finding(level="ok", found=f"no model runs in this cluster (--engine {config.engine})")
        return
    folder = _folder_of(name)
    if folder is not None:
        takes = what_it_takes(folder, dtype=config.dtype, max_model_len=config.max_model_len)
        yield Finding(level="ok", found=f"{folder}: whole, {takes.weights / 1e9:.1f} GB of weights as it will run")
        yield from fits(takes, gpus=gpu_memory(), free=free_memory(), firm=config.model is not None)
        return
    if Path(name).is_absolute() or name.startswith((".", "~")):
        yield Finding(
            level="fails", found=f"there is no folder {name}", do="correct --model, or name a model of the hub"
        )
        return
    yield from _at_the_hub(name, firm=config.model is not None)


def _folder_of(name: str) -> Path | None:
    """Where a model's files lie on this machine: a folder, the small model's, or what was fetched from the hub."""
    path = Path(model_folder(name)).expanduser()
    if path.is_dir():
        return path
    if path.is_absolute() or name.count("/") != 1:
        return None
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except Exception:  # the hub's client has some twenty types for "it is not here"
        return None


def _at_the_hub(name: str, *, firm: bool) -> Iterator[Finding]:
    from huggingface_hub import HfApi

    level: Level = "fails" if firm else "warning"
    try:
        files = HfApi().model_info(name, files_metadata=True, timeout=8).siblings or []
    except Exception as error:
        said = " ".join(str(error).split())[:160]
        found = f"{name} is not on this machine, and the hub cannot be asked for it ({type(error).__name__}: {said})"
        do = "name a folder that holds it (--model), or let this machine reach huggingface.co (HF_TOKEN where private)"
        yield Finding(level=level, found=found, do=do)
        return
    kinds = {unit: sum(f.size or 0 for f in files if f.rfilename.endswith(unit)) for unit in _UNITS}
    weights = float(kinds[".safetensors"] or kinds[".bin"])
    yield Finding(level="ok", found=f"{name} is at the hub: {weights / 1e9:.1f} GB to be fetched by the first run")
    yield from fits(Takes(weights=weights, per_token=0, tokens=0), gpus=gpu_memory(), free=free_memory(), firm=firm)


def what_it_takes(folder: Path, *, dtype: str = "auto", max_model_len: int | None = None) -> Takes:
    """From config and headers. Raises ModelError where a file is missing, truncated, or no file of weights."""
    from .videollama2.checkpoint import tensor_shapes, weight_files

    settings = _config(folder)
    shapes = tensor_shapes(weight_files(folder))
    kind = dtype if dtype != "auto" else str(settings.get("torch_dtype") or settings.get("dtype") or "bfloat16")
    size = _BYTES.get(kind.removeprefix("torch."), 2)
    language = {**settings, **(settings.get("text_config") or settings.get("llm_config") or {})}
    heads = int(language.get("num_attention_heads") or 0)
    width = int(language.get("head_dim") or (int(language.get("hidden_size") or 0) // heads if heads else 0))
    pairs = int(language.get("num_key_value_heads") or heads)
    return Takes(
        weights=float(sum(math.prod(shape) for shape in shapes.values()) * size),
        per_token=2.0 * int(language.get("num_hidden_layers") or 0) * pairs * width * size,
        tokens=max_model_len or int(language.get("max_position_embeddings") or 0),
    )


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(settings, dict):
            raise ValueError("it holds no JSON object")
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read ({error}); copy the model again") from error
    return settings


def fits(takes: Takes, *, gpus: Sequence[float] | None, free: float, firm: bool) -> Iterator[Finding]:
    """A model against the memory at hand, bytes. `gpus` is None where torch cannot use those that are there.

    `firm`: the model was asked for; else nothing more than a warning is made of it.
    """
    worst: Level = "fails" if firm else "warning"
    if gpus is None:
        found = "there is an NVIDIA driver, and this torch is a build for CPUs"
        yield Finding(level="fails", found=found, do="make clean setup, or: pip install torch from its CUDA index")
        return
    have = VLLM_SHARE * min(gpus) if gpus else free
    place = f"{len(gpus)} GPU of {min(gpus) / 1e9:.0f} GB" if gpus else f"no GPU, {free / 1e9:.0f} GB of memory free"
    found = f"{place}; it takes {takes.bare / 1e9:.1f} GB"
    if takes.bare > have:
        do = "take a larger GPU, more of them for one engine, a smaller model, --dtype bfloat16, or --engine remote"
        yield Finding(level=worst, found=f"{found}, and {have / 1e9:.1f} GB can be had", do=do)
    elif takes.whole > have:
        most = int((have - takes.bare) / takes.per_token)
        found += f" and {takes.per_token * takes.tokens / 1e9:.1f} GB for a sequence of {takes.tokens} tokens"
        yield Finding(
            level=worst, found=f"{found}; {have / 1e9:.1f} GB can be had", do=f"--max-model-len {most} at most"
        )
    elif not gpus and takes.weights > _QUICK_BYTES:
        do = "describe on a machine with a GPU, or --engine remote; training does without"
        yield Finding(level="warning", found=f"{found}: it fits, and will take minutes a clip", do=do)
    else:
        yield Finding(level="ok", found=f"{found}: it fits")


def gpu_memory() -> list[float] | None:
    """Bytes of each GPU; None where a driver is there and torch cannot use it."""
    import torch

    if torch.cuda.is_available():
        return [float(torch.cuda.get_device_properties(i).total_memory) for i in range(torch.cuda.device_count())]
    return None if Path("/proc/driver/nvidia/version").exists() and torch.version.cuda is None else []


def free_memory() -> float:
    """Bytes that a new process can have, of this machine or its container."""
    import psutil

    free = float(psutil.virtual_memory().available)
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.is_file() and (text := limit.read_text().strip()).isdecimal():
        free = min(free, float(text) - float(used.read_text()))
    return free


# Words


def describe(config: DoctorConfig, decoded: Decoded) -> Iterator[Finding]:
    """Have the video model describe a clip, where there is one that is read in time."""
    if config.engine == "scripted" or config.model is None:
        return
    if config.engine == "remote":
        return  # one token is asked of it by `endpoint`; what it can see, its first clip says
    folder = _folder_of(config.model)
    if folder is None or not str(_config(folder).get("model_type", "")).startswith("videollama2_"):
        found = f"{config.model} was not asked to describe it: only VideoLLaMA2 in a folder is"
        yield Finding(level="ok", found=found)
        return
    weights = what_it_takes(folder, dtype=config.dtype).weights
    if weights > _QUICK_BYTES and config.timeout_s < _PATIENT_S:
        found = f"{folder.name} was not asked to describe it: {weights / 1e9:.0f} GB take longer than this minute"
        yield Finding(level="ok", found=f"{found}; --only clip --timeout-s {_PATIENT_S:g} includes it")
        return
    yield Finding(level="ok", found=f"{folder.name} describes it: {_said(folder, decoded, config)!r}")


def _said(folder: Path, decoded: Decoded, config: DoctorConfig) -> str:
    """The first words of a description. Raises CanaryError where it is no language."""
    import torch

    from .videollama2 import VideoLlama2ForConditionalGeneration, VideoLlama2Processor
    from .videollama2.canary import INSTRUCTION, MAX_TOKENS, Answer, judge, wanted

    processor = VideoLlama2Processor.from_pretrained(folder)
    model: Any = VideoLlama2ForConditionalGeneration.from_pretrained(folder)
    model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    inputs = processor(text=processor.build_prompt(INSTRUCTION), videos=decoded.frames).to(model.device)
    limit = MAX_TOKENS if wanted(config.canary) else _SAID_TOKENS
    row = model.generate(**inputs, max_new_tokens=limit)[0].tolist()
    end = processor.tokenizer.eos_token_id
    tokens = row[: row.index(end)] if end in row else row
    text = str(processor.tokenizer.decode(tokens, skip_special_tokens=True))
    if wanted(config.canary):
        judge(Answer(text=text, tokens=tokens), folder)
    return text.strip()[:100]
