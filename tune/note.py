"""A search's answer in plain words: what won, what it brings, what it cannot be told from, where to be careful.

It is markdown for the description of a run in MLflow, which keeps 8000 characters of it; a note never has more than
7000. Numbers are those of the standings, and a difference is called one only where a paired test over seeds shows it.
"""

from __future__ import annotations

from collections.abc import Sequence

from tune.axes import edge, written
from tune.looks import count, how_far, mean_and_sd, percent, points, probability, settings_in_words
from tune.marks import code, plain, table
from tune.reported import SearchReport
from tune.standings import Standing, differing

MOST_CHARACTERS = 7000
_TOP = 10
_NAMED = 8
"""Trials, or failures, that are named one by one."""


def note(report: SearchReport) -> str:
    """The whole note: the answer, and a table of the best."""
    said = answer(report)
    for rows in (_TOP, 5, 3):
        text = f"{said}\n\n**The best {min(rows, len(report.standings))} of {len(report.standings)}**\n\n"
        text += standings_table(report.standings, rows)
        if len(text) <= MOST_CHARACTERS:
            return text
    return said if len(said) <= MOST_CHARACTERS else said[: MOST_CHARACTERS - 2].rstrip() + " …"


def answer(report: SearchReport) -> str:
    """The note without its table."""
    best = report.winner
    if best is None:
        return _join([_nobody(report)], _facts(report), [])
    return _join([_won(report, best)], [*_compared(report, best), *_facts(report)], _careful(report, best))


def _join(paragraphs: Sequence[str], facts: Sequence[str], warnings: Sequence[str]) -> str:
    parts = [*paragraphs, "\n".join(f"- {fact}" for fact in facts)]
    if warnings:
        parts += ["**Be careful**", "\n".join(f"- {warning}" for warning in warnings)]
    return "\n\n".join(part for part in parts if part)


def _nobody(report: SearchReport) -> str:
    trials, seeds = count(len(report.standings), "trial"), count(report.seeds, "seed")
    return f"**Nothing won**: none of {trials} ran {seeds} to the end."


def _won(report: SearchReport, best: Standing) -> str:
    others = count(len(report.standings), "configuration")
    head = f"**{_name(best)} won** among {others} on {plain(report.dataset)}: {code(settings_in_words(best.trial))}."
    score = f"Its dev macro F1 is **{mean_and_sd(best.mean, best.sd)} %** over {count(len(best.scores), 'seed')}"
    if best.lower is not None:
        score += f", and with 95 % confidence at least {percent(best.lower)} %, by which it was chosen"
    said = [head, score + "."]
    if best.trial.origin == "text alone":
        said.append("No setting with descriptions came out above plain text: here the descriptions did not help.")
    if best.trial.origin == "paper":
        said.append("No other setting came out above it.")
    return " ".join(said)


def _compared(report: SearchReport, best: Standing) -> list[str]:
    """What the winner brings over the paper's setting and text alone; where it is one of them, over the others."""
    lines = []
    for other, origin, what in (
        (report.paper, "paper", "the paper's setting"),
        (report.text_alone, "text alone", "text alone at its best learning rate"),
    ):
        if best.trial.origin == origin:
            continue
        lines.append(_without(report, origin, what) if other is None else _difference(best, other, what))
    if best.trial.origin in ("paper", "text alone"):
        rivals = [s for s in report.standings if s.mean is not None and s.trial.origin not in ("paper", "text alone")]
        if rivals:
            lines.append(_difference(best, rivals[0], f"the best of what was searched, {_name(rivals[0])}"))
    return lines + _tested(report, best) + _close(report, best)


def _without(report: SearchReport, origin: str, what: str) -> str:
    failed = next((s for s in report.standings if s.trial.origin == origin), None)
    if failed is None:
        return f"**Over {what}**: not known, it was not among the trials."
    return f"**Over {what}**: not known, it has no result ({plain(failed.reason)})."


def _difference(best: Standing, other: Standing, what: str) -> str:
    assert best.mean is not None
    assert other.mean is not None
    difference = points(best.mean - other.mean)
    head = f"**Over {what}** ({mean_and_sd(other.mean, other.sd)} %): {difference} points"
    if other.p is None:
        return f"{head}; with one seed in common there is no telling whether by chance."
    common = count(len(best.scores.keys() & other.scores.keys()), "seed")
    if other.close:
        return f"{head}, but over {common} the two cannot be told apart (p = {probability(other.p)})."
    return f"{head}, a difference that holds over {common} (p {_equals(other.p)})."


def _equals(p: float) -> str:
    return probability(p) if p < 0.001 else f"= {probability(p)}"


