"""Find LGSRR's hyperparameters on a Ray cluster, and end with a model that can be trusted.

    python tune/search.py --dataset mintrec2 --data DIR

Configurations are raced over epochs and seeds (`tune.race`), step by step (`tune.step`), until those that are left have
all seeds; the best lower confidence bound wins. Then, and only then, the test split is looked at: once, for the winner
and for the paper's setting. The winner's model becomes the registered model's `candidate`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from rich.console import Console

from lgsrr import cli
from lgsrr.errors import LgsrrError
from lgsrr.train import named_flag
from tune.plan import Plan, plan
from tune.settings import SearchConfig, search_recipe

PROG = "python tune/search.py"
EXAMPLE = f"{PROG} --dataset mintrec2 --data ../LGSRR/data --trainable-layers 0 --trials 12 --seeds 3 --epochs 8"


def search(planned: Plan, console: Console | None = None) -> dict[str, Any]:
    """Search as planned, or go on with the search; returns the answer, as `answer.json` holds it.

    Raises:
        LgsrrError: of the kinds in `lgsrr.errors`, with one message for the user.
    """
    from tune.conduct import conduct

    console = console or Console(stderr=True)
    with planned.folder.held():
        planned.folder.begin(planned.identity)
        answer = planned.folder.answer()
        if answer is not None:
            console.print("this very search is finished already; --name NEW begins another", highlight=False)
            return answer
        return conduct(planned, console)


def run(config: SearchConfig) -> None:
    """The command: search, or explain, and print."""
    from tune.answer import print_answer
    from tune.explain import explain

    planned = plan(config)
    if config.explain:
        explain(planned, cli.table_console())
        return
    print_answer(planned, search(planned), cli.table_console())


def main(argv: Sequence[str] | None = None) -> NoReturn:
    arguments = sys.argv[1:] if argv is None else list(argv)
    try:
        default = search_recipe(
            named_flag(arguments, "--dataset") or "sample", named_flag(arguments, "--encoder") or "minilm"
        )
    except LgsrrError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    cli.run(
        run,
        SearchConfig,
        prog=PROG,
        description=__doc__.split("\n\n")[0],
        example=EXAMPLE,
        argv=arguments,
        default=default,
    )


if __name__ == "__main__":
    main()
