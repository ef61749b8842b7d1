"""How every command starts and ends: arguments from a config dataclass; on failure one message and an exit code."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

import tyro
from rich.console import Console

from lgsrr.blotting import without_keys
from lgsrr.errors import LgsrrError

C = TypeVar("C")
WIDTH_OF_A_LOG = 160
DOCTOR = "python -m lgsrr.doctor"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_STYLE = (tyro.conf.FlagCreatePairsOff,)


def table_console() -> Console:
    """Where tables are printed: as wide as the terminal; in a pipe or a log, wide enough for a line to stay one."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDTH_OF_A_LOG)


def run(
    command: Callable[[C], int | None],
    config: type[C],
    *,
    prog: str,
    description: str,
    example: str,
    argv: Sequence[str] | None = None,
    default: Any = None,
) -> NoReturn:
    """Parse `argv` (default: the process's) into `config`, call `command` with it and exit with what it returns.

    `default` is a whole config that flags change; None takes the defaults of the fields.

    An `LgsrrError` becomes its message on stderr and its exit code, and so does a full disk, wherever it is met; Ctrl-C
    exits with 130; a reader of our output that goes away (`| head`) ends the command quietly. Anything else is a
    defect, or something that is installed wrongly, and keeps its traceback. What is safe and how to go on follows
    (`lgsrr.early_end`). Where the machine may be at fault, the last
    line names the doctor. No key is printed.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    text = f"{description}\n\nExample:\n    {example}"
    try:
        parsed = tyro.cli(config, prog=prog, description=text, args=arguments, default=default, config=_STYLE)
        code = command(parsed) or 0
        sys.stdout.flush()
    except LgsrrError as error:
        print(f"error: {without_keys(str(error))}", file=sys.stderr)
        _print_notes(error)
        code = error.exit_code
        _point_to_the_doctor(prog, error.may_be_the_machine)
    except KeyboardInterrupt as error:
        print("interrupted; the same command continues where it can", file=sys.stderr)
        _print_notes(error)
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _FULL:
            print(f"error: {_disk_is_full(error)}", file=sys.stderr)
            _print_notes(error)
        else:
            print(without_keys(traceback.format_exc()), end="", file=sys.stderr)
        code = 1
        _point_to_the_doctor(prog, True)
    sys.exit(code)


def _print_notes(error: BaseException) -> None:
    """What `lgsrr.early_end` has put to it; a traceback has it already."""
    for note in getattr(error, "__notes__", ()):
        print(without_keys(note), file=sys.stderr)


def _point_to_the_doctor(prog: str, may_be_the_machine: bool) -> None:
    if may_be_the_machine and prog != DOCTOR:
        print(f"{DOCTOR} checks this machine: versions, storage, keys, servers, GPUs", file=sys.stderr)


def _disk_is_full(error: OSError) -> str:
    where = os.path.abspath(str(error.filename or "."))
    there = where
    while not os.path.exists(there):
        there = os.path.dirname(there)
    free = shutil.disk_usage(there).free
    return (
        f"the disk is full ({where}: {error.strerror}; {free / 1e6:.0f} MB are free there). What was written before is "
        "kept; make room, and the same command continues where it can"
    )
