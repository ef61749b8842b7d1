"""What a person sees of a plan and of a result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from .extraction import Extracted, Extraction
    from .plan import StagePlan


def print_explanation(extraction: Extraction, console: Console) -> None:
    """What a run would do, stage by stage, and why; starts nothing."""
    from .inputs import aspects_in, known_aspects
    from .llm_setup import price_for

    config, data = extraction.config, extraction.inputs
    price = price_for(config)
    table = Table(box=None, pad_edge=False)
    for title in ("stage", "rows", "done", "answered", "set aside", "new", "calls", "tokens", "dollars"):
        table.add_column(title, justify="left" if title == "stage" else "right")
    notes = [f"{len(data.utterances)} utterances of {data.dataset.source} to {config.out}"]
    searching = extraction.needs_discovery()
    plans: dict[str, StagePlan] = {}
    if "discover" in config.stage_list:
        if searching:
            asked, _ = extraction.discover_requests()
            tokens = sum(request.estimated_tokens() for request in asked)
            cost = sum(price.at_most(request) for request in asked) if price else None
            calls = len(asked) + 1
            table.add_row("discover", "1", "0", "0", "0", "1", str(calls), _count(tokens), _dollars(cost))
            notes.append(f"discover: no aspects found yet with {config.llm} and these settings")
        else:
            table.add_row("discover", "1", "1", "0", "0", "0", "0", "0", _dollars(0.0))
            notes.append("discover: named by --aspects" if config.aspects else "discover: done by the same work before")
    for stage in config.stage_list:
        if stage == "discover":
            continue
        if searching:
            table.add_row(stage, "?")
            notes.append(f"{stage}: its work is known when the aspects are")
            continue
        aspects = aspects_in(known_aspects(config, data, extraction.output))
        before = plans.get("describe") if stage == "rank" else None
        plan = plans[stage] = extraction.plan(stage, aspects, before)
        is_llm = stage == "rank"
        cost = plan.cost_usd if is_llm and price else (None if is_llm and plan.new else 0.0)
        table.add_row(
            stage, *map(str, (len(plan.wanted), plan.done, plan.answered, plan.set_aside, plan.new, plan.calls)),
            _count(plan.tokens), _dollars(cost),
        )  # fmt: skip
        notes.extend(f"{stage}: {reason}" for reason in plan.reasons())
        if before is not None and before.rows:
            notes.append("rank: reckoned as if all descriptions were made, and new ones were not like the old")
    console.print(table)
    for note in notes:
        console.print(note, highlight=False, soft_wrap=True)
    if price is None and any(stage in config.stage_list for stage in ("discover", "rank")):
        console.print(f"the price of {config.llm} is not known: --price-in and --price-out say it", highlight=False)


def print_result(result: Extracted, console: Console) -> None:
    """The short table at the end of a run, and where everything is."""
    if result.nothing_to_do:
        console.print("everything is done already; nothing was asked", highlight=False)
    table = Table(box=None, pad_edge=False)
    for title in ("stage", "rows", "before", "done", "set aside", "tokens", "dollars", "seconds"):
        table.add_column(title, justify="left" if title == "stage" else "right")
    for r in result.stages:
        tokens = r.usage.input_tokens + r.usage.output_tokens
        table.add_row(
            r.stage, *map(str, (r.rows, r.before, r.done, r.set_aside)),
            _count(tokens), _dollars(r.usage.cost_usd), f"{r.seconds:.0f}",
        )  # fmt: skip
    console.print(table)
    for r in result.stages:
        for reason, count in sorted(r.reasons.items(), key=lambda item: -item[1]):
            console.print(f"{r.stage}: {count} set aside: {reason}", highlight=False)
    console.print(f"output   {result.out}", highlight=False, soft_wrap=True)
    console.print(f"report   {result.report}", highlight=False, soft_wrap=True, markup=False)
    if result.exported is not None:
        console.print(f"tables   {result.exported}", highlight=False, soft_wrap=True, markup=False)
    if result.recorded is not None:
        console.print(f"MLflow   {result.recorded}", highlight=False, soft_wrap=True, markup=False)
    if result.cost_usd:
        console.print(f"cost     ${result.cost_usd:.4f} in all", highlight=False)


def _count(number: int) -> str:
    return str(number) if number < 10_000 else f"{number / 1e3:.0f} k" if number < 1e7 else f"{number / 1e6:.0f} M"


def _dollars(amount: float | None) -> str:
    return "?" if amount is None else "0" if amount == 0 else f"{amount:.4f}" if amount < 1 else f"{amount:.2f}"
