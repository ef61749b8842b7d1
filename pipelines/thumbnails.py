"""Three small pictures of a clip as JPEG data URLs, for a page that has to stand on its own.

A report is worth little waiting: clips are decoded for half a minute, and the first store that cannot be reached
ends it. What gets no picture gets the reason instead.
"""

from __future__ import annotations

import base64
import dataclasses
import io
import time
from collections.abc import Callable, Sequence
from typing import cast

from lgsrr.errors import ClipError, LgsrrError
from lgsrr.records import Split, Utterance

from .clips import ClipFinder, NoClip
from .decoding import Decoder, Frames
from .samples import Sample

FRAMES, MAX_SIDE, QUALITY = 3, 240, 72
WITHIN_S = 30.0
"""For all clips together."""
CLIP_S = 15.0
LARGEST = 200_000_000
"""Bytes; a larger clip is not fetched for three pictures."""
_HOPELESS = frozenset({"no_clip", "clip", "decoder"})
"""Reasons for which an utterance was set aside that make another look at its clip a waste."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """Of one clip."""

    urls: tuple[str, ...] = ()
    """data:image/jpeg;base64,…, in the order of time; empty where there is a reason."""
    reason: str = ""


def pictures_of(
    samples: Sequence[Sample],
    *,
    videos: str | None,
    data: str | None,
    within_s: float = WITHIN_S,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Pictures]:
    """Pictures of each sample's clip, by id. `videos` and `data` are the extraction's: where clips are looked for."""
    try:
        finder = ClipFinder(videos=videos, beside=data)
    except LgsrrError:
        return {sample.id: Pictures(reason="the folder of the clips is not there") for sample in samples}
    until = clock() + within_s
    found: dict[str, Pictures] = {}
    unreachable = ""
    with Decoder(frames=FRAMES, max_side=MAX_SIDE, timeout_s=CLIP_S) as decoder:
        for sample in samples:
            if unreachable or clock() >= until:
                found[sample.id] = Pictures(reason=unreachable or "no time was left for this clip")
                continue
            try:
                found[sample.id] = _pictures(sample, finder, decoder)
            except LgsrrError:
                unreachable = "the clips cannot be reached from here"
                found[sample.id] = Pictures(reason=unreachable)
    return found


def _pictures(sample: Sample, finder: ClipFinder, decoder: Decoder) -> Pictures:
    """Raises LgsrrError where no clip can be had at all."""
    if any(trouble.reason in _HOPELESS for trouble in sample.trouble):
        return Pictures(reason="this clip cannot be shown")
    utterance = Utterance(
        id=sample.id, text=sample.text, split=cast(Split, sample.split), label=None, video=sample.video
    )
    clip = finder.find(utterance)
    if isinstance(clip, NoClip):
        return Pictures(reason="no clip was found")
    if clip.size > LARGEST:
        return Pictures(reason="the clip is too large to be fetched for pictures")
    try:
        return Pictures(urls=jpeg_urls(decoder.decode(clip.uri).frames))
    except ClipError:
        return Pictures(reason="the clip cannot be opened")


def jpeg_urls(frames_THWC: Frames) -> tuple[str, ...]:
    """Each frame as a data URL."""
    from PIL import Image

    urls = []
    for frame_HWC in frames_THWC:
        sink = io.BytesIO()
        Image.fromarray(frame_HWC).save(sink, format="JPEG", quality=QUALITY, optimize=True)
        urls.append("data:image/jpeg;base64," + base64.b64encode(sink.getvalue()).decode())
    return tuple(urls)
