"""What a drawn clip shows, in words, and which of the kinds a text names.

Each kind has several wordings. The small video model learns the first; the true descriptions of a sample use one of the
others for each split, so that no split shares a wording with another. Every wording of a kind holds a word that no
wording of another kind of its aspect holds (`_MARKS`), which is how `named` reads a description.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from lgsrr.aspects import CANONICAL

from .scene import Action, Expression, Interaction, Place, Scene

ACTIONS_OF, FACES, INTERACTION, SETTING = (CANONICAL[short] for short in ("A", "E", "I", "SD"))
ASPECTS = (ACTIONS_OF, FACES, INTERACTION)
"""Aspects that carry intent here, in the order in which they help."""

_DOES: Mapping[Action, tuple[str, ...]] = {
    "waves": (
        "waves a hand above the head",
        "is waving with a raised arm",
        "gives a wave, hand up high",
        "keeps waving a hand",
    ),
    "points": (
        "points with an outstretched arm",
        "is pointing a finger",
        "stretches an arm out and points",
        "keeps pointing at something",
    ),
    "nods": ("nods the head up and down", "is nodding again and again", "gives a few nods", "keeps nodding"),
    "shakes head": (
        "shakes the head from side to side",
        "is shaking the head left and right",
        "turns the head in a shake of denial",
        "keeps shaking the head",
    ),
    "hands over": (
        "hands a parcel over",
        "is handing a box to the other",
        "passes a parcel across",
        "gives away a small box",
    ),
    "walks off": (
        "walks off, out of the picture",
        "is walking away",
        "leaves, walking out of view",
        "strides off and is gone",
    ),
    "sits still": (
        "sits still on a chair",
        "is sitting without moving",
        "stays seated, hands in the lap",
        "remains sitting on the chair",
    ),
    "claps": ("claps both hands", "is clapping in front of the chest", "applauds with both hands", "keeps clapping"),
}
_LOOKS: Mapping[Expression, tuple[str, ...]] = {
    "smile": (
        "smiles broadly, with the teeth showing",
        "has a wide smile",
        "is smiling from ear to ear",
        "beams with a big smile",
    ),
    "frown": (
        "frowns angrily, with lowered brows",
        "has an angry frown",
        "is frowning, brows drawn together",
        "scowls with a deep frown",
    ),
    "surprise": (
        "looks surprised, with raised brows and an open mouth",
        "shows surprise, mouth wide open",
        "is astonished, eyes wide",
        "stares in surprise",
    ),
    "sad": (
        "looks sad, with a tear on the cheek",
        "is sad and sheds a tear",
        "has a sad face with drooping mouth",
        "weeps a tear of sadness",
    ),
    "neutral": (
        "keeps a neutral face",
        "has a blank face",
        "shows no emotion in the face",
        "looks on with an even, expressionless face",
    ),
}
_TOGETHER: Mapping[Interaction, tuple[str, ...]] = {
    "facing": (
        "Two people face each other.",
        "The two are facing one another.",
        "They stand face to face.",
        "Both turn to face each other.",
    ),
    "back turned": (
        "The other person has turned their back.",
        "The other stands with the back turned.",
        "One of the two is seen from behind, turning the back.",
        "The other shows nothing but their back.",
    ),
    "handshake": (
        "Two people shake hands.",
        "They are shaking hands.",
        "The two join in a handshake.",
        "A handshake links the two.",
    ),
    "alone": (
        "The person is alone.",
        "Nobody else is there.",
        "There is no other person in sight.",
        "The person stands there with no one else.",
    ),
    "side by side": (
        "Two people stand side by side.",
        "They are next to each other, side by side.",
        "Side by side, both look ahead.",
        "The two stay at each other's side, not looking at each other.",
    ),
}
_WHERE: Mapping[Place, tuple[str, ...]] = {
    "office": ("The scene is an office with a screen.", "They are in an office."),
    "kitchen": ("The scene is a kitchen with tiles.", "They are in a kitchen."),
    "street": ("The scene is a street with houses.", "They are on a street."),
    "park": ("The scene is a park with trees.", "They are in a park."),
    "living room": ("The scene is a living room with a sofa.", "They are in a living room."),
}
WORDINGS = 4
"""Of each action, expression and interaction: the model's, then one for each split."""

_MARKS: Mapping[str, Mapping[str, str]] = {
    ACTIONS_OF: {
        "waves": r"\bwav",
        "points": r"\bpoint",
        "nods": r"\bnod",
        "shakes head": r"\bshak",
        "hands over": r"\bparcel|\bbox",
        "walks off": r"\bwalk|\bstrid",
        "sits still": r"\bsit|\bseated",
        "claps": r"\bclap|\bapplau",
    },
    FACES: {
        "smile": r"\bsmil",
        "frown": r"\bfrown",
        "surprise": r"\bsurpris|\bastonish",
        "sad": r"\bsad",
        "neutral": r"\bneutral|\bblank|\bno emotion|\bexpressionless",
    },
    INTERACTION: {
        "facing": r"\bfac(?:e|ing)\b",
        "back turned": r"\bback\b",
        "handshake": r"\bshak(?:e|ing) hands|\bhandshake",
        "alone": r"\balone|\bnobody|\bno other|\bno one",
        "side by side": r"\bside\b",
    },
    SETTING: {
        "office": r"\boffice",
        "kitchen": r"\bkitchen",
        "street": r"\bstreet",
        "park": r"\bpark",
        "living room": r"\bliving room",
    },
}


def truth(scene: Scene) -> dict[str, str]:
    """The kind that a scene is of, by aspect."""
    return {ACTIONS_OF: scene.action, FACES: scene.expression, INTERACTION: scene.interaction, SETTING: scene.place}


def described(scene: Scene, wording: int = 0) -> dict[str, str]:
    """A description under each of A, E, I and SD, in the wording of that number."""
    who = f"The person in the {scene.speaker.shirt} shirt"
    return {
        ACTIONS_OF: f"{who} {_DOES[scene.action][wording]}.",
        FACES: f"The person {_LOOKS[scene.expression][wording]}.",
        INTERACTION: _TOGETHER[scene.interaction][wording],
        SETTING: _WHERE[scene.place][wording % 2],
    }


def named(aspect: str, text: str) -> str | None:
    """The kind that a description names; None where it names none, or more than one."""
    found = [kind for kind, mark in _MARKS[aspect].items() if re.search(mark, text, re.IGNORECASE)]
    return found[0] if len(found) == 1 else None
