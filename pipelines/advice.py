"""What a person can do about an utterance that was set aside, by the reason's one word."""

from __future__ import annotations

_RETRY = "Once mended, the same command with --retry-quarantined takes it up again."
_ADVICE = {
    "attempts": "The endpoint failed at every try: look whether it is well. " + _RETRY,
    "bad_request": "The endpoint calls the request wrong: see the detail. Another --llm, or a shorter text, may do.",
    "refusal": "The model declines to answer. Another --llm may not.",
    "content_filter": "The provider's filter stopped it. Another --llm or endpoint may not.",
    "length": "The answer did not fit: another model, or a higher limit of tokens (--max-new-tokens to describe).",
    "ranking": "The model does not follow the format, twice. Another --llm may.",
    "sections": "The video model does not follow the format, twice. --prompting separate needs none.",
    "no_clip": "No clip was found: give its path in the table's column video, or the right --videos. " + _RETRY,
    "clip": "The clip cannot be decoded: encode it anew, or replace it. " + _RETRY,
    "decoder": "The clip kills or hangs the decoder: encode it anew (ffmpeg -i old.mp4 new.mp4). " + _RETRY,
    "prompt": "The prompt does not fit the model: raise --max-model-len, or shorten the text.",
    "engine": "The engine failed on this clip alone: see the detail. " + _RETRY,
}


def advice(kind: str) -> str:
    """One or two sentences."""
    return _ADVICE.get(kind, "See the detail. " + _RETRY)
