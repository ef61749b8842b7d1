"""What the small model learns from: a clip, what it is asked of it, and the answer.

It is asked as extraction asks (`pipelines.describe_prompts`), jointly or aspect by aspect, for any of four aspects in
any order, with several instructions for each, and rarely as an engine's canary asks; about clips in which people say
what has nothing to do with the picture.
A lesson is made from its number alone, so that training goes on after a stop as if there had been none.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Collection, Mapping
from random import Random

import numpy as np
import numpy.typing as npt
from PIL import Image

from lgsrr.records import Aspect
from pipelines.describe_prompts import instruction_of, joint_prompt, separate_prompt
from pipelines.drawn_clips.clip import render
from pipelines.drawn_clips.figure import face_of, hands_of
from pipelines.drawn_clips.intents import PAIRS, say
from pipelines.drawn_clips.motion import poses
from pipelines.drawn_clips.scene import (
    ACTIONS,
    EXPRESSIONS,
    FPS,
    INTERACTIONS,
    PLACES,
    SHIRTS,
    Scene,
    any_scene,
)
from pipelines.drawn_clips.wordings import ACTIONS_OF, FACES, INTERACTION, SETTING, described

from .canary import INSTRUCTION
from .frames import sample_indices

PLAIN = 0.02
"""Share of lessons that ask for no aspect, but in the canary's words; an engine does not start with a model that has
nothing to say to them."""
MOVING_HEADS = 0.15
"""Share of lessons about somebody who nods or shakes the head, beside those that come by chance: it is how heads move
that is learned last."""
INSTRUCTIONS: Mapping[str, tuple[str, ...]] = {
    ACTIONS_OF: (
        instruction_of(Aspect(name=ACTIONS_OF)),
        "Describe what the speaker does with body and hands.",
        "What does the person do? Name the movement.",
        "Describe the gestures and the posture of the speaker.",
    ),
    FACES: (
        instruction_of(Aspect(name=FACES)),
        "Describe the speaker's face and the feelings that it shows.",
        "Which expression is on the face of the person?",
        "Describe the facial expression and the emotion.",
    ),
    INTERACTION: (
        instruction_of(Aspect(name=INTERACTION)),
        "Describe how the speaker and the others turn to each other.",
        "How do the people in the video deal with each other?",
        "Describe the interaction between the people.",
    ),
    SETTING: (
        instruction_of(Aspect(name=SETTING)),
        "Describe the place and what is going on in it.",
        "Where does it happen?",
        "Describe the scene, the place and the objects.",
    ),
}
KINDS: Mapping[str, tuple[str, ...]] = {
    "action": ACTIONS,
    "expression": EXPRESSIONS,
    "interaction": INTERACTIONS,
    "place": PLACES,
    "shirt": tuple(sorted(SHIRTS)),
}
"""What there is to be told apart in a clip."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """One clip with a question and its answer."""

    frames_THWC: npt.NDArray[np.uint8]
    question: str
    answer: str
    kinds: tuple[int, ...]
    """Which of each of `KINDS` the clip shows."""
    faces: tuple[tuple[float, float], ...]
    """Where the middle of the speaker's face is in each frame, in parts of the picture; outside 0 to 1 once gone."""
    looks: tuple[tuple[int, tuple[float, float], tuple[float, float]], ...]
    """Of every face that is seen: the frame, where in it, and where it looks (left to right, up to down, −1 to 1)."""
    hands: tuple[tuple[tuple[float, float], tuple[float, float]], ...]
    """Where the speaker's hands are in each frame, as `faces`."""


