"""What drawn people mean: intents in pairs that say the same words, and what decides between the two.

One aspect decides each pair, always; the other two fit one time in six and are a matter of chance otherwise. So the
best that can be done on the words alone is one in two, and each further aspect settles two pairs more.
"""

from __future__ import annotations

import dataclasses
from random import Random
from typing import TypeVar

from .scene import (
    ACTIONS,
    EXPRESSIONS,
    INTERACTIONS,
    Action,
    Expression,
    Interaction,
    Scene,
    draw_scene,
    fits,
)

_Kind = TypeVar("_Kind", Action, Expression, Interaction)

FITTING = 1 / 6
"""How often an aspect that does not decide fits the intent."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """One intent; `decides` is the aspect (A, E or I) that tells it from the other of its pair."""

    name: str
    decides: str
    action: Action
    expression: Expression
    interaction: Interaction


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two intents, and the words of both."""

    intents: tuple[Intent, Intent]
    phrases: tuple[str, ...]


def _pair(
    decides: str,
    one: tuple[str, Action, Expression, Interaction],
    two: tuple[str, Action, Expression, Interaction],
    *phrases: str,
) -> Pair:
    first, second = (
        Intent(name=name, decides=decides, action=action, expression=expression, interaction=interaction)
        for name, action, expression, interaction in (one, two)
    )
    return Pair(intents=(first, second), phrases=phrases)


PAIRS = (
    _pair(
        "A",
        ("Agree", "nods", "smile", "facing"),
        ("Refuse", "shakes head", "frown", "back turned"),
        "if you say so",
        "as you wish",
        "whatever you think is best",
        "that is your plan, then",
        "you want it done by monday",
        "we do it your way",
        "so that is the offer",
    ),
    _pair(
        "A",
        ("Greet", "waves", "smile", "side by side"),
        ("Leave", "walks off", "neutral", "back turned"),
        "good evening, everyone",
        "well, gentlemen, ladies",
        "so here we are",
        "what a lovely party",
        "all right, everybody",
        "a pleasure, as always",
        "okay, my friends",
    ),
    _pair(
        "E",
        ("Praise", "claps", "smile", "handshake"),
        ("Taunt", "points", "frown", "facing"),
        "nice job",
        "well done",
        "that was quite a performance",
        "you really outdid yourself",
        "look at you, the expert",
        "what a clever idea",
        "you have a gift for this",
    ),
    _pair(
        "E",
        ("Comfort", "hands over", "sad", "facing"),
        ("Gloat", "claps", "smile", "side by side"),
        "what a week you had",
        "they gave the prize to somebody else",
        "so your team has lost again",
        "nobody came to your show",
        "it rained on your wedding",
        "you failed by one point",
        "your cake fell on the floor",
    ),
    _pair(
        "I",
        ("Promise", "nods", "smile", "handshake"),
        ("Warn", "points", "frown", "back turned"),
        "you will hear from me",
        "i will remember this",
        "we will see each other in may",
        "this is not the end",
        "i know where to find you",
        "next time i bring my brother",
        "you can count on that",
    ),
    _pair(
        "I",
        ("Plead", "hands over", "sad", "facing"),
        ("Lament", "sits still", "sad", "alone"),
        "why does it never work",
        "please, let it be over",
        "i cannot do this any more",
        "if only somebody helped",
        "there must be another way",
        "it was all i had",
        "how long can this go on",
    ),
)
LABELS = tuple(sorted(intent.name for pair in PAIRS for intent in pair.intents))

_OPENERS = ("", "", "", "oh, ", "well, ", "you know, ", "listen, ", "hm, ", "ah, ", "now, ")
_NAMES = (
    "",
    "",
    "",
    ", glenn",
    ", amy",
    ", jonah",
    ", dina",
    ", mateo",
    ", cheyenne",
    ", sandra",
    ", marcus",
    ", kelly",
)


def say(pair: Pair, turn: int, random: Random) -> str:
    """Words that both intents of a pair have."""
    return f"{random.choice(_OPENERS)}{pair.phrases[turn % len(pair.phrases)]}{random.choice(_NAMES)}."


def scene_of(intent: Intent, random: Random) -> Scene:
    """A scene in which somebody means that."""
    while True:
        action = _chosen(random, intent.action, ACTIONS, always=intent.decides == "A")
        expression = _chosen(random, intent.expression, EXPRESSIONS, always=intent.decides == "E")
        interaction = _chosen(random, intent.interaction, INTERACTIONS, always=intent.decides == "I")
        if fits(action, interaction):
            return draw_scene(random, action, expression, interaction)


def _chosen(random: Random, fitting: _Kind, kinds: tuple[_Kind, ...], *, always: bool) -> _Kind:
    return fitting if always or random.random() < FITTING else random.choice(kinds)
