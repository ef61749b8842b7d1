"""The stages in which the small model learns, each as a loss over lessons.

First the tower looks at single frames and tells what is on them, through heads that are dropped afterwards: a frame
costs a tenth of a clip, and no two are of the same scene. Then tower and connector practise on clips, without a word:
heads and hands come back to where they began, so that the mean over a clip shows no movement; each token at one of
them has to tell by itself how it moves. At last connector and language model learn to answer questions about clips
from what the tower, left as it is, makes of them.

N frames or clips, P patches, L tokens of a clip, D hidden, T tokens of question and answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .modeling import VideoLlama2ForConditionalGeneration
from .pixels import to_pixels
from .processing import VideoLlama2Processor
from .prompts import expand
from .small_lessons import KINDS, Glance, Lesson

ACTION, EXPRESSION, SHIRT = (list(KINDS).index(name) for name in ("action", "expression", "shirt"))
HEAD_MOVES = ("nods", "shakes head")
"""Actions that only the head tells."""
HAND_MOVES = ("waves", "points", "hands over", "claps")
"""Actions that only the hands tell."""
_LOOKS_WEIGH = (1.0, 4.0)
"""Weights of what is told of turning and of nodding: far fewer heads nod than turn."""
_ANSWERS_WEIGH = 8.0
"""Weight of the answers in words beside all that the heads tell."""
_IGNORED = -100
"""Stands in the labels for tokens that are not learned: the question's."""


class Heads(nn.Module):
    """Tells what a set of features shows: for each of `KINDS` a query gathers them, and a linear layer decides."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(len(KINDS) + 1, width) / width**0.5)
        self.norm = nn.LayerNorm(width)
        self.deciders = nn.ModuleList(nn.Linear(width, len(kinds)) for kinds in KINDS.values())
        self.posture = nn.Linear(width, 6)

    def forward(self, features_NPD: Tensor) -> tuple[list[Tensor], Tensor]:
        """Logits for each of `KINDS`, and the speaker's posture (N, 6)."""
        normed_NPD = self.norm(features_NPD)
        weights_NPK = (normed_NPD @ self.queries.T).softmax(dim=1)
        gathered_NKD = weights_NPK.transpose(1, 2) @ normed_NPD
        logits = [decide(gathered_NKD[:, k]) for k, decide in enumerate(self.deciders)]
        return logits, self.posture(gathered_NKD[:, -1])


def kinds_loss(logits: Sequence[Tensor], kinds_NK: Tensor) -> Tensor:
    """Mean cross entropy over what there is to be told."""
    return torch.stack([F.cross_entropy(l_NC, kinds_NK[:, k]) for k, l_NC in enumerate(logits)]).mean()


def right(logits: Sequence[Tensor], kinds_NK: Tensor) -> list[float]:
    """Share of each kind that is told right."""
    return [float((l_NC.argmax(-1) == kinds_NK[:, k]).float().mean()) for k, l_NC in enumerate(logits)]


class FrameHeads(Heads):
    """And what single patches show: the one with the face, and those with a hand."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.at_face = nn.Linear(width, len(KINDS["expression"]))
        self.at_hand = nn.Linear(width, len(KINDS["action"]))


class Glances(nn.Module):
    """The first stage."""

    def __init__(self, model: VideoLlama2ForConditionalGeneration, processor: VideoLlama2Processor) -> None:
        super().__init__()
        self.model, self._settings = model, processor.preprocessing
        width = model.config.mm_hidden_size
        self.heads = FrameHeads(width)

    def learned(self) -> dict[str, nn.Parameter]:
        """What learns in this stage, by name."""
        return _within(self, "model.model.vision_tower", "heads")

    def forward(self, glances: Sequence[Glance]) -> tuple[Tensor, dict[str, float]]:
        """The loss, and figures."""
        pixels_NCHW = to_pixels(np.stack([g.frame_HWC for g in glances]), self._settings)
        kinds_NK = torch.tensor([g.kinds for g in glances])
        features_NPD = self.model.vision_features(pixels_NCHW[:, None])[:, 0]
        logits, posture_N6 = self.heads(features_NPD)
        loss = kinds_loss(logits, kinds_NK) + 0.5 * F.mse_loss(posture_N6, torch.tensor([g.posture for g in glances]))
        faces = [(n, g.face, g.kinds[EXPRESSION]) for n, g in enumerate(glances)]
        hands = [(n, hand, g.kinds[ACTION]) for n, g in enumerate(glances) for hand in g.hands]
        loss = (
            loss + _loss_at(self.heads.at_face, features_NPD, faces) + _loss_at(self.heads.at_hand, features_NPD, hands)
        )
        return loss, dict(zip(KINDS, right(logits, kinds_NK), strict=True))


def _loss_at(decide: nn.Module, features_NPD: Tensor, points: Sequence[tuple[int, tuple[float, float], int]]) -> Tensor:
    """The kind told by the patch at a point (frame, place in it, kind), for points within the picture.

    Without it the tower takes thousands of steps to find faces and hands, which are small.
    """
    side = math.isqrt(features_NPD.shape[1])
    inside = [(n, at, kind) for n, at, kind in points if _is_inside(at)]
    patches = [int(y * side) * side + int(x * side) for _, (x, y), _ in inside]
    logits_NC = decide(features_NPD[[n for n, _, _ in inside], patches])
    return F.cross_entropy(logits_NC, torch.tensor([kind for _, _, kind in inside]))


class ClipHeads(Heads):
    """And what single tokens show: those at the speaker's face an expression, whose it is and how it moves; those at
    the hands how they move.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.expression = nn.Linear(width, len(KINDS["expression"]))
        self.shirt = nn.Linear(width, len(KINDS["shirt"]))
        self.head_move = nn.Linear(width, len(HEAD_MOVES) + 1)  # none of them, too
        self.hand_move = nn.Linear(width, len(HAND_MOVES) + 1)


