"""One sample of the report: pictures of the clip, what was said, and what was made of it."""

from __future__ import annotations

from collections.abc import Iterator

from .markup import Html, tag
from .samples import Sample
from .thumbnails import Pictures


def sample_card(sample: Sample, pictures: Pictures) -> Html:
    """One sample: pictures, what was said, what was made of it, and how it came to be."""
    return tag(
        "article",
        _pictures(pictures),
        tag("blockquote", sample.text, class_="said"),
        tag(
            "p",
            tag("span", sample.split, class_="chip"),
            tag("span", sample.label or "no label", class_="chip said"),
            tag("code", sample.id),
        ),
        list(_made(sample)),
        tag("details", tag("summary", "How it came to be"), tag("ul", [tag("li", line) for line in sample.receipts]))
        if sample.receipts
        else None,
        class_="sample",
    )


def _made(sample: Sample) -> Iterator[Html]:
    if sample.descriptions:
        pairs = (
            (tag("dt", aspect, class_="said"), tag("dd", text, class_="said")) for aspect, text in sample.descriptions
        )
        yield tag("dl", list(pairs))
    if sample.ranking:
        yield tag("p", tag("b", "Ranked: "), tag("span", " > ".join(sample.ranking), class_="said"))
    if sample.shown:
        yield tag("p", "shown as ", tag("span", ", ".join(sample.shown), class_="said"), class_="quiet")
    for trouble in sample.trouble:
        said = (
            tag("b", f"Set aside in {trouble.stage}: {trouble.reason}. "),
            tag("span", trouble.detail, class_="said"),
        )
        yield tag("p", said, class_="warning")
        if trouble.raw_answer:
            answer = tag("pre", trouble.raw_answer, class_="said")
            yield tag("details", tag("summary", "The raw answer"), answer)


def _pictures(pictures: Pictures) -> Html:
    if not pictures.urls:
        return tag("div", tag("span", pictures.reason or "no pictures", class_="grey"), class_="film")
    images = (tag("img", src=url, alt=f"picture {n} of the clip") for n, url in enumerate(pictures.urls, 1))
    return tag("div", images, class_="film")
