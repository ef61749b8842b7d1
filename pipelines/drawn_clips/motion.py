"""Who stands how at which moment of a scene: poses, made from a scene and a time.

Hands are given as offsets from their shoulder in parts of the person's height; x grows to the right, y downwards.
"""

from __future__ import annotations

import dataclasses
import math

from .scene import Expression, Person, Scene

Offset = tuple[float, float]

SHOULDER = 0.13
"""From the middle of the body to a shoulder."""
EDGE = 0.03
"""What a hand keeps from the edge of the picture, in parts of the picture."""
HANGING: Offset = (0.05, 0.30)
"""A hand that does nothing: below the shoulder, a little outwards (mirrored for the left)."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pose:
    """One person at one moment; places in parts of the picture."""

    person: Person
    expression: Expression
    x: float
    ground: float
    turn: float = 0.0
    """Where the face looks: −1 left, 0 to the viewer, 1 right."""
    nod: float = 0.0
    """How far the face is lowered: −1 up, 1 down."""
    left: Offset = (-HANGING[0], HANGING[1])
    """The hand at the left of the picture."""
    right: Offset = HANGING
    finger: int = 0
    """−1 where the left hand points, 1 where the right does."""
    holds: int = 0
    """−1 where the left hand holds a parcel, 1 where the right does."""
    stride: float = 0.0
    """How far the legs are apart: −1 to 1."""
    seated: bool = False
    from_behind: bool = False


def poses(scene: Scene, time: float) -> list[Pose]:
    """Everybody in the picture at a time (seconds), the one behind first."""
    people = [_speaker(scene, time)]
    if scene.interaction != "alone":
        people.insert(0, _other(scene, time))
    return people


def _toward(scene: Scene) -> int:
    """On which side of the speaker the other is, or would be: 1 right, −1 left."""
    return 1 if scene.speaker_on_left else -1


def _speaker(scene: Scene, time: float) -> Pose:
    side = _toward(scene)
    turn = 0.75 * side if scene.interaction in ("facing", "back turned", "handshake") else 0.0
    pose = Pose(person=scene.speaker, expression=scene.expression, x=scene.x, ground=scene.ground, turn=turn)
    if scene.interaction == "handshake":
        pose = _hand(pose, side, _shaken(scene, scene.speaker, time))
    return _acting(scene, time, pose)


def _other(scene: Scene, time: float) -> Pose:
    side = _toward(scene)
    pose = Pose(
        person=scene.other, expression="neutral", x=scene.x + side * scene.distance, ground=scene.ground,
        turn=0.0 if scene.interaction in ("side by side", "back turned") else -0.75 * side,
        from_behind=scene.interaction == "back turned",
    )  # fmt: skip
    if scene.interaction == "handshake":
        return _hand(pose, -side, _shaken(scene, scene.other, time))
    if scene.action == "hands over" and scene.interaction != "back turned":
        return _hand(pose, -side, (-0.18 * side, 0.08))
    return pose


def _hand(pose: Pose, side: int, offset: Offset) -> Pose:
    """The hand at that side moved there."""
    return dataclasses.replace(pose, right=offset) if side > 0 else dataclasses.replace(pose, left=offset)


def _shaken(scene: Scene, person: Person, time: float) -> Offset:
    """Where a hand is that shakes another: midway between the two, going up and down."""
    shoulder = SHOULDER * person.height
    reach = (scene.distance / 2 - shoulder) / person.height
    side = _toward(scene) if person is scene.speaker else -_toward(scene)
    middle = scene.ground - 0.40 * min(scene.speaker.height, scene.other.height)
    below = (middle - (scene.ground - 0.56 * person.height)) / person.height
    return side * reach, below + 0.05 * math.sin(_angle(scene, time))


def _angle(scene: Scene, time: float) -> float:
    return 2 * math.pi * (scene.tempo * time + scene.phase)


def _reach(scene: Scene, arm: int) -> float:
    """How far an arm is stretched out to point: as far as it goes, and its hand stays in the picture."""
    room = scene.x if arm < 0 else 1 - scene.x
    return min(0.27, (room - EDGE) / scene.speaker.height - SHOULDER)


def _acting(scene: Scene, time: float, pose: Pose) -> Pose:
    """The speaker's pose with what the action makes of it."""
    side = _toward(scene)
    swing = math.sin(_angle(scene, time))
    arm = -side if scene.outer_arm else side
    done = min(1.0, time / max(scene.seconds - 0.3, 0.1))
    match scene.action:
        case "waves":
            return _hand(pose, arm, (arm * (0.17 + 0.10 * swing), -0.33 + 0.05 * abs(swing)))
        case "points":
            up = min(1.0, 0.6 + time)
            pointed = _hand(pose, arm, (arm * _reach(scene, arm) * up, 0.04 - 0.02 * swing))
            return dataclasses.replace(pointed, finger=arm)
        case "nods":
            return dataclasses.replace(pose, nod=0.9 * swing)
        case "shakes head":
            return dataclasses.replace(pose, turn=0.25 * pose.turn + 0.95 * swing)
        case "hands over":
            given = _hand(pose, side, (side * (0.04 + 0.27 * done), 0.14 - 0.08 * done))
            return dataclasses.replace(given, holds=side)
        case "walks off":
            away = -side * (0.15 + scene.x if side > 0 else 1.15 - scene.x)
            legs = math.sin(_angle(scene, time) * 1.2)
            return dataclasses.replace(pose, x=pose.x + away * max(0.0, done - 0.1), stride=legs, turn=-0.75 * side)
        case "claps":
            apart = 0.02 + 0.11 * abs(swing)
            return dataclasses.replace(pose, left=(0.13 - apart, 0.10), right=(-0.13 + apart, 0.10))
        case "sits still":
            lap = dataclasses.replace(pose, left=(0.05, 0.26), right=(-0.05, 0.26))
            return dataclasses.replace(lap, seated=True)
