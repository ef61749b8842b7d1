"""Many prompts and clips through the model at once, each answered as it would be alone.

    speaker = Speaker.load(folder)
    clip = speaker.clip(frames)                                  # pixels; the tower sees them when they are needed
    speaker.say([speaker.question("What is seen?", clip, Sampling(max_tokens=64)), …])

Prompts are padded on the left, and a clip goes through the tower once, whatever the number of its prompts. What the
model cannot do is the fault of one prompt and an error among the answers: a batch that fails is tried in halves.

B prompts, T tokens of a prompt, N clips, L tokens of a clip, E hidden of the language model.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from . import canary
from .modeling import VideoLlama2ForConditionalGeneration
from .processing import VideoLlama2Processor


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How an answer is made; prompts go together that agree in it."""

    max_tokens: int
    temperature: float = 0.0
    """0 takes the likeliest token each time."""
    top_p: float = 1.0
    seed: int | None = None
    """Of what is drawn; such a prompt goes alone, so that its neighbours do not change what it draws."""


@dataclasses.dataclass(slots=True, eq=False)
class Clip:
    """One clip: its pixels until the tower has seen them, then its tokens."""

    pixels_TCHW: Tensor | None
    tokens_LE: Tensor | None = None


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Question:
    """One prompt on one clip."""

    ids: list[int]
    clip: Clip
    sampling: Sampling


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What the model said to it."""

    text: str
    tokens: int
    """The token that ends an answer among them."""
    ended: bool
    """Whether the model ended it; else its length did."""


class Speaker:
    """A model with its processor."""

    def __init__(self, model: VideoLlama2ForConditionalGeneration, processor: VideoLlama2Processor) -> None:
        self.model, self.processor = model.eval(), processor
        end = model.generation_config.eos_token_id
        self._ends = frozenset(end if isinstance(end, list) else [end])

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        *,
        revision: str | None = None,
        dtype: str = "auto",
        threads: int | None = None,
    ) -> Self:
        """Reads a checkpoint to the GPU where there is one. `threads`: on a CPU; None takes every one there is.

        Raises ModelError.
        """
        known = {} if revision is None else {"revision": revision}
        on_gpu = torch.cuda.is_available()
        if not on_gpu:
            torch.set_num_threads(threads or _cpus())
        processor = VideoLlama2Processor.from_pretrained(folder, **known)
        model = VideoLlama2ForConditionalGeneration.from_pretrained(folder, dtype=dtype, **known)
        if not on_gpu and dtype == "auto" and model.dtype == torch.float16:
            model = model.float()  # CPUs compute halves slowly
        return cls(model.cuda() if on_gpu else model, processor)

    @property
    def revision(self) -> str | None:
        """The commit on the hub that was read, where it came from there."""
        commit: str | None = getattr(self.model.config, "_commit_hash", None)
        return commit

    def hear_canary(self, switch: canary.Switch) -> None:
        """Raises CanaryError where the model does not speak."""
        canary.check_model(self.model, self.processor, switch)

    def clip(self, frames: Any) -> Clip:
        """A clip that was decoded, an array (T, H, W, 3). Raises ClipError."""
        return Clip(self.processor.pixel_values(frames))

    def question(self, instruction: str, clip: Clip, sampling: Sampling) -> Question:
        """The published prompt around an instruction. Raises PromptError where the model does not take it."""
        ids = self.processor.input_ids(self.processor.build_prompt(instruction))
        return Question(ids, clip, sampling)

    def say(self, questions: Sequence[Question]) -> list[Words | Exception]:
        """An answer to each, or the reason why there is none. What ends the GPU's work for good is raised."""
        said: dict[int, Words | Exception] = {}
        for places in self._fitting(questions):
            found = self._say([questions[place] for place in places])
            said.update(zip(places, found, strict=True))
        return [said[place] for place in range(len(questions))]

    def _fitting(self, questions: Sequence[Question]) -> Iterator[list[int]]:
        """Places of questions that go together: alike in sampling, and with room for their answers when padded."""
        alike: dict[Sampling, list[int]] = {}
        for place, question in enumerate(questions):
            alike.setdefault(question.sampling, []).append(place)
        for sampling, places in alike.items():
            longest = max(len(questions[place].ids) for place in places)
            fit = longest + sampling.max_tokens <= self.processor.context_length
            if fit and sampling.seed is None:
                yield places
            else:
                yield from ([place] for place in places)

    def _say(self, questions: Sequence[Question]) -> list[Words | Exception]:
        try:
            return list(self._generate(questions))
        except torch.AcceleratorError:  # nothing works on that GPU any more
            raise
        except Exception as error:
            if len(questions) == 1:
                return [error]
        half = len(questions) // 2  # too much for the memory, or one of them is at fault
        return [*self._say(questions[:half]), *self._say(questions[half:])]

    @torch.no_grad()
    def _generate(self, questions: Sequence[Question]) -> Iterator[Words]:
        self._look([question.clip for question in questions])
        tokens_BLE = torch.stack([q.clip.tokens_LE for q in questions if q.clip.tokens_LE is not None])
        batch = {
            name: value.to(tokens_BLE.device)
            for name, value in self.processor.padded([q.ids for q in questions]).items()
        }
        sampling = questions[0].sampling
        drawn: dict[str, Any] = {"do_sample": False}
        if sampling.temperature:
            drawn = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
        with torch.random.fork_rng(enabled=sampling.seed is not None):
            if sampling.seed is not None:
                torch.manual_seed(sampling.seed)
            rows = self.model.generate(**batch, clip_tokens=tokens_BLE, max_new_tokens=sampling.max_tokens, **drawn)
        return map(self._words, rows.tolist())

    def _look(self, clips: Sequence[Clip]) -> None:
        """Has tower and connector see what they have not seen; the pixels then go."""
        unseen = [clip for clip in dict.fromkeys(clips) if clip.tokens_LE is None]
        pixels = [clip.pixels_TCHW for clip in unseen if clip.pixels_TCHW is not None]
        if pixels:
            pixels_NTCHW = torch.stack(pixels).to(self.model.device, self.model.dtype)
            for clip, tokens_LE in zip(unseen, self.model.get_video_features(pixels_NTCHW), strict=True):
                clip.tokens_LE, clip.pixels_TCHW = tokens_LE, None

    def _words(self, row: list[int]) -> Words:
        length = next((place + 1 for place, token in enumerate(row) if token in self._ends), None)
        said = row[:length]
        text = self.processor.tokenizer.decode(said, skip_special_tokens=True)
        return Words(text=text, tokens=len(said), ended=length is not None)


def _cpus() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
