"""An OpenAI-compatible server that takes frames, `vllm serve` among them.

Frames go as JPEG data URLs: pictures one after the other, which every such server takes, or as one video of JPEG
frames with their times, which is vLLM's own form and the one in which a video model knows what it sees for a video.
Who calls is given (`pipelines.asking`): budget, retries and the store of answers are not this module's affair.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import io
from collections.abc import Mapping, Sequence
from importlib import metadata

from PIL import Image

from pipelines.calls import Asks, CallError, Fatal, Json, Request
from pipelines.decoding import Decoded, Frames

from .config import EngineConfig
from .interface import Ask, Engine, Said

JPEG_QUALITY = 90
PACKAGES = ("openai", "pillow", "av")
_UNKNOWN_FPS = 25.0


class RemoteEngine(Engine):
    """Asks a server about the frames of a clip."""

    def __init__(self, config: EngineConfig, asker: Asks) -> None:
        super().__init__(config)
        self._asker = asker
        self._packages = {name: metadata.version(name) for name in PACKAGES}

    async def answer(self, ask: Ask) -> tuple[Said, ...]:
        pictures = await asyncio.to_thread(jpegs, ask.decoded.frames)
        requests = [self.with_frames(ask, prompt, pictures) for prompt in ask.prompts]
        return tuple(await asyncio.gather(*(self._ask(ask, request) for request in requests)))

    def packages(self) -> dict[str, str]:
        return dict(self._packages)

    def with_frames(self, ask: Ask, prompt: str, pictures: Sequence[str]) -> Request:
        """The request as it goes over the wire; the fingerprint is made from the clip's identity, not from pictures."""
        request = self.request(ask.clip, prompt, ask.parameters)
        parts = [video_part(ask, pictures)] if self.config.send == "video" else [picture_part(p) for p in pictures]
        content: list[Json] = [*parts, {"type": "text", "text": prompt}]
        parameters = dict(request.parameters)
        if self.config.send == "video":
            parameters["media_io_kwargs"] = {"video": times(ask.decoded)}
        return dataclasses.replace(request, messages=({"role": "user", "content": content},), parameters=parameters)

    async def _ask(self, ask: Ask, request: Request) -> Said:
        try:
            answer = await self._asker.ask(request)
        except Fatal:
            raise
        except CallError as error:
            return error
        return dataclasses.replace(answer, frames=ask.decoded.indices, packages={**answer.packages, **self._packages})


def jpegs(frames_THWC: Frames) -> list[str]:
    """Each frame as JPEG, in base64."""
    pictures = []
    for frame_HWC in frames_THWC:
        file = io.BytesIO()
        Image.fromarray(frame_HWC).save(file, "JPEG", quality=JPEG_QUALITY)
        pictures.append(base64.b64encode(file.getvalue()).decode())
    return pictures


def picture_part(picture: str) -> Json:
    """One frame, in the form of OpenAI's chat API."""
    return {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{picture}"}}


def video_part(ask: Ask, pictures: Sequence[str]) -> Json:
    """All frames in vLLM's form; by `uuid` the server knows the clip again under another prompt."""
    url = "data:video/jpeg;base64," + ",".join(pictures)
    return {"type": "video_url", "video_url": {"url": url}, "uuid": f"{ask.clip}:{len(pictures)}"}


def times(decoded: Decoded) -> Mapping[str, Json]:
    """When the frames were, as vLLM wants to know it; `num_frames` -1 takes all that are sent."""
    fps = decoded.fps or _UNKNOWN_FPS
    return {
        "num_frames": -1,
        "fps": fps,
        "frames_indices": list(decoded.indices),
        "total_num_frames": max(decoded.count, len(decoded.indices)),
        "duration": decoded.seconds if decoded.seconds is not None else decoded.count / fps,
        "do_sample_frames": False,
    }
