"""How a trial looks and is named wherever it is shown: colours, legends and numbers are the same in all of a report.

Three trials have a colour of their own: the winner, the paper's setting and the best of text alone. The others are the
darker the further they came. The colours are told apart by colour-blind readers as well (Okabe and Ito).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tune.axes import written
from tune.records import Trial
from tune.standings import Standing


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A kind of trial."""

    words: str
    """For a legend."""
    colour: str
    width: float
    """Of a line, points."""
    over: int
    """What has more is drawn over what has less."""


LOOKS = {
    "winner": Look(words="winner", colour="#d55e00", width=3.0, over=7),
    "paper": Look(words="the paper's setting", colour="#0072b2", width=2.4, over=6),
    "text alone": Look(words="text alone", colour="#009e73", width=2.4, over=5),
    "text alone, behind": Look(words="text alone, other rates", colour="#8ccfba", width=1.2, over=3),
    "finished": Look(words="ran all seeds", colour="#3f4750", width=1.6, over=4),
    "dropped": Look(words="dropped after a few seeds", colour="#8c98a5", width=1.2, over=3),
    "waiting": Look(words="not at its end yet", colour="#8c98a5", width=1.2, over=3),
    "stopped": Look(words="stopped in its first seed", colour="#c6ced6", width=1.0, over=2),
    "failed": Look(words="failed", colour="#b5179e", width=1.2, over=1),
}


def kind(standing: Standing) -> str:
    """The key of a trial's look."""
    if standing.state in ("winner", "failed"):
        return standing.state
    if standing.trial.origin == "text alone" and standing.state != "finished":
        return "text alone, behind"
    return standing.trial.origin if standing.trial.origin in LOOKS else standing.state


def look(standing: Standing) -> Look:
    """How a trial is drawn; a winner that is the paper's setting or text alone says so."""
    found = LOOKS[kind(standing)]
    own = LOOKS.get(standing.trial.origin)
    if standing.state == "winner" and own is not None:
        return dataclasses.replace(found, words=f"winner: {own.words}")
    return found


def how_far(standing: Standing) -> str:
    """How far a trial came, and why no further."""
    return standing.reason or LOOKS[standing.state].words


def settings_in_words(trial: Trial, names: Sequence[str] | None = None) -> str:
    """The settings of a trial: "lr = 8.5e-4, k = 2"."""
    shown = trial.settings if names is None else [name for name in names if name in trial.settings]
    return ", ".join(f"{name} = {written(trial.settings[name])}" for name in shown)


def percent(fraction: float | None, digits: int = 1) -> str:
    """A fraction times 100, without a sign; – where there is none."""
    return "–" if fraction is None else f"{100 * fraction:.{digits}f}"


def mean_and_sd(mean: float | None, sd: float | None) -> str:
    """Percent: "47.3 ± 0.6"; one seed has no deviation."""
    return percent(mean) if sd is None else f"{percent(mean)} ± {percent(sd)}"


def points(difference: float) -> str:
    """A difference of fractions in points with its sign: "+3.1", "−0.4"."""
    rounded = f"{100 * abs(difference):.1f}"
    return rounded if rounded == "0.0" else f"{'+' if difference > 0 else '−'}{rounded}"


def probability(p: float | None) -> str:
    """A p as it is printed: "0.03", "< 0.001"; – where there is none."""
    return "–" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.01 else f"{p:.2f}"


def count(number: int, what: str) -> str:
    """ "1 seed", "3 seeds"."""
    return f"{number} {what}{'' if number == 1 else 's'}"