class Practice(nn.Module):
    """The second stage."""

    def __init__(self, model: VideoLlama2ForConditionalGeneration, processor: VideoLlama2Processor) -> None:
        super().__init__()
        self.model, self.processor = model, processor
        self.heads = ClipHeads(model.config.hidden_size)

    def learned(self) -> dict[str, nn.Parameter]:
        """What learns in this stage, by name."""
        return _within(self, "model.model.vision_tower", "model.model.mm_projector", "heads")

    def forward(self, lessons: Sequence[Lesson]) -> tuple[Tensor, dict[str, float]]:
        """The loss, and figures."""
        features_NTPD = self.model.vision_features(self._pixels(lessons))
        return self._told(self.model.model.mm_projector(features_NTPD), features_NTPD.shape[1:3], lessons)

    def _pixels(self, lessons: Sequence[Lesson]) -> Tensor:
        return torch.stack([to_pixels(lesson.frames_THWC, self.processor.preprocessing) for lesson in lessons])

    def _told(
        self, clip_NLD: Tensor, grid: Sequence[int], lessons: Sequence[Lesson]
    ) -> tuple[Tensor, dict[str, float]]:
        """The loss of all that the heads tell from a clip's tokens; `grid` is frames and patches."""
        kinds_NK = torch.tensor([lesson.kinds for lesson in lessons])
        logits, _ = self.heads(clip_NLD)
        faces = [[(face,) for face in lesson.faces] for lesson in lessons]
        hands = [lesson.hands for lesson in lessons]
        loss = kinds_loss(logits, kinds_NK) + self._faces_loss(clip_NLD, grid, lessons)
        loss = loss + 2 * self._looks_loss(clip_NLD, grid, lessons)
        loss = loss + 2 * _move_loss(self.heads.head_move, HEAD_MOVES, faces, clip_NLD, grid, lessons)
        loss = loss + 2 * _move_loss(self.heads.hand_move, HAND_MOVES, hands, clip_NLD, grid, lessons)
        return loss, dict(zip(KINDS, right(logits, kinds_NK), strict=True))

    def _faces_loss(self, clip_NLD: Tensor, grid: Sequence[int], lessons: Sequence[Lesson]) -> Tensor:
        """Expression and shirt told by the tokens into which the speaker's face went."""
        at, kinds = [], []
        for n, lesson in enumerate(lessons):
            for frame, face in enumerate(lesson.faces):
                if _is_inside(face):
                    at.append((n, _token_at(frame, face, grid)))
                    kinds.append((lesson.kinds[EXPRESSION], lesson.kinds[SHIRT]))
        tokens_FD = clip_NLD[[n for n, _ in at], [place for _, place in at]]
        expressions, shirts = torch.tensor(kinds).T
        shirt_loss = F.cross_entropy(self.heads.shirt(tokens_FD), shirts)
        return F.cross_entropy(self.heads.expression(tokens_FD), expressions) + 0.5 * shirt_loss

    def _looks_loss(self, clip_NLD: Tensor, grid: Sequence[int], lessons: Sequence[Lesson]) -> Tensor:
        """Where each face looks in either of a token's two frames, told by the token into which it went."""
        seen = [(n, *look) for n, lesson in enumerate(lessons) for look in lesson.looks if _is_inside(look[1])]
        places = [_token_at(frame, face, grid) for _, frame, face, _ in seen]
        said_F6 = self.heads.posture(clip_NLD[[n for n, *_ in seen], places])
        first_F = torch.tensor([frame % 2 == 1 for _, frame, _, _ in seen])
        said_F2 = torch.where(first_F[:, None], said_F6[:, :2], said_F6[:, 2:4])
        looks_F2 = torch.tensor([look for *_, look in seen])
        return (torch.tensor(_LOOKS_WEIGH) * (said_F2 - looks_F2) ** 2).mean()


