"""What somebody has to know whose command has ended early: what is safe, what it cost, how to go on, what may help.

The lines are put to the error as a note (PEP 678), whatever the error is: a worker that is gone, a full disk, Ctrl-C.
`lgsrr.cli` prints notes last.
"""

from __future__ import annotations

import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from lgsrr.errors import ConfigError

Helps = Sequence[tuple[str, str]]
"""Patterns of reasons (regular expressions, any case), each with the setting most likely to help; the first counts."""


def command_line() -> str:
    """The command that was given, to be given again."""
    return shlex.join(["python", *sys.argv])


def account(*, safe: str, cost: str, reason: str, helps: Helps) -> str:
    """The lines; that of what may help only where something is known to help with such a reason."""
    known = next((setting for pattern, setting in helps if re.search(pattern, reason, re.IGNORECASE)), None)
    lines = [f"  safe       {safe}", f"  cost       {cost}", f"  continue   {command_line()}"]
    return "\n".join([*lines, *([] if known is None else [f"  may help   {known}"])])


@contextmanager
def accounted(safe: Callable[[], str], cost: Callable[[float], str], helps: Helps) -> Iterator[None]:
    """For the block: an error that leaves it takes the lines along.

    Args:
        safe: what is kept by now.
        cost: what it took so far, given the seconds since the block began.
    """
    began = time.monotonic()
    try:
        yield
    except ConfigError:  # refused before anything was done
        raise
    except BaseException as error:
        reason = f"{type(error).__name__}: {error}"
        seconds = time.monotonic() - began
        error.add_note(account(safe=_told(safe), cost=_told(lambda: cost(seconds)), reason=reason, helps=helps))
        raise


def _told(tell: Callable[[], str]) -> str:
    """What can be told; the error that is on its way counts more than one met in telling."""
    try:
        return tell()
    except Exception as error:
        return f"what was written before (it cannot be counted now: {error})"
