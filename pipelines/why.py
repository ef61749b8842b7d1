"""One utterance's whole story, from its receipts: `python pipelines/extract.py why ID --out DIR`."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape

from lgsrr.errors import DataError
from lgsrr.extracted import DESCRIPTIONS_FOLDER, QUARANTINE_FOLDER, RANKINGS_FOLDER

from .inputs import GIVEN
from .output import Output


def print_story(out: str, name: str, console: Console) -> None:
    """Print what was made of the utterance `name`, and how. Raises DataError where the output does not know it."""
    for line in story(Output(out), name):
        console.print(line, highlight=False, soft_wrap=True)


def story(output: Output, name: str) -> Iterator[str]:
    """The lines, with what models and speakers said escaped."""
    utterance = next((row for row in output.utterances() if row["id"] == name), None)
    if utterance is None:
        raise DataError(f"{output.out}: knows no utterance {name!r}. Its ids are in utterances.parquet.")
    yield f"[bold]{escape(name)}[/bold]  {utterance['split']}  {utterance['label'] or 'no label'}"
    yield f'  says      "{escape(utterance["text"])}"'
    yield f"  clip      {escape(utterance['video'] or 'not named in the table')}"
    described = _rows(output, DESCRIPTIONS_FOLDER, name)
    for row in described:
        yield f"[bold]described[/bold]  {escape(row['aspect'])}: {escape(row['text'])}"
        yield from _receipt(row)
    for row in _rows(output, RANKINGS_FOLDER, name):
        yield f"[bold]ranked[/bold]  {escape(' > '.join(row['aspects']))}"
        if row["shown"]:
            yield f"  shown     {escape(', '.join(row['shown']))}"
        yield from _receipt(row)
    for row in _rows(output, QUARANTINE_FOLDER, name):
        yield f"[bold]set aside[/bold]  in {row['stage']}: {escape(row['reason'])}: {escape(row['detail'] or '')}"
        yield f"  advice    {row['advice']}"
        yield from _receipt(row)
    if not described and not any(True for _ in _rows(output, QUARANTINE_FOLDER, name)):
        yield "not described yet"


def _rows(output: Output, folder: str, name: str) -> list[dict[str, Any]]:
    return output.rows(folder, [name])


def _receipt(row: Mapping[str, Any]) -> Iterator[str]:
    if row["model"] == GIVEN:
        yield "  by        came with the data"
        return
    when = row["created_at"]
    made = when.astimezone().strftime("%Y-%m-%d %H:%M:%S") if isinstance(when, datetime.datetime) else "?"
    yield f"  by        {escape(row['model'])} {escape(row['revision'] or '')}, prompt {row['prompt_version']}, {made}"
    attempts = row.get("attempts") or 0
    if attempts:
        cost = f"${row['cost_usd'] or 0:.6f}"
        tokens = f"{row['input_tokens']} tokens in, {row['output_tokens']} out"
        yield f"  took      {attempts} call{'s' * (attempts > 1)}, {row['waited_s']:.1f} s waiting, {tokens}, {cost}"
    if row["frames"]:
        yield f"  frames    {', '.join(map(str, row['frames']))}"
    if row["raw_answer"]:
        yield f"  answer    {escape(row['raw_answer'])}"
    yield f"  mark      {row['fingerprint']}"
    packages = json.loads(row["packages"] or "{}")
    if packages:
        yield f"  packages  {', '.join(f'{name} {version}' for name, version in packages.items())}"
