"""Draws a person: legs, trunk, arms, head and face, from a pose.

All lengths are parts of the person's height; the head is large, so that a face can be read on a small picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import ImageDraw

from .motion import SHOULDER, Offset, Pose
from .scene import SHIRTS, Colour, Expression

HEAD = 0.20
"""Radius of the head."""
_SHOULDER_Y, _HIP_Y, _HEAD_Y = 0.56, 0.30, 0.79
_ARM = 0.36
_SEAT = 0.14
"""How far one sits down."""
INK: Colour = (30, 25, 25)
_PARCEL: Colour = (175, 120, 65)
_TEAR: Colour = (60, 130, 230)


def face_of(pose: Pose) -> tuple[float, float]:
    """Where the middle of the face is, in parts of the picture."""
    height = pose.person.height
    x = pose.x + (0.03 + 0.42 * HEAD) * pose.turn * height
    up = _HEAD_Y - 0.03 * pose.nod - (_SEAT if pose.seated else 0.0)
    return x, pose.ground - (up - (0.30 * pose.nod + 0.08) * HEAD) * height


def hands_of(pose: Pose) -> tuple[tuple[float, float], tuple[float, float]]:
    """Where the hands are, the one at the left first, in parts of the picture."""
    height = pose.person.height
    y = pose.ground - (_SHOULDER_Y - (_SEAT if pose.seated else 0.0)) * height
    left, right = (
        (pose.x + (side * SHOULDER + hand[0]) * height, y + hand[1] * height)
        for side, hand in ((-1, pose.left), (1, pose.right))
    )
    return left, right


def draw_person(canvas: ImageDraw.ImageDraw, pose: Pose, side: int) -> None:
    """Draw onto a picture of `side` × `side` pixels."""
    _Drawing(canvas, pose, side).draw()


class _Drawing:
    """A person on a canvas: from parts of the height to pixels."""

    def __init__(self, canvas: ImageDraw.ImageDraw, pose: Pose, side: int) -> None:
        self.canvas, self.pose, self.side = canvas, pose, side
        self.unit = pose.person.height * side
        self.x, self.ground = pose.x * side, pose.ground * side
        self.drop = _SEAT if pose.seated else 0.0

    def draw(self) -> None:
        if self.pose.seated:
            self._chair()
        self._legs()
        self._trunk()
        if self.pose.from_behind:
            self._arms()
            self._head_from_behind()
            return
        self._head()
        self._face()
        self._arms()

    # Points and strokes

    def at(self, x: float, up: float) -> tuple[float, float]:
        """Pixels of a point `x` beside the middle and `up` above the ground."""
        return self.x + x * self.unit, self.ground - (up - self.drop) * self.unit

    def _stroke(self, points: Sequence[tuple[float, float]], width: float, colour: Colour) -> None:
        thick = max(1, round(width * self.unit))
        self.canvas.line(list(points), fill=colour, width=thick, joint="curve")
        for x, y in (points[0], points[-1]):
            self._dot(x, y, thick / 2, colour)

    def _dot(self, x: float, y: float, radius: float, colour: Colour) -> None:
        self.canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)

    # Parts

    def _chair(self) -> None:
        back, seat = self.at(-0.20, 0.70), self.at(0.20, 0.28)
        brown: Colour = (110, 75, 45)
        self.canvas.rectangle((back[0], back[1], back[0] + 0.05 * self.unit, self.ground), fill=brown)
        self.canvas.rectangle((back[0], seat[1], seat[0], seat[1] + 0.05 * self.unit), fill=brown)
        self.canvas.rectangle((seat[0] - 0.05 * self.unit, seat[1], seat[0], self.ground), fill=brown)

    def _legs(self) -> None:
        colour = self.pose.person.trousers
        for side in (-1, 1):
            hip = self.at(side * 0.06, _HIP_Y)
            if self.pose.seated:
                knee, foot = self.at(side * 0.13, _HIP_Y - 0.02), (self.x + side * 0.13 * self.unit, self.ground)
                self._stroke([hip, knee, foot], 0.09, colour)
            else:
                foot = self.at(side * (0.07 + 0.09 * side * self.pose.stride), 0.03)
                self._stroke([hip, foot], 0.09, colour)
            self._dot(foot[0] + 0.02 * side * self.unit, foot[1], 0.045 * self.unit, INK)

    def _trunk(self) -> None:
        left, top = self.at(-SHOULDER - 0.02, _SHOULDER_Y + 0.05)
        right, bottom = self.at(SHOULDER + 0.02, _HIP_Y - 0.03)
        self.canvas.rounded_rectangle((left, top, right, bottom), radius=0.07 * self.unit, fill=self._shirt())
        if not self.pose.from_behind:
            for up in (0.50, 0.43, 0.36):
                self._dot(*self.at(0.09 * self.pose.turn, up), 0.013 * self.unit, INK)

    def _shirt(self) -> Colour:
        return SHIRTS[self.pose.person.shirt]

    def _arms(self) -> None:
        for side, hand in ((-1, self.pose.left), (1, self.pose.right)):
            shoulder = self.at(side * SHOULDER, _SHOULDER_Y)
            end = (shoulder[0] + hand[0] * self.unit, shoulder[1] + hand[1] * self.unit)
            sleeve = tuple(max(0, c - 30) for c in self._shirt())
            self._stroke([shoulder, self._elbow(shoulder, hand, side), end], 0.07, (sleeve[0], sleeve[1], sleeve[2]))
            self._dot(*end, 0.05 * self.unit, self.pose.person.skin)
            if self.pose.finger == side:
                self._stroke([end, (end[0] + side * 0.11 * self.unit, end[1])], 0.03, self.pose.person.skin)
            if self.pose.holds == side:
                half = 0.065 * self.unit
                x, y = end[0] + side * half * 0.6, end[1] - half * 0.4
                self.canvas.rectangle((x - half, y - half, x + half, y + half), fill=_PARCEL, outline=INK)

    def _elbow(self, shoulder: tuple[float, float], hand: Offset, side: int) -> tuple[float, float]:
        """Between shoulder and hand: an arm longer than the way bends outwards, and one that points bends down."""
        reach = math.hypot(*hand)
        bend = math.sqrt(max(0.0, (_ARM / 2) ** 2 - (reach / 2) ** 2))
        across = (-hand[1], hand[0])
        is_away = across[1] > 0 if self.pose.finger == side else across[0] * side > 0
        away = across if is_away else (-across[0], -across[1])
        scale = bend / reach if reach else 0.0
        x, y = hand[0] / 2 + away[0] * scale, hand[1] / 2 + away[1] * scale
        return shoulder[0] + x * self.unit, shoulder[1] + y * self.unit

    def _centre(self) -> tuple[float, float]:
        return self.at(0.03 * self.pose.turn, _HEAD_Y - 0.03 * self.pose.nod)

    def _head(self) -> None:
        x, y = self._centre()
        radius = HEAD * self.unit
        person = self.pose.person
        self._dot(x - 0.02 * self.pose.turn * self.unit, y - 0.02 * self.unit, radius * 1.06, person.hair)
        brow = y - (0.85 - 0.45 * max(-0.2, self.pose.nod)) * radius  # who lowers the head shows more of the hair
        self.canvas.ellipse((x - radius * 0.95, brow, x + radius * 0.95, y + radius), fill=person.skin)

    def _head_from_behind(self) -> None:
        x, y = self._centre()
        self._dot(x, y, HEAD * 1.05 * self.unit, self.pose.person.hair)
        self._dot(x, y + HEAD * self.unit, 0.05 * self.unit, self.pose.person.skin)

    # The face

    def _face(self) -> None:
        x, y = (part * self.side for part in face_of(self.pose))
        radius = HEAD * self.unit
        narrow = 1 - 0.25 * abs(self.pose.turn)
        for side in (-1, 1):
            self._eye(x + side * 0.38 * radius * narrow, y - 0.18 * radius, radius, side)
        self._stroke([(x, y), (x + 0.12 * self.pose.turn * radius, y + 0.14 * radius)], 0.016, INK)
        self._mouth(x, y + 0.45 * radius, radius, narrow)

    def _eye(self, x: float, y: float, radius: float, side: int) -> None:
        expression = self.pose.expression
        size = 0.19 if expression == "surprise" else 0.13
        self._dot(x, y, size * radius, (255, 255, 255))
        self._dot(x + 0.05 * self.pose.turn * radius, y, 0.085 * radius, INK)
        inner, outer = _BROWS[expression]
        span = 0.20 * radius
        self._stroke([(x - side * span, y - inner * radius), (x + side * span, y - outer * radius)], 0.024, INK)
        if expression == "sad" and side > 0:
            drop = y + 0.34 * radius
            self.canvas.ellipse(
                (x - 0.09 * radius, drop - 0.13 * radius, x + 0.09 * radius, drop + 0.13 * radius), fill=_TEAR
            )

    def _mouth(self, x: float, y: float, radius: float, narrow: float) -> None:
        wide, width = 0.40 * radius * narrow, max(1, round(0.028 * self.unit))
        match self.pose.expression:
            case "smile":
                box = (x - wide, y - 0.34 * radius, x + wide, y + 0.26 * radius)
                self.canvas.chord(box, 10, 170, fill=(255, 255, 255), outline=(150, 30, 40), width=width)
            case "frown" | "sad":
                self.canvas.arc(
                    (x - wide, y - 0.04 * radius, x + wide, y + 0.50 * radius), 195, 345, fill=INK, width=width
                )
            case "surprise":
                self.canvas.ellipse(
                    (x - 0.17 * radius, y - 0.16 * radius, x + 0.17 * radius, y + 0.30 * radius), fill=(90, 20, 30)
                )
            case "neutral":
                self._stroke([(x - 0.8 * wide, y + 0.08 * radius), (x + 0.8 * wide, y + 0.08 * radius)], 0.022, INK)


_BROWS: dict[Expression, tuple[float, float]] = {
    "smile": (0.34, 0.30),
    "frown": (0.14, 0.40),
    "surprise": (0.50, 0.48),
    "sad": (0.44, 0.18),
    "neutral": (0.28, 0.28),
}
"""How far above the eye a brow's inner and outer end are, in radii of the head."""
