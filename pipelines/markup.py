"""HTML in which nothing can be forgotten to be escaped: a text is escaped unless `tag` itself has made it.

    tag("p", "5 < 6", class_="note")        # <p class="note">5 &lt; 6</p>

Whatever a model, a speaker or a table said goes through here as a plain `str`, and so cannot become markup. A page of
this kind holds no script, and its policy lets a browser run none and fetch nothing.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import TypeAlias

_VOID = frozenset({"meta", "img"})
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


class Html(str):
    """Markup, made by `tag`; every other text is escaped."""


Child: TypeAlias = "str | int | Iterable[Child] | None"


def tag(name: str, *children: Child, **attributes: str | float | None) -> Html:
    """An element. `class_` is class, an underscore within a name is a dash, an attribute that is None is left out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escaped(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{joined(*children)}</{name}>")


def joined(*children: Child) -> Html:
    """Children one after the other."""
    parts = []
    for child in children:
        if isinstance(child, Html):
            parts.append(child)
        elif isinstance(child, str | int):
            parts.append(escaped(str(child)))
        elif child is not None:
            parts.append(joined(*child))
    return Html("".join(parts))


def escaped(text: str) -> Html:
    """A text as markup; control characters, those that turn the direction of what follows, and halves of characters
    become �."""
    return Html(html.escape(_CONTROL.sub("\ufffd", text), quote=True))


def page(title: str, style: str, *body: Child) -> bytes:
    """A whole document. `style` is ours alone: nothing that anybody said may be in it."""
    head = joined(
        tag("meta", charset="utf-8"),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name_="color-scheme", content="light dark"),
        tag("meta", name_="referrer", content="no-referrer"),
        tag("title", title),
        Html(f"<style>{style}</style>"),
    )
    whole = tag("html", tag("head", head), tag("body", *body), lang="en")
    return f"<!doctype html>\n{whole}\n".encode()


def table(titles: Iterable[str], rows: Iterable[Iterable[Child]], *, numbers_from: int = 1) -> Html:
    """A table that scrolls within itself where it is too wide; columns from `numbers_from` on stand to the right."""

    def cells(name: str, values: Iterable[Child]) -> Html:
        return joined(
            tag(name, value, class_="number" if place >= numbers_from else None) for place, value in enumerate(values)
        )

    head = tag("thead", tag("tr", cells("th", titles)))
    body = tag("tbody", (tag("tr", cells("td", row)) for row in rows))
    return tag("div", tag("table", head, body), class_="scroll")


def stacked_bar(parts: Iterable[tuple[str, float, str]], whole: float) -> Html:
    """A bar of SVG, as wide as its place: parts of (colour's class, size, what it is), out of `whole`."""
    drawn, at = [], 0.0
    for colour, size, meaning in parts:
        width = 100 * size / whole if whole else 0.0
        if width > 0:
            shape = tag(
                "rect", tag("title", meaning), x=f"{at:.3f}", y=0, width=f"{width:.3f}", height=10, class_=colour
            )
            drawn.append(shape)
        at += width
    back = tag("rect", x=0, y=0, width=100, height=10, class_="empty")
    return Html(tag("svg", back, drawn, viewBox="0 0 100 10", preserveAspectRatio="none", class_="bar", role="img"))


def legend(entries: Iterable[tuple[str, str]]) -> Html:
    """What the colours mean: (colour's class, words)."""
    dot = tag("rect", x=0, y=0, width=10, height=10, rx=2)
    shown = (
        tag("span", tag("svg", dot, viewBox="0 0 10 10", class_=f"dot {colour}", aria_hidden="true"), words)
        for colour, words in entries
    )
    return tag("p", shown, class_="legend")