class Lessons(Practice):
    """The third stage: question and answer, from what the tower, left as it is, makes of a clip."""

    def __init__(self, practice: Practice) -> None:
        super().__init__(practice.model, practice.processor)
        self.heads = practice.heads

    def learned(self) -> dict[str, nn.Parameter]:
        """What learns in this stage, by name."""
        tower = _within(self, "model.model.vision_tower")
        return {name: p for name, p in self.named_parameters() if name not in tower}

    def forward(self, lessons: Sequence[Lesson]) -> tuple[Tensor, dict[str, float]]:
        """The loss, and figures."""
        with torch.no_grad():
            features_NTPD = self.model.vision_features(self._pixels(lessons))
        clip_NLD = self.model.model.mm_projector(features_NTPD)
        told, figures = self._told(clip_NLD, features_NTPD.shape[1:3], lessons)
        answers = self._answers(lessons, clip_NLD)
        return _ANSWERS_WEIGH * answers + told, {"answers": float(answers.detach()), **figures}

    def _answers(self, lessons: Sequence[Lesson], clip_NLD: Tensor) -> Tensor:
        """Cross entropy of the answers' tokens, after the questions'.

        The shorter and the longer half go through the model by themselves: who asks of one aspect uses half the tokens
        of who asks of three, and what is padded costs as much as what is read.
        """
        rows = self._rows(lessons)
        order = sorted(range(len(rows)), key=lambda n: len(rows[n][0]) + len(rows[n][1]))
        halves = [half for half in (order[: len(order) // 2], order[len(order) // 2 :]) if half]
        loss = torch.stack([self._answers_sum([rows[n] for n in half], clip_NLD[half]) for half in halves]).sum()
        return loss / sum(len(answer) for _, answer in rows)

    def _answers_sum(self, rows: Sequence[tuple[list[int], list[int]]], clip_NLD: Tensor) -> Tensor:
        longest = max(len(asked) + len(answer) for asked, answer in rows)
        filled = [(asked, answer, longest - len(asked) - len(answer)) for asked, answer in rows]
        ids_NT = torch.tensor([[*asked, *answer, *[0] * rest] for asked, answer, rest in filled])
        labels_NT = torch.tensor(
            [[*[_IGNORED] * len(asked), *answer, *[_IGNORED] * rest] for asked, answer, rest in filled]
        )
        at_clip_NT = ids_NT < 0
        embeds_NTD = self.model.get_input_embeddings()(ids_NT.masked_fill(at_clip_NT, 0))
        embeds_NTD = embeds_NTD.masked_scatter(at_clip_NT[:, :, None], clip_NLD)
        # Padding follows what is read, so that causal attention never sees it and needs no mask.
        hidden_NTD = self.model.model(inputs_embeds=embeds_NTD, use_cache=False).last_hidden_state
        learned_NT = labels_NT[:, 1:] != _IGNORED
        logits_AV = self.model.lm_head(hidden_NTD[:, :-1][learned_NT])
        return F.cross_entropy(logits_AV, labels_NT[:, 1:][learned_NT], reduction="sum")

    def _rows(self, lessons: Sequence[Lesson]) -> list[tuple[list[int], list[int]]]:
        """The tokens of each question and of its answer."""
        processor = self.processor
        tokenizer: Any = processor.tokenizer
        rows = []
        for lesson in lessons:
            asked = expand(processor.prompt_ids(processor.build_prompt(lesson.question)), processor.tokens_per_clip)
            answer = tokenizer(lesson.answer, add_special_tokens=False)["input_ids"]
            rows.append((asked, [*answer, tokenizer.eos_token_id]))
        return rows


def _move_loss(
    decide: nn.Module,
    moves: Sequence[str],
    points: Sequence[Sequence[Sequence[tuple[float, float]]]],
    clip_NLD: Tensor,
    grid: Sequence[int],
    lessons: Sequence[Lesson],
) -> Tensor:
    """How each token at one of the points (of a clip, of a frame) moves: as one of `moves`, or as none of them."""
    classes = {KINDS["action"].index(name): place for place, name in enumerate(moves)}
    at, told = [], []
    for n, (lesson, frames) in enumerate(zip(lessons, points, strict=True)):
        seen = {_token_at(i, point, grid) for i, frame in enumerate(frames) for point in frame if _is_inside(point)}
        at += [(n, place) for place in sorted(seen)]
        told += [classes.get(lesson.kinds[ACTION], len(moves))] * len(seen)
    logits_FC = decide(clip_NLD[[n for n, _ in at], [place for _, place in at]])
    return F.cross_entropy(logits_FC, torch.tensor(told))


def _within(stage: nn.Module, *parts: str) -> dict[str, nn.Parameter]:
    """The parameters of those parts of a stage, by name."""
    return {name: p for name, p in stage.named_parameters() if name.startswith(tuple(f"{part}." for part in parts))}


def _is_inside(at: tuple[float, float]) -> bool:
    return all(0 <= part < 1 for part in at)


def _token_at(frame: int, at: tuple[float, float], grid: Sequence[int]) -> int:
    """The token into which a point of a frame goes. Token i covers patches 2i - 1 and 2i, in time, height and width:
    stc_connector halves each, with a padding of 1.
    """
    side = math.isqrt(grid[1])
    across = side // 2 + 1
    row, column = ((int(part * side) + 1) // 2 for part in (at[1], at[0]))
    return ((frame + 1) // 2 * across + row) * across + column
