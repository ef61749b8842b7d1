"""How `report.html` looks: plain HTML, style and bars of SVG within the page, no script, nothing fetched.

Every section explains itself in a sentence, since whoever opens the page may not have run the extraction. All texts go
through `pipelines.markup`, which escapes them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from lgsrr.blotting import without_keys
from lgsrr.records import SPLITS

from .markup import Child, Html, joined, legend, page, stacked_bar, table, tag
from .rank import PositionBias
from .report import Facts, Failure
from .report_style import STYLE
from .sample_card import sample_card
from .thumbnails import Pictures

_STAND_INS = {
    "stand-in": ", which answers by rules in place of a language model and is none",
    "scripted": ", which says rules' words in place of a video model and is none",
}
"""What makes rows and is no model."""
_FEW = 30
"""Rankings below which nothing is said of a bias."""
_SHADES = 6


def report_page(facts: Facts) -> bytes:
    """The whole page, UTF-8."""
    title = f"Extraction of {facts.dataset}"
    return page(
        title,
        STYLE,
        tag("header", tag("h1", title), _introduction(facts), _tiles(facts)),
        tag(
            "main",
            _section("From utterances to rankings", _FUNNEL, _funnel(facts)),
            _section("What was set aside", _FAILURES, _failures(facts)),
            _section("Aspects", _ASPECTS, _aspects(facts.aspects)),
            _section("Rankings", _RANKINGS, _rankings(facts)),
            _section("Does the order of showing matter?", _BIAS, _bias(facts.bias)),
            _section("Cost and tokens", _COST, _cost(facts)),
            _section("Runs", "Each run of the command, and how fast it worked.", _runs(facts)),
            _section("Samples", _SAMPLES, _samples(facts)),
        ),
    )


_FUNNEL = "How many utterances came through each step, by split."
_FAILURES = "An utterance that cannot be worked on is set aside with its reason, and holds up nothing else."
_ASPECTS = "The kinds of cues under which each clip is described, most frequent first."
_RANKINGS = (
    "How often each aspect came first, second, … by importance for the speaker's intent (the paper's Table 7); "
    "training split alone."
)
_BIAS = (
    "Language models tend to prefer what they are shown first, so the aspects are shown in an order drawn anew for "
    "each utterance. Here is how much of that liking shows in the rankings."
)
_COST = "From the receipt of every row, all runs together; calls that failed in between are among the calls."
_SAMPLES = "Drawn at random: some of each split, and last, where there are any, utterances that were set aside."


def _section(title: str, explanation: str, *content: Child) -> Html:
    return tag("section", tag("h2", title), tag("p", explanation, class_="lead"), *content)


def _introduction(facts: Facts) -> Html:
    made = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(facts.made_at))
    said = tag(
        "p",
        "Short clips of people talking were described by a video model under a few aspects, such as facial "
        "expressions, and a language model ranked these by how much they tell of what the speaker intends. A small "
        "model learns from both. This page shows what came of it.",
        class_="lead",
    )
    said = joined(said, _makers(facts))
    where = tag("p", "Output: ", tag("code", facts.out), f" · written {made}", class_="quiet")
    if facts.ended_early is None:
        return joined(said, where)
    return joined(
        said, where, tag("p", "The last run ended early: ", without_keys(facts.ended_early), class_="warning")
    )


def _makers(facts: Facts) -> Html | None:
    """By whom descriptions and rankings are; what is no model is called by its name."""
    words = {"describe": "Described by ", "rank": "Ranked by "}
    if not facts.makers:
        return None
    parts: list[Child] = []
    for stage, models in facts.makers.items():
        parts += [words[stage]]
        for place, model in enumerate(models):
            parts += [", " if place else "", tag("b", model), _STAND_INS.get(model, "")]
        parts.append(". ")
    return tag("p", *parts)


def _tiles(facts: Facts) -> Html:
    steps = {step.name: sum(step.counts.values()) for step in facts.funnel}
    aside = sum(failure.count for failure in facts.failures)
    figures = (
        (f"{steps.get('utterances', 0):,}", "utterances"),
        (f"{steps.get('described', 0):,}", "described"),
        (f"{steps.get('ranked', 0):,}", "ranked"),
        (f"{aside:,}", "set aside"),
        (_dollars(facts.cost_usd), "in all"),
    )
    return tag("div", (tag("div", tag("b", n), tag("span", what)) for n, what in figures), class_="tiles")


def _funnel(facts: Facts) -> Html:
    whole = max((sum(step.counts.values()) for step in facts.funnel), default=0)
    rows = []
    for step in facts.funnel:
        parts = [(f"s{i}", step.counts.get(s, 0), f"{s}: {step.counts.get(s, 0):,}") for i, s in enumerate(SPLITS, 1)]
        rows.append(_bar_row(step.name, stacked_bar(parts, whole), f"{sum(step.counts.values()):,}", step.note))
    numbers = (
        [step.name, *(f"{step.counts[s]:,}" if s in step.counts else "–" for s in SPLITS)] for step in facts.funnel
    )
    colours = [(f"s{place}", split) for place, split in enumerate(SPLITS, 1)]
    return joined(legend(colours), tag("div", rows, class_="bars"), table(("", *SPLITS), numbers))


def _bar_row(name: Child, bar: Html, number: str, note: str = "") -> Html:
    label = tag("span", name, tag("small", note) if note else None, class_="label said")
    return tag("div", label, bar, tag("span", number, class_="number"), class_="row")


def _failures(facts: Facts) -> Html:
    if not facts.failures:
        return tag("p", "Nothing was set aside.")
    return joined(map(_failure, facts.failures))


def _failure(failure: Failure) -> Html:
    more = failure.count - len(failure.first)
    ids = [tag("li", tag("code", name), " ", tag("span", _cut(text), class_="said")) for name, text in failure.first]
    return tag(
        "article",
        tag("h3", f"{failure.count:,} × {failure.reason}", tag("small", f" in {failure.stage}")),
        tag("p", tag("b", "What to do: "), failure.advice),
        tag("ul", ids, tag("li", f"and {more:,} more", class_="quiet") if more > 0 else None, class_="plain"),
    )


def _aspects(document: Mapping[str, Any]) -> Html:
    if not document.get("aspects"):
        return tag("p", "There are no aspects yet.")
    rows = (
        (a["name"], a.get("instruction") or "–", "–" if a.get("frequency") is None else f"{a['frequency']:,}")
        for a in document["aspects"]
    )
    listed = table(("aspect", "what the video model is asked", "answers"), rows, numbers_from=2)
    found = document.get("found", {})
    if found.get("by") != "llm":
        where = {"hand": "They were named on the command line.", "data": "They came with the data."}
        return joined(listed, tag("p", where.get(str(found.get("by")), ""), class_="quiet"))
    return joined(listed, _discovery(found))


def _discovery(found: Mapping[str, Any]) -> Html:
    refused = len(found.get("refused", ()))
    how = (
        f"{found.get('model')} was asked {found.get('answers', 0) + refused} times over random training utterances"
        f"{f'; {_answers(refused)} could not be used' if refused else ''}. Names that mean the same were merged by "
        f"{found.get('merged_by', '?')}."
    )
    entries = found.get("table", [])
    rows = ((entry["name"], f"{entry['frequency']:,}", ", ".join(entry["said"])) for entry in entries)
    merged = table(("aspect", "answers", "names that were merged"), rows, numbers_from=3)
    return joined(tag("p", how), tag("details", tag("summary", f"All {len(entries)} aspects that were named"), merged))


def _rankings(facts: Facts) -> Html:
    if not facts.places:
        return tag("p", "Nothing is ranked yet.")
    size = len(next(iter(facts.places.values())))
    names = [_ordinal(place) for place in range(1, size + 1)]
    bars = []
    for aspect, counts in facts.places.items():
        total = sum(counts)
        parts = [
            (_shade(place), count, f"{name}: {count:,}")
            for place, (name, count) in enumerate(zip(names, counts, strict=True))
        ]
        bars.append(_bar_row(aspect, stacked_bar(parts, total), f"{counts[0] / total:.0%} first" if total else "–"))
    rows = ((aspect, *(f"{count:,}" for count in counts)) for aspect, counts in facts.places.items())
    colours = [(_shade(place), name) for place, name in enumerate(names)]
    return joined(legend(colours), tag("div", bars, class_="bars"), table(("aspect", *names), rows))


def _shade(place: int) -> str:
    return f"p{min(place + 1, _SHADES)}"


def _bias(bias: PositionBias | None) -> Html:
    if bias is None:
        return tag("p", "There is no ranking whose order of showing is known.")
    size = len(bias.counts)
    rows = (
        (f"shown {_ordinal(place)}", *(f"{count / max(1, sum(row)):.0%}" for count in row))
        for place, row in enumerate(bias.counts, 1)
    )
    titles = ("", *(f"ranked {_ordinal(place)}" for place in range(1, size + 1)))
    return joined(tag("p", bias_sentence(bias)), table(titles, rows))


def bias_sentence(bias: PositionBias) -> str:
    """What a measured position bias means, in a sentence or two."""
    size, n = len(bias.counts), bias.rankings
    chance = 1 / size
    error = math.sqrt(chance * (1 - chance) / n)
    measured = (
        f"In {bias.first_first:.1%} of {n:,} rankings the aspect shown first came first; without any bias it would be "
        f"{chance:.1%}. The order shown and the order given agree by {bias.correlation:+.2f} (Kendall's τ; 0: not at "
        "all, 1: wholly). "
    )
    if n < _FEW:
        return measured + "These are too few rankings to tell a bias from chance."
    if bias.first_first - chance > 2 * error:
        return measured + (
            "This is more than chance: the model favours what it sees first. Drawing the order anew spreads this over "
            "all aspects, so that it adds noise to single rankings, but favours no aspect."
        )
    if chance - bias.first_first > 2 * error:
        return measured + "This is less than chance: the model shuns what it sees first, evenly over all aspects."
    return measured + "This is within chance: the order of showing does not matter."


def _cost(facts: Facts) -> Html:
    rows: list[tuple[Child, ...]] = [
        (
            spent.stage,
            "–" if spent.calls is None else f"{spent.calls:,}",
            f"{spent.input_tokens:,}",
            f"{spent.output_tokens:,}",
            f"{spent.waited_s:,.0f} s",
            _dollars(spent.cost_usd),
        )
        for spent in facts.spent
    ]
    if facts.replaced_usd:
        rows.append(("replaced by newer work", "", "", "", "", _dollars(facts.replaced_usd)))
    sums = (sum(spent.input_tokens for spent in facts.spent), sum(spent.output_tokens for spent in facts.spent))
    rows.append((tag("b", "in all"), "", *(f"{value:,}" for value in sums), "", tag("b", _dollars(facts.cost_usd))))
    return table(("stage", "calls", "tokens in", "tokens out", "waiting", "dollars"), rows)


def _runs(facts: Facts) -> Html:
    if not facts.runs:
        return tag("p", "No run has come to its end yet.")
    return joined(_run(number, run) for number, run in reversed(list(enumerate(facts.runs, 1))))


def _run(number: int, run: Mapping[str, Any]) -> Html:
    started, took = float(run["started"]), float(run["finished"]) - float(run["started"])
    when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(started))
    rows = [
        (
            name,
            f"{done['rows']:,}",
            f"{done['before']:,}",
            f"{done['done']:,}",
            f"{done['set_aside']:,}",
            _duration(done["seconds"]),
            f"{(done['done'] + done['set_aside']) / done['seconds']:.2f}" if done["seconds"] > 0 else "–",
        )
        for name, done in run.get("stages", {}).items()
    ]
    return tag(
        "article",
        tag("h3", f"Run {number}", tag("small", f" {when}, {_duration(took)}")),
        tag("pre", without_keys(str(run.get("command", ""))), class_="command"),
        table(("stage", "rows", "before", "done", "set aside", "time", "rows/s"), rows),
    )


def _samples(facts: Facts) -> list[Html]:
    return [sample_card(sample, facts.pictures.get(sample.id, Pictures())) for sample in facts.samples]


def _answers(count: int) -> str:
    return "one answer" if count == 1 else f"{count:,} answers"


def _cut(text: str, most: int = 200) -> str:
    return text if len(text) <= most else text[:most].rstrip() + " …"


def _ordinal(place: int) -> str:
    ending = "th" if 10 <= place % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(place % 10, "th")
    return f"{place}{ending}"


def _dollars(amount: float) -> str:
    return "$0" if amount == 0 else f"${amount:.4f}" if amount < 1 else f"${amount:,.2f}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
