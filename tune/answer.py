"""From the last seed to the answer: report, the winner's model as `candidate`, and what a person reads at the end."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from lgsrr.errors import TrainingError
from lgsrr.files import atomic_path
from tune.ablation_table import AblationRow, ablation_csv, ablation_markdown, ablation_table, print_ablation
from tune.ablations import ablations
from tune.conduct import Conductor
from tune.folder import run_name
from tune.ledger import Ledger
from tune.note import note
from tune.own_process import local_copy
from tune.plan import Plan
from tune.recording import SearchRecord
from tune.report import SearchReport, write_report
from tune.standings import Standing, winner
from tune.standings_print import print_standings
from tune.trial import model_folder, newest_finished

ALIAS = "candidate"


def conclude(plan: Plan, conductor: Conductor, record: SearchRecord) -> dict[str, Any]:
    """Write the report, record all of it, register the winner's model, and mark the search as finished.

    Raises:
        TrainingError: no configuration ran all seeds.
    """
    ledger = conductor.ledger
    listed = ledger.standings()
    ended_ms = max(int(r.history[-1]["time_ms"]) for r in ledger.results() if r.history)
    for standing in listed:
        record.standing(standing, time_ms=ended_ms)
    if plan.config.ablate:
        answer = _conclude_ablations(plan, ledger, record, ended_ms)
    else:
        best = winner(listed)
        if best is None:
            raise TrainingError(
                f"no configuration of {plan.folder.name} ran all {plan.config.seeds} seeds, so none is recommended; "
                f"what failed is in {plan.folder.path / 'results'}. Give another --name after a change."
            )
        answer = _conclude_search(plan, conductor, record, listed, best, ended_ms)
    delivery = record.close()
    answer["mlflow"] = delivery.where
    plan.folder.finish(answer)
    return answer


def _conclude_search(
    plan: Plan, conductor: Conductor, record: SearchRecord, listed: list[Standing], best: Standing, ended_ms: int
) -> dict[str, Any]:
    config, folder, ledger = plan.config, plan.folder, conductor.ledger
    report = report_of(plan, ledger, listed)
    files = write_report(folder.report, report)
    seed = max(best.scores, key=lambda s: best.scores[s])
    _fetch_model(ledger.checkpoints(best.trial.id, seed), folder.path / "model")
    name = f"lgsrr-{config.dataset}"
    scores = {f"test_{metric}": value for metric, value in folder.tested()[run_name(best.trial.id, seed)].items()}
    delivery = record.model(
        best.trial, seed, folder.path / "model", scores,
        {"name": name, "alias": ALIAS, "tags": version_tags(plan, best, seed), "description": _description(plan, best)},
        time_ms=ended_ms,
    )  # fmt: skip
    record.answer(_figures(report, best), _with_links(note(report), name), files, time_ms=ended_ms)
    conductor.drop_losers([s.trial.id for s in listed if s.state == "winner" or s.trial.origin == "paper"])
    return {
        "search": folder.name, "kind": config.kind, "winner": best.trial.id, "settings": best.trial.settings,
        "seed": seed, "model": str(folder.path / "model"), "registered": f"models:/{name}@{ALIAS}",
        "candidate": delivery.where, "report": str(folder.report / "search.html"),
    }  # fmt: skip


def _fetch_model(run_folder: str, target: Path) -> None:
    """Copy the model that a tested run left to where it stays: a journal names it until it is delivered."""
    with local_copy(newest_finished(run_folder)) as finished, atomic_path(target) as temporary:
        shutil.copytree(model_folder(str(finished)), temporary)


def _with_links(text: str, name: str) -> str:
    """The note with the way to the model behind its first paragraph: MLflow shows no more before it is unfolded."""
    answer, separator, rest = text.partition("\n\n")
    link = f"Its model is `{ALIAS}` of [{name}](#/models/{name}); the whole report is search.html under Artifacts."
    return f"{answer}\n\n{link}{separator}{rest}"


def version_tags(plan: Plan, best: Standing, seed: int) -> dict[str, str]:
    """What the registered version says of itself (`lgsrr.registry`)."""
    tags = {"lgsrr.search": plan.folder.name, "lgsrr.trial": best.trial.id, "lgsrr.seed": str(seed)}
    tags |= {"lgsrr.settings": json.dumps(best.trial.settings), "dev_f1_seeds": str(len(best.scores))}
    numbers = {"dev_f1_mean": best.mean, "dev_f1_sd": best.sd, "dev_f1_lower": best.lower}
    for metric, (mean, sd) in best.test.items():
        numbers |= {f"test_{metric}_mean": mean, f"test_{metric}_sd": sd}
    return tags | {name: f"{value:.6f}" for name, value in numbers.items() if value is not None}


def _description(plan: Plan, best: Standing) -> str:
    assert best.mean is not None
    spread = "" if best.sd is None else f" ± {100 * best.sd:.1f}"
    scored = f"dev macro F1 {100 * best.mean:.1f}{spread} over {len(best.scores)} seeds"
    return f"Winner of the search {plan.folder.name}: {scored}."


def _figures(report: SearchReport, best: Standing) -> dict[str, float]:
    numbers = {"trials": len(report.trials), "seed_epochs": report.spent, "seed_epochs_exhaustive": report.exhaustive}
    values: dict[str, float | None] = {
        **numbers,
        "dev_f1_mean": best.mean,
        "dev_f1_sd": best.sd,
        "dev_f1_lower": best.lower,
    }
    for who, standing in (("paper", report.paper), ("text_alone", report.text_alone)):
        values[f"{who}_dev_f1_mean"] = standing.mean if standing else None
    for metric, (mean, sd) in best.test.items():
        values |= {f"test_{metric}_mean": mean, f"test_{metric}_sd": sd}
    return {name: float(value) for name, value in values.items() if value is not None}


def report_of(plan: Plan, ledger: Ledger, listed: list[Standing]) -> SearchReport:
    """The search as its report shows it."""
    config, results, trials = plan.config, ledger.results(), ledger.trials()
    return SearchReport(
        name=plan.folder.name, dataset=config.dataset, standings=listed, dimensions=plan.space, trials=trials,
        results=results, seeds=config.seeds, epochs=config.epochs, spent=ledger.spent(),
        exhaustive=len(trials) * config.seeds * config.epochs, created=time.strftime("%Y-%m-%d %H:%M"),
        links={},
    )  # fmt: skip


# ---- ablations -----------------------------------------------------------------------------------------------------


def ablation_rows(plan: Plan, ledger: Ledger) -> list[AblationRow]:
    """The table of the ablations, the full method first."""
    rows = ablations(plan.config.training(), plan.num_aspects)
    trials = [row.trial for row in rows]
    return ablation_table(
        trials, ledger.results(), full=trials[0].id,
        paper={row.trial.id: row.paper for row in rows if row.paper is not None}, tested=ledger.tests_by_trial(),
    )  # fmt: skip


def _conclude_ablations(plan: Plan, ledger: Ledger, record: SearchRecord, ended_ms: int) -> dict[str, Any]:
    rows = ablation_rows(plan, ledger)
    path = plan.folder.report / "ablations.csv"
    with atomic_path(path) as temporary:
        temporary.write_text(ablation_csv(rows), encoding="utf-8")
    record.answer({"rows": len(rows)}, ablation_markdown(rows), [path], time_ms=ended_ms)
    return {"search": plan.folder.name, "kind": plan.config.kind, "report": str(path)}


# ---- on a terminal -------------------------------------------------------------------------------------------------


def print_answer(plan: Plan, answer: Mapping[str, Any], console: Console) -> None:
    """The table at the end of a search, and where everything is."""
    ledger = Ledger(plan)
    if plan.config.ablate:
        print_ablation(ablation_rows(plan, ledger), console)
    else:
        listed = ledger.standings()
        print_standings(listed, console)
        console.print(f"spent       {_spent(report_of(plan, ledger, listed))}", highlight=False)
        console.print(
            f"candidate   {answer['registered']}  (seed {answer['seed']} of {answer['winner']})", highlight=False
        )
    for title, key in (("model", "model"), ("report", "report"), ("MLflow", "mlflow")):
        if key in answer:
            console.print(f"{title:<11} {answer[key]}", highlight=False, soft_wrap=True)
    if not plan.config.ablate:
        console.print(f"make it the champion:   python -m tune.promote --dataset {plan.config.dataset} --candidate")


def _spent(report: SearchReport) -> str:
    share = 100 * report.spent / report.exhaustive
    return (
        f"{report.spent} seed-epochs, {share:.0f} % of the {report.exhaustive} of every configuration with every seed"
    )
