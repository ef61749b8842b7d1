"""The whole system on one machine, without a GPU, a key, data or a model hub: from drawn clips to a champion in use.

    python -m pipelines.demo

Clips are drawn, described by a small VideoLLaMA2, ranked, and learned from; a search finds a model, which classifies
clips that nobody has seen, and says why. What is no model is called by its name: without OPENAI_API_KEY or
OPENAI_BASE_URL a stand-in answers in place of a language model. Started again, it goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import NoReturn

from rich.console import Console
from rich.markup import escape

from lgsrr import cli
from lgsrr.errors import ConfigError

from .folder import DemoFolder
from .running import DemoError, Interrupts, Runner
from .settings import DemoConfig, Llm, choose_llm
from .steps import Step, steps

PROG = "python -m pipelines.demo"


class Demo:
    """One run of the demo."""

    def __init__(self, config: DemoConfig, console: Console, interrupts: Interrupts, stack: ExitStack) -> None:
        self.config, self.llm = config, choose_llm(config)
        self.folder = DemoFolder(config.folder)
        self._console, self._interrupts, self._stack = console, interrupts, stack
        self._runner = Runner(console, interrupts)
        self._environment: dict[str, str] = {}

    def run(self) -> dict[str, float]:
        """All steps that are not done; seconds of each, by name, those of earlier runs among them."""
        took: dict[str, float] = {}
        redo = False
        todo = steps(self.config, self.llm)
        for number, step in enumerate(todo, start=1):
            before = None if redo else self.folder.seconds(step)
            if before is not None:
                self._say(f"{number}/{len(todo)} {step.name}: done before, in {before:.0f} s")
                took[step.name] = before
                continue
            redo = True  # what follows reads what this one makes
            self._prepare(step)
            self._say(f"\n[bold]{number}/{len(todo)} {step.name}[/bold]: {step.says}")
            self._console.print(f"$ {step.shown}", style="dim", highlight=False, markup=False, soft_wrap=True)
            took[step.name] = self._runner.run(step, self._environment, again_command(self.config))
            self.folder.finished(step, took[step.name])
            self._say(f"{took[step.name]:.1f} s", style="dim")
        return took

    def _say(self, line: str, style: str | None = None) -> None:
        self._console.print(line, style=style, highlight=False, soft_wrap=True)

    def _prepare(self, step: Step) -> None:
        """Ray and the stand-in, when the first step comes that wants them."""
        if step.on_ray and "RAY_ADDRESS" not in self._environment:
            self._environment["RAY_ADDRESS"] = self._start_ray()
        if step.asks and self.llm.is_stand_in and "OPENAI_BASE_URL" not in self._environment:
            self._environment["OPENAI_BASE_URL"] = self._start_stand_in()
        self._interrupts.check()

    def _start_ray(self) -> str:
        from lgsrr.cluster import local_cluster

        started = time.monotonic()
        try:
            address = self._stack.enter_context(local_cluster())
        except Exception as error:  # Ray raises bare exceptions here
            raise DemoError(
                f"Ray cannot be started on this machine: {error} Is something else at work that takes all of it? The "
                f"same command goes on:\n  {again_command(self.config)}"
            ) from error
        finally:
            self._interrupts.take()  # Ray has set handlers of its own
        self._say(f"\na Ray cluster on this machine, for all steps: {time.monotonic() - started:.1f} s", style="dim")
        return address

    def _start_stand_in(self) -> str:
        from pipelines.stand_in.process import serve

        server = self._stack.enter_context(serve(port=self.config.port))
        self._say(f"a stand-in, which answers by rules in place of a language model: {server.base_url}", style="dim")
        return server.base_url


def demo(config: DemoConfig) -> None:
    """The command: run, and print what came of it."""
    from .screen import print_screen

    console = cli.table_console()
    with Interrupts.held() as interrupts, ExitStack() as stack:
        run = Demo(config, console, interrupts, stack)
        _check_port(config, run.llm)
        with run.folder.held(config.identity(run.llm.identity)):
            _introduce(config, run.llm, console)
            took = run.run()
            stack.close()
            print_screen(config, run.llm, took, console)


def _check_port(config: DemoConfig, llm: Llm) -> None:
    """Raises ConfigError where the stand-in's port is taken: before minutes of work, not after."""
    if not llm.is_stand_in or config.port == 0:
        return
    with contextlib.closing(socket.socket()) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", config.port))
        except OSError as error:
            raise ConfigError(
                f"port {config.port} on 127.0.0.1, where the stand-in for a language model is to listen, cannot be "
                f"had: {error.strerror}; name another --port, or leave it out and a free one is taken"
            ) from None


def _introduce(config: DemoConfig, llm: Llm, console: Console) -> None:
    """Who is who, before anything is done."""
    if llm.is_stand_in:
        asked = (
            "a stand-in, which answers by rules. It is no language model; with OPENAI_API_KEY or OPENAI_BASE_URL set, "
            "a real one is asked"
        )
    else:
        asked = f"{llm.name} at {llm.where}, for ${config.budget_usd:g} at most (--budget-usd)"
    console.print(
        f"[bold]The whole system on one machine[/bold], everything in {escape(str(config.folder))}\n"
        f"  clips           {config.utterances}, drawn here; what they mean is in the picture, not in the words\n"
        f"  video model     {config.model}, a VideoLLaMA2 by {config.engine}\n"
        f"  language model  {asked}",
        highlight=False,
        soft_wrap=True,
    )


def again_command(config: DemoConfig) -> str:
    """The command that goes on with this demo."""
    start = DemoConfig()
    changed = [f.name for f in dataclasses.fields(config) if getattr(config, f.name) != getattr(start, f.name)]
    words = [word for name in changed for word in (f"--{name.replace('_', '-')}", str(getattr(config, name)))]
    return shlex.join([*PROG.split(), *words])


def main(argv: Sequence[str] | None = None) -> NoReturn:
    cli.run(
        demo,
        DemoConfig,
        prog=PROG,
        description=(__doc__ or "").replace(f"\n    {PROG}\n", "").strip(),
        example=PROG,
        argv=argv,
    )


if __name__ == "__main__":
    main()
