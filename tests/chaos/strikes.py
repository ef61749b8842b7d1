"""What each kind of disturbance does. Each returns, in a few words, what it has struck."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.chaos.plan import Kind, Strike
from tests.chaos.world import World
from tests.processes import Process

NOBODY = "nobody was there to be struck"


def actor(world: World, driver: Process, strike: Strike) -> str:
    found = world.actors()
    if not found:
        return NOBODY
    victim = found[strike.pick % len(found)]
    title = victim.title().partition(" ")[0].removeprefix("ray::")
    victim.kill()
    return title


def raylet(world: World, driver: Process, strike: Strike) -> str:
    node = world.nodes.workers[strike.pick % len(world.nodes.workers)]
    world.replace(node, raylet_first_s=0.5)  # so long its processes outlive it, where they do not see it themselves
    return "a node's raylet"


def spot(world: World, driver: Process, strike: Strike) -> str:
    node = world.nodes.workers[strike.pick % len(world.nodes.workers)]
    taken = world.nodes.drain(node, strike.away_s)
    time.sleep(strike.away_s)
    world.replace(node)
    return f"a node, {strike.away_s:g} s after its notice" + ("" if taken else ", which Ray refused")


def kill_driver(world: World, driver: Process, strike: Strike) -> str:
    driver.kill()
    return "the driver"


def head(world: World, driver: Process, strike: Strike) -> str:
    world.nodes.lose(world.nodes.head)
    driver.kill()
    world.renew()
    return "the head node"


def mlflow(world: World, driver: Process, strike: Strike) -> str:
    return _away(strike, world.mlflow.pause, world.mlflow.resume, world.mlflow.kill, world.mlflow.start)


def llm(world: World, driver: Process, strike: Strike) -> str:
    def kill() -> None:
        world.way.cut()  # who asks a server that is away finds nobody at its port
        world.llm.kill()

    def start() -> None:
        world.llm.start()
        world.way.mend()

    return _away(strike, world.llm.pause, world.llm.resume, kill, start)


def network(world: World, driver: Process, strike: Strike) -> str:
    hangs = strike.pick % 2 == 0
    (world.way.hold if hangs else world.way.cut)()
    time.sleep(strike.away_s)
    world.way.mend()
    return f"nothing came through for {strike.away_s:g} s" if hangs else f"cut for {strike.away_s:g} s"


def _away(
    strike: Strike,
    pause: Callable[[], None],
    resume: Callable[[], None],
    kill: Callable[[], None],
    start: Callable[[], None],
) -> str:
    hangs = strike.pick % 2 == 0
    (pause if hangs else kill)()
    time.sleep(strike.away_s)
    (resume if hangs else start)()
    return f"hung for {strike.away_s:g} s" if hangs else f"killed, and away for {strike.away_s:g} s"


STRIKES: dict[Kind, Callable[[World, Process, Strike], str]] = {
    "actor": actor, "raylet": raylet, "spot": spot, "driver": kill_driver, "head": head, "mlflow": mlflow,
    "llm": llm, "network": network,
}  # fmt: skip
"""Every kind but the named points, at which a driver kills itself."""
