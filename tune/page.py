"""`search.html`: the note, all trials in a table and four plots on one page that needs nothing but itself.

plotly.js is in it once (5 MB), so that it opens from a disk, in MLflow's sandboxed frame and without a network. Its
policy lets a browser fetch nothing; scripts are plotly's and ours alone, and what others wrote is escaped.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence

from tune import charts
from tune.axes import written
from tune.importance import MIN_TRIALS
from tune.looks import count, how_far, look, mean_and_sd, percent, points, probability
from tune.note import answer
from tune.reported import SearchReport
from tune.standings import Standing, differing

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; "
    "form-action 'none'"
)
NO_IMPORTANCE = (
    f"With fewer than {MIN_TRIALS} trials that have every setting, or where all came out equal, there is no telling "
    "which setting mattered."
)
NO_DIMENSIONS = "No setting was searched."
NO_SCORES = "No trial has a score."
STYLE = """
:root { --ink: #1b1f24; --quiet: #59636e; --line: #d8dee4; --card: #f6f7f9; --warm: #fdeee3; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1.25rem 4rem; max-width: 76rem; background: #fff; color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .25rem; padding-top: 1rem; border-top: 1px solid var(--line); }
p, li { overflow-wrap: anywhere; } .note { max-width: 58rem; }
.quiet { color: var(--quiet); font-size: .875rem; margin: .25rem 0; max-width: 58rem; }
code { font: .875em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; background: var(--card);
  padding: .1em .3em; border-radius: 4px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); gap: .75rem; margin: 1.25rem 0; }
.tiles div { background: var(--card); border-radius: 8px; padding: .75rem 1rem; }
.tiles b { display: block; font-size: 1.5rem; line-height: 1.25; font-variant-numeric: tabular-nums; }
.tiles span { color: var(--quiet); font-size: .875rem; }
.scroll { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .35rem .75rem .35rem 0; border-bottom: 1px solid var(--line); white-space: nowrap;
  unicode-bidi: isolate; }
