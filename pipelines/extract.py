"""Extraction: from clips and their words to ranked descriptions of the aspects that carry intent, on Ray.

    python pipelines/extract.py --dataset mintrec2 --data released --videos clips --out extracted
    python pipelines/extract.py … --explain                 what it would do, and why; starts nothing
    python pipelines/extract.py why ID --out extracted      one row's story

Three stages (paper 3.1): discover the aspects, describe every utterance under each, rank them for the training split.
The same command goes on where it stopped, and does nothing twice.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

if __name__ == "__main__" and not __package__:  # as a script: its own folder is no place to import from
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from rich.console import Console

from lgsrr import cli
from pipelines.settings import ExtractConfig

PROG = "python pipelines/extract.py"
EXAMPLE = f"{PROG} --dataset mintrec2 --data released --videos clips --out extracted --rpm 500 --budget-usd 20"


@dataclasses.dataclass(frozen=True, kw_only=True)
class WhyConfig:
    """Which row, of which output."""

    id: str
    """The utterance."""
    out: str
    """Folder or s3:// prefix that extraction has written."""


def extract(config: ExtractConfig) -> None:
    """Run, or explain, one extraction."""
    from pipelines.extraction import Extraction
    from pipelines.extraction_print import print_explanation, print_result

    extraction = Extraction(config, Console(stderr=True))
    if config.explain:
        print_explanation(extraction, Console())
    else:
        print_result(extraction.run(), Console())


def why(config: WhyConfig) -> None:
    """One row's story, from its receipts."""
    from pipelines.why import print_story

    print_story(config.out, config.id, Console())


def main(argv: Sequence[str] | None = None) -> NoReturn:
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments[:1] == ["why"]:
        rest = arguments[1:]
        if rest and not rest[0].startswith("-"):
            rest = ["--id", *rest]
        cli.run(
            why, WhyConfig, prog=f"{PROG} why", description="One row's whole story, from its receipts.",
            example=f"{PROG} why dia0_utt3 --out extracted", argv=rest,
        )  # fmt: skip
    cli.run(
        extract, ExtractConfig, prog=PROG, description=(__doc__ or "").split("\n\n")[0], example=EXAMPLE, argv=arguments
    )  # fmt: skip


if __name__ == "__main__":
    main()
