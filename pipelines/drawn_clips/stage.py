"""Draws the place in which a scene happens: a wall or a sky, a floor, and the things by which it is known."""

from __future__ import annotations

from random import Random

from PIL import Image, ImageDraw

from .scene import Colour, Place, Scene

_GROUNDS: dict[Place, tuple[Colour, Colour]] = {
    "office": ((196, 206, 216), (120, 125, 135)), "kitchen": ((240, 228, 196), (190, 170, 140)),
    "street": ((175, 205, 230), (95, 95, 100)), "park": ((150, 205, 240), (95, 165, 75)),
    "living room": ((214, 184, 170), (140, 95, 65)),
}  # fmt: skip
"""Wall or sky, and floor."""


def draw_place(scene: Scene, side: int) -> Image.Image:
    """The place without people, `side` × `side` pixels."""
    random = Random(scene.props)
    wall, floor = (_tinted(colour, scene.tint) for colour in _GROUNDS[scene.place])
    picture = Image.new("RGB", (side, side), wall)
    canvas = ImageDraw.Draw(picture)
    horizon = round(side * random.uniform(0.62, 0.72))
    canvas.rectangle((0, horizon, side, side), fill=floor)
    _PROPS[scene.place](canvas, random, side, horizon)
    return picture


def _tinted(colour: Colour, tint: tuple[float, float, float]) -> Colour:
    red, green, blue = (min(255, round(c * t)) for c, t in zip(colour, tint, strict=True))
    return red, green, blue


def _office(canvas: ImageDraw.ImageDraw, random: Random, side: int, horizon: int) -> None:
    x = random.uniform(0.05, 0.55) * side
    canvas.rectangle((x, horizon - 0.08 * side, x + 0.45 * side, horizon), fill=(120, 90, 60))
    screen = x + random.uniform(0.05, 0.2) * side
    canvas.rectangle((screen, horizon - 0.30 * side, screen + 0.2 * side, horizon - 0.13 * side), fill=(45, 50, 60))
    canvas.rectangle(
        (screen + 0.02 * side, horizon - 0.28 * side, screen + 0.18 * side, horizon - 0.15 * side), fill=(110, 160, 220)
    )


def _kitchen(canvas: ImageDraw.ImageDraw, random: Random, side: int, horizon: int) -> None:
    step = side / random.randint(7, 10)
    for i in range(1, 11):
        canvas.line((i * step, 0, i * step, horizon), fill=(222, 208, 172), width=1)
        canvas.line((0, i * step, side, i * step), fill=(222, 208, 172), width=1)
    x = random.uniform(0.0, 0.6) * side
    canvas.rectangle((x, 0, x + 0.4 * side, 0.2 * side), fill=(165, 115, 75), outline=(110, 75, 45), width=2)
    canvas.line((x + 0.2 * side, 0, x + 0.2 * side, 0.2 * side), fill=(110, 75, 45), width=2)


def _street(canvas: ImageDraw.ImageDraw, random: Random, side: int, horizon: int) -> None:
    x = 0.0
    while x < side:
        width, height = random.uniform(0.18, 0.3) * side, random.uniform(0.25, 0.55) * side
        grey = random.randint(120, 170)
        canvas.rectangle((x, horizon - height, x + width, horizon), fill=(grey, grey - 15, grey - 25))
        for i in range(3):
            for j in range(2):
                left, top = x + (0.15 + 0.4 * j) * width, horizon - height * (0.85 - 0.28 * i)
                canvas.rectangle((left, top, left + 0.25 * width, top + 0.14 * height), fill=(235, 225, 150))
        x += width
    for i in range(4):
        canvas.rectangle(
            (i * 0.28 * side, 0.86 * side, i * 0.28 * side + 0.14 * side, 0.88 * side), fill=(225, 225, 225)
        )


def _park(canvas: ImageDraw.ImageDraw, random: Random, side: int, horizon: int) -> None:
    canvas.ellipse((0.78 * side, 0.03 * side, 0.94 * side, 0.19 * side), fill=(250, 225, 100))
    for _ in range(random.randint(1, 3)):
        x, top = random.uniform(0.05, 0.85) * side, random.uniform(0.12, 0.3) * side
        canvas.rectangle((x - 0.03 * side, top, x + 0.03 * side, horizon), fill=(105, 75, 45))
        canvas.ellipse((x - 0.15 * side, top - 0.14 * side, x + 0.15 * side, top + 0.16 * side), fill=(55, 125, 55))


def _living_room(canvas: ImageDraw.ImageDraw, random: Random, side: int, horizon: int) -> None:
    x = random.uniform(0.05, 0.6) * side
    canvas.rectangle(
        (x, 0.08 * side, x + 0.28 * side, 0.34 * side), fill=(150, 195, 235), outline=(245, 245, 240), width=3
    )
    canvas.line((x + 0.14 * side, 0.08 * side, x + 0.14 * side, 0.34 * side), fill=(245, 245, 240), width=3)
    sofa = random.uniform(0.0, 0.45) * side
    colour = (random.randint(90, 160), random.randint(50, 90), random.randint(60, 120))
    canvas.rounded_rectangle(
        (sofa, horizon - 0.18 * side, sofa + 0.5 * side, horizon + 0.1 * side), radius=8, fill=colour
    )


_PROPS = {"office": _office, "kitchen": _kitchen, "street": _street, "park": _park, "living room": _living_room}
