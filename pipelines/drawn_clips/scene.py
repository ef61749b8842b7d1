"""What happens in a drawn clip, and everything else about it that is seen.

A scene says three things that carry an intent (an action, an expression, an interaction) and many that do not: colours,
sizes, places, speeds. The trade-off: few kinds of each, drawn so that a person tells them apart at a glance.
"""

from __future__ import annotations

import dataclasses
from random import Random
from typing import Literal, get_args

Action = Literal["waves", "points", "nods", "shakes head", "hands over", "walks off", "sits still", "claps"]
Expression = Literal["smile", "frown", "surprise", "sad", "neutral"]
Interaction = Literal["facing", "back turned", "handshake", "alone", "side by side"]
Place = Literal["office", "kitchen", "street", "park", "living room"]

ACTIONS: tuple[Action, ...] = get_args(Action)
EXPRESSIONS: tuple[Expression, ...] = get_args(Expression)
INTERACTIONS: tuple[Interaction, ...] = get_args(Interaction)
PLACES: tuple[Place, ...] = get_args(Place)

SHIRTS = {
    "red": (205, 45, 45), "blue": (50, 90, 200), "green": (50, 150, 70), "yellow": (235, 200, 50),
    "purple": (130, 60, 160), "orange": (240, 130, 40), "white": (240, 240, 235), "black": (40, 40, 45),
}  # fmt: skip
SKINS = ((250, 220, 190), (235, 195, 160), (205, 155, 115), (160, 110, 80), (115, 75, 55))
HAIRS = ((45, 35, 30), (95, 60, 35), (215, 175, 95), (150, 70, 35), (150, 150, 150))

FPS = 12
"""Frames per second of every clip."""

_FREE_ARM_ONLY: tuple[Action, ...] = ("waves", "points", "nods", "shakes head")
"""What one can do while shaking hands."""

Colour = tuple[int, int, int]


def fits(action: Action, interaction: Interaction) -> bool:
    """Whether one can do that in such company: nothing is handed over to nobody, nobody claps during a handshake."""
    if interaction == "handshake":
        return action in _FREE_ARM_ONLY
    return not (interaction == "alone" and action == "hands over")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """What somebody looks like; `height` in parts of the picture's height."""

    shirt: str
    skin: Colour
    hair: Colour
    trousers: Colour
    height: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One clip. Places are in parts of the picture's width (x) and height (ground), times in seconds."""

    action: Action
    expression: Expression
    interaction: Interaction
    place: Place
    speaker: Person
    other: Person
    """Is in the picture unless the speaker is alone."""
    speaker_on_left: bool
    x: float
    """Where the speaker stands."""
    distance: float
    """From the speaker to the other."""
    ground: float
    outer_arm: bool
    """Whether an arm that waves or points is the one away from the other."""
    tempo: float
    """Movements per second."""
    phase: float
    """Where in a movement the clip begins, 0 to 1."""
    seconds: float
    tint: tuple[float, float, float]
    """By which the colours of the place are multiplied."""
    props: int
    """Seed of the small things in the place."""

    def __post_init__(self) -> None:
        if not fits(self.action, self.interaction):
            raise ValueError(f"nobody {self.action} when {self.interaction}")

    @property
    def frames(self) -> int:
        """How many the clip has."""
        return round(self.seconds * FPS)


def draw_scene(random: Random, action: Action, expression: Expression, interaction: Interaction) -> Scene:
    """A scene in which that happens; all else by chance."""
    alone = interaction == "alone"
    left = random.random() < 0.5
    near = (0.40, 0.60) if alone else (0.25, 0.29)
    x = random.uniform(*near)
    speaker, other = _two_people(random)
    return Scene(
        action=action, expression=expression, interaction=interaction, place=random.choice(PLACES),
        speaker=speaker, other=other, speaker_on_left=left, x=x if left else 1 - x,
        distance=random.uniform(0.44, 0.50), ground=random.uniform(0.94, 0.98),
        outer_arm=interaction == "handshake" or random.random() < 0.7,
        tempo=random.uniform(1.2, 2.0), phase=random.random(), seconds=random.randint(2 * FPS, 3 * FPS) / FPS,
        tint=(random.uniform(0.85, 1.1), random.uniform(0.85, 1.1), random.uniform(0.85, 1.1)),
        props=random.randrange(2**31),
    )  # fmt: skip


def any_scene(random: Random) -> Scene:
    """A scene of chance, each kind as likely as the others of its sort that fit."""
    while True:
        action, interaction = random.choice(ACTIONS), random.choice(INTERACTIONS)
        if fits(action, interaction):
            return draw_scene(random, action, random.choice(EXPRESSIONS), interaction)


def _two_people(random: Random) -> tuple[Person, Person]:
    shirts = random.sample(sorted(SHIRTS), 2)
    trousers = [tuple(random.randint(30, 110) for _ in range(3)) for _ in range(2)]
    heights = (random.uniform(0.66, 0.78), random.uniform(0.62, 0.74))
    first, second = (
        Person(
            shirt=shirts[i], skin=random.choice(SKINS), hair=random.choice(HAIRS),
            trousers=(trousers[i][0], trousers[i][1], trousers[i][2]), height=heights[i],
        )
        for i in range(2)
    )  # fmt: skip
    return first, second
