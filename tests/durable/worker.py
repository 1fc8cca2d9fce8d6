"""A process of these tests: ``python -m tests.durable.worker ROLE URL FOLDER``."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

import anyio

from agentloop.durable import Durable, DurableAgent
from tests.durable.cast import EVENTS, NESTED_EVENTS, Diary, Model, NestedModel, boss, clerk

LEASE = 0.5


def chain(url: str, folder: Path, *, nested: bool = False) -> None:
    """One process after the other: each finishes the run of the one before, begins one of its own,
    and dies in it, a moment later than the one before did."""
    events = NESTED_EVENTS if nested else EVENTS
    for number in range(events + 1):
        child = os.fork()
        if child == 0:
            asyncio.run(_link(url, folder, number, nested=nested))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        died = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        if died != (number < events):
            raise SystemExit(f"process {number} ended with {status}")


async def _link(url: str, folder: Path, number: int, *, nested: bool) -> None:
    diary = Diary(folder / "diary")
    durable = Durable(url, lease=LEASE, grace=0)
    made, model = (boss(diary), NestedModel(diary)) if nested else (clerk(diary), Model(diary))
    agent = durable.agent(made, provider=model)
    async with durable:
        if number > 0:
            await keep(agent, f"run-{number - 1}", folder)
        if number < (NESTED_EVENTS if nested else EVENTS):
            diary.kill_at = number + 1
            await agent.run(f"run-{number}", id=f"run-{number}")


async def keep(agent: DurableAgent[str], id: str, folder: Path) -> None:
    """Write down what came of run ``id``, once it is over."""
    with anyio.fail_after(30):
        result = await agent.get(id).result()
    (folder / f"{id}.json").write_text(json.dumps(result.to_json()))


def replica(url: str, folder: Path) -> None:
    """Work on whatever runs there are until a file called ``stop`` appears."""
    asyncio.run(_replica(url, folder))


async def _replica(url: str, folder: Path) -> None:
    diary = Diary(folder / "diary")

    def wait(turn: int) -> None:
        """In the second payment, until the test has had its way."""
        diary.write("paying", str(os.getpid()), str(turn))
        while turn == 1 and not (folder / "go on").exists():
            time.sleep(0.01)

    durable = Durable(url, lease=LEASE, grace=0)
    agent = durable.agent(clerk(diary, wait=wait), provider=Model(diary))
    async with durable:
        diary.write("up", str(os.getpid()))
        while not (folder / "stop").exists():
            for wanted in list(folder.glob("start-*")):  # noqa: ASYNC240
                wanted.unlink(missing_ok=True)
                await agent.start(wanted.name, id=wanted.name)
            await anyio.sleep(0.02)


if __name__ == "__main__":
    role, url, folder = sys.argv[1:]
    roles = {"chain": chain, "nested": partial(chain, nested=True), "replica": replica}
    roles[role](url, Path(folder))