th { font-weight: 600; color: var(--quiet); font-size: .8125rem; }
th.left, td.left { text-align: left; } td.words { white-space: normal; min-width: 13rem; max-width: 26rem; }
tr.winner td { background: var(--warm); font-weight: 600; }
.dot { display: inline-block; width: .7rem; height: .7rem; border-radius: 50%; margin-right: .45rem; }
.plot { min-height: 10rem; }
"""


def search_page(report: SearchReport) -> str:
    """The page as a whole document."""
    title = html.escape(f"{report.name}: search on {report.dataset}")
    body = "\n".join(
        (
            f"<h1>{title}</h1>",
            f'<p class="quiet">{html.escape(_made(report))}{_links(report)}</p>',
            _tiles(report),
            f'<div class="note">{_rendered(answer(report))}</div>',
            *_plots(report),
            "<h2>All trials</h2>",
            _EXPLAINED,
            _table(report.standings),
        )
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style><script>{_plotly()}</script></head>\n<body>{body}</body></html>\n"
    )


_EXPLAINED = (
    '<p class="quiet">Dev macro F1 in percent, mean ± standard deviation over seeds. “At least” is the lower bound '
    "with 95 % confidence, by which the winner is chosen. ≈ marks trials that a paired t-test over seeds does not tell "
    "from the winner (p &gt; 0.05).</p>"
)


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    source: str = get_plotlyjs()
    return source


def _rendered(markdown: str) -> str:
    """Our own markdown as HTML; markup of HTML in it is shown and not followed."""
    from markdown_it import MarkdownIt

    rules = ["emphasis", "backticks", "list", "escape", "entity"]
    return str(MarkdownIt("zero", {"html": False}).enable(rules).render(markdown))


def _made(report: SearchReport) -> str:
    seeds, epochs = count(report.seeds, "seed"), count(report.epochs, "epoch")
    plan = f"{count(len(report.trials), 'trial')}, {seeds} of {epochs} at most"
    return f"{plan} · {report.created}" if report.created else plan


def _links(report: SearchReport) -> str:
    """Addresses of the web alone: any other scheme could run something when it is clicked on."""
    safe = [(name, url) for name, url in report.links.items() if url.startswith(("https://", "http://"))]
    return "".join(
        f' · <a href="{html.escape(url)}" rel="noreferrer" target="_blank">{html.escape(name)}</a>'
        for name, url in safe
    )


def _tiles(report: SearchReport) -> str:
    best = report.winner
    figures: list[tuple[str, str]] = []
    if best is not None:
        figures.append((f"{mean_and_sd(best.mean, best.sd)} %", f"dev macro F1 of {best.name}"))
        for other, what in ((report.paper, "over the paper's setting"), (report.text_alone, "over text alone")):
            if other is not None and other is not best and other.mean is not None and best.mean is not None:
                doubt = "" if other.p is not None and not other.close else ", not shown to be more than chance"
                figures.append((points(best.mean - other.mean), f"points {what}{doubt}"))
        if "f1" in best.test:
            figures.append((f"{mean_and_sd(*best.test['f1'])} %", "test macro F1 of the winner"))
    share = f"{100 * report.spent / report.exhaustive:.0f} %" if report.exhaustive else f"{report.spent:,}"
    figures.append((share, f"of the seed-epochs of an exhaustive run: {report.spent:,} of {report.exhaustive:,}"))
    tiles = "".join(f"<div><b>{html.escape(n)}</b><span>{html.escape(what)}</span></div>" for n, what in figures)
    return f'<div class="tiles">{tiles}</div>'


def _plots(report: SearchReport) -> Iterator[str]:
    if not has_scores(report):
        yield _section("Plots", "", None, NO_SCORES)
        return
    listed, dimensions, shares = report.standings, report.dimensions, report.importance
    yield _section(
        "Every trial, setting by setting",
        "One line per trial, from its settings to its dev F1 on the right. Point at a line to see which trial it is. A "
        "click in the legend hides a kind, two show it alone.",
        charts.fragment(charts.parallel(listed, dimensions), "parallel", charts.BRING_OUT) if dimensions else None,
        NO_DIMENSIONS,
    )
    yield _section(
        "Dev F1 against each setting",
        "Bars: standard deviation over seeds; a ring has one seed; a triangle lies below what is shown; dashed: the "
        "best of text alone.",
        charts.fragment(charts.hyperparameters(listed, dimensions), "hyperparameters") if dimensions else None,
        NO_DIMENSIONS,
    )
    yield _section(
        "How the halving went",
        "Left: the best dev F1 so far, over the epochs of the first seed. Right: the mean over the seeds so far, of "
        "those that were not stopped. A cross: stopped or dropped there.",
        charts.fragment(charts.race(listed, report.results), "halving"),
    )
    yield _section(
        "Which settings mattered",
        "Share of the differences between trials that a setting explains (fANOVA). A trial that was stopped early "
        "counts with what it had by then; text alone is left out.",
        charts.fragment(charts.importances(shares), "importance") if shares else None,
        NO_IMPORTANCE,
    )


def has_scores(report: SearchReport) -> bool:
    """Whether there is anything to draw."""
    return any(standing.mean is not None for standing in report.standings)


def _section(title: str, explained: str, plot: str | None, otherwise: str = "") -> str:
    """A plot under its title, with how to read it; or why there is none."""
    return f"<h2>{html.escape(title)}</h2>" + (_quiet(otherwise) if plot is None else _quiet(explained) + plot)


def _quiet(words: str) -> str:
    return f'<p class="quiet">{html.escape(words)}</p>'


def _table(listed: Sequence[Standing]) -> str:
    names = differing([standing.trial for standing in listed])
    titles = ["", "trial", *names, "seeds", "dev F1", "at least", "p", "epochs", "how far"]
    edges = (1, len(titles) - 1)
    head = "".join(f"<th{_left(place in edges)}>{html.escape(title)}</th>" for place, title in enumerate(titles))
    rows = "".join(_row(standing, names) for standing in listed)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _left(at_the_left: bool) -> str:
    return ' class="left"' if at_the_left else ""


def _row(standing: Standing, names: Sequence[str]) -> str:
    settings, style = standing.trial.settings, look(standing)
    name = standing.trial.id if not standing.trial.label else f"{standing.trial.label} ({standing.trial.id})"
    numbers = [
        *(written(settings[key]) if key in settings else "–" for key in names),
        str(len(standing.scores)),
        mean_and_sd(standing.mean, standing.sd),
        percent(standing.lower),
        probability(standing.p),
        str(standing.epochs),
    ]
    place = f"{standing.place}{' ≈' if standing.close and standing.state != 'winner' else ''}"
    return (
        f'<tr{" class=winner" if standing.state == "winner" else ""}><td class="left">{place}</td>'
        f'<td class="left"><span class="dot" style="background:{style.colour}"></span>{html.escape(name)}</td>'
        + "".join(f"<td>{html.escape(number)}</td>" for number in numbers)
        + f'<td class="left words">{html.escape(how_far(standing))}</td></tr>'
    )