def _tested(report: SearchReport, best: Standing) -> list[str]:
    rivals = [report.paper] if report.paper is not None and report.paper is not best else []
    measured = [standing for standing in (best, *rivals) if standing.test]
    if not measured:
        return []
    said = "; ".join(
        f"{_name(standing)} "
        + ", ".join(f"{name.upper()} {mean_and_sd(*values)}" for name, values in standing.test.items())
        for standing in measured
    )
    return [f"**On test** (%, looked at once, after the choice): {said}."]


def _close(report: SearchReport, best: Standing) -> list[str]:
    others = [standing for standing in report.standings if standing.close and standing is not best]
    compared = sum(standing.p is not None for standing in report.standings)
    if not others:
        told = (
            f"**Told apart**: all {compared} others with two seeds or more differ from the winner by more than chance."
        )
        return [told] if compared else []
    named = ", ".join(_name(standing) for standing in others[:_NAMED])
    more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
    return [f"**Not distinguishable from the winner** (p > 0.05 over the seeds that both ran): {named}{more}."]


def _facts(report: SearchReport) -> list[str]:
    lines = []
    if report.importance:
        shares = ", ".join(f"{code(name)} {100 * share:.0f} %" for name, share in report.importance.items())
        lines.append(f"**What mattered** (share of what the settings explain, fANOVA): {shares}.")
    share = f" ({100 * report.spent / report.exhaustive:.0f} %)" if report.exhaustive else ""
    trials, seeds, epochs = len(report.trials), count(report.seeds, "seed"), count(report.epochs, "epoch")
    lines.append(
        f"**Cost**: {report.spent:,} seed-epochs of the {report.exhaustive:,}{share} that {count(trials, 'trial')} of "
        f"{seeds} with {epochs} would take."
    )
    return lines + _failed(report)


def _failed(report: SearchReport) -> list[str]:
    """What failed, those of the same reason together."""
    by_reason: dict[str, list[str]] = {}
    for standing in report.standings:
        if standing.state == "failed":
            by_reason.setdefault(plain(standing.reason, 160), []).append(_name(standing))
    if not by_reason:
        return []
    number = sum(map(len, by_reason.values()))
    reasons = list(by_reason.items())
    listed = "; ".join(f"{', '.join(names[:_NAMED])} ({reason})" for reason, names in reasons[:_NAMED])
    more = f"; and for {len(reasons) - _NAMED} more reasons" if len(reasons) > _NAMED else ""
    return [f"**{count(number, 'trial')} failed**: {listed}{more}."]


def _careful(report: SearchReport, best: Standing) -> list[str]:
    lines = _at_the_edge(report, best)
    if report.seeds == 1:
        lines.append("One seed each: the winner may be a lucky seed. `--seeds 3` or more tells.")
    elif report.seeds < 5:
        lines.append(
            f"{report.seeds} seeds show large differences only: two that cannot be told apart need not be equally good."
        )
    if len(report.standings) > 1:
        favoured = "The winner was picked by its dev F1, which is therefore a little too good"
        lines.append(f"{favoured}; its test numbers are not." if best.test else f"{favoured}.")
    return lines


def _at_the_edge(report: SearchReport, best: Standing) -> list[str]:
    lines = []
    for dimension in report.dimensions:
        end = edge(dimension, best.trial.settings.get(dimension.name))
        if end is None:
            continue
        numbers = dimension.choices or (dimension.low, dimension.high)
        value = code(f"{dimension.name} = {written(best.trial.settings[dimension.name])}")
        lines.append(
            f"The winner's {value} lies at the {end} end of what was searched ({written(min(numbers))} to "
            f"{written(max(numbers))}): widen it {'downwards' if end == 'lower' else 'upwards'} (`--space`), a better "
            "one may lie beyond."
        )
    return lines


def standings_table(listed: Sequence[Standing], most: int = _TOP) -> str:
    """The best as a markdown table; ≈ marks those that cannot be told from the winner."""
    names = differing([standing.trial for standing in listed])
    titles = ["", "trial", *map(plain, names), "seeds", "dev F1 %", "at least", "p", "how far"]
    return table(titles, [_row(standing, names) for standing in listed[:most]], words=("", "trial", "how far"))


def _row(standing: Standing, names: Sequence[str]) -> list[str]:
    settings = standing.trial.settings
    return [
        f"{standing.place}{' ≈' if standing.close and standing.state != 'winner' else ''}",
        f"**{_name(standing)}**" if standing.state == "winner" else _name(standing),
        *(plain(written(settings[name]), 40) if name in settings else "–" for name in names),
        str(len(standing.scores)),
        mean_and_sd(standing.mean, standing.sd),
        percent(standing.lower),
        probability(standing.p),
        plain(how_far(standing), 60),
    ]


def _name(standing: Standing) -> str:
    return plain(standing.trial.label, 60) if standing.trial.label else code(standing.trial.id)