def lesson(number: str, frames: int) -> Lesson:
    """The lesson of that number, on `frames` frames of its clip."""
    random = Random(number)
    of_heads = random.random() < MOVING_HEADS
    scene = _scene(random, ("nods", "shakes head") if of_heads else ACTIONS)
    picked = sample_indices(scene.frames, 16)[sample_indices(16, frames)] if random.random() < 0.5 else None
    indices = sample_indices(scene.frames, frames) if picked is None else picked
    frames_THWC = render(scene, indices.tolist())
    if random.random() < 0.5:
        frames_THWC = _compressed(frames_THWC, random.randint(60, 95))
    question, answer = _asked(scene, random, ACTIONS_OF if of_heads else None)
    if random.random() < PLAIN:
        question, answer = INSTRUCTION, described(scene)[ACTIONS_OF]
    people = [poses(scene, index / FPS) for index in indices.tolist()]
    return Lesson(
        frames_THWC=frames_THWC,
        question=question,
        answer=answer,
        kinds=kinds_of(scene),
        faces=tuple(face_of(there[-1]) for there in people),
        looks=tuple(
            (frame, face_of(pose), (pose.turn, pose.nod))
            for frame, there in enumerate(people)
            for pose in there
            if not pose.from_behind
        ),
        hands=tuple(hands_of(there[-1]) for there in people),
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """One frame, and what can be seen on it."""

    frame_HWC: npt.NDArray[np.uint8]
    kinds: tuple[int, ...]
    posture: tuple[float, ...]
    """Where the speaker's face looks (−1 left to 1 right, −1 up to 1 down), and both hands, from the shoulders."""
    face: tuple[float, float]
    """Where the middle of the speaker's face is, in parts of the picture; outside 0 to 1 where the speaker has gone."""
    hands: tuple[tuple[float, float], ...]
    """Where the speaker's hands are, likewise."""


def glance(number: str) -> Glance:
    """The glance of that number."""
    random = Random(number)
    scene = any_scene(random)
    index = random.randrange(scene.frames)
    frames_THWC = render(scene, [index])
    if random.random() < 0.5:
        frames_THWC = _compressed(frames_THWC, random.randint(60, 95))
    speaker = poses(scene, index / FPS)[-1]
    return Glance(
        frame_HWC=frames_THWC[0],
        kinds=kinds_of(scene),
        posture=(speaker.turn, speaker.nod, *(4 * part for hand in (speaker.left, speaker.right) for part in hand)),
        face=face_of(speaker),
        hands=hands_of(speaker),
    )


def _scene(random: Random, wanted: Collection[str]) -> Scene:
    while True:
        scene = any_scene(random)
        if scene.action in wanted:
            return scene


def kinds_of(scene: Scene) -> tuple[int, ...]:
    """The place of what a scene shows in each of `KINDS`."""
    shown = (scene.action, scene.expression, scene.interaction, scene.place, scene.speaker.shirt)
    return tuple(kinds.index(kind) for kinds, kind in zip(KINDS.values(), shown, strict=True))


def _compressed(frames_THWC: npt.NDArray[np.uint8], quality: int) -> npt.NDArray[np.uint8]:
    """What a lossy codec leaves of the frames: blurred colours, ringing edges."""
    left = []
    for picture in frames_THWC:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
        left.append(np.asarray(Image.open(buffer)))
    return np.stack(left)


def _asked(scene: Scene, random: Random, about: str | None = None) -> tuple[str, str]:
    """Question and answer; where `about` is given, that aspect is among what is asked."""
    text = say(random.choice(PAIRS), random.randrange(100), random) if random.random() < 0.8 else _babble(random)
    told = described(scene)
    if random.random() < 0.5:
        name = about or random.choice((*INSTRUCTIONS, ACTIONS_OF, FACES, INTERACTION))
        return separate_prompt(text, _aspect(name, random)), told[name]
    names = random.choice(([ACTIONS_OF, FACES, INTERACTION], random.sample(list(INSTRUCTIONS), random.randint(1, 4))))
    if about is not None and about not in names:
        names[random.randrange(len(names))] = about
    answer = "\n".join(f"{i}. {name}: {told[name]}" for i, name in enumerate(names, 1))
    return joint_prompt(text, [_aspect(name, random) for name in names]), answer


def _aspect(name: str, random: Random) -> Aspect:
    return Aspect(name=name, instruction=random.choice(INSTRUCTIONS[name]))


def _babble(random: Random) -> str:
    letters = "etaoinshrdlucmfwypvbgkqjxz' "
    return "".join(random.choice(letters) for _ in range(random.randint(5, 40)))


def vocabulary_texts() -> list[str]:
    """What the vocabulary is learned from: questions and answers of many lessons, without their clips."""
    random = Random("vocabulary")
    return [part for _ in range(2000) for part in _asked(any_scene(random), random)]
