"""What durability costs: a durable step next to a plain one, and 500 durable runs at once.

A step is one ask or one tool call. CPU is that of this process, so for PostgreSQL without the
server's; the wall counts, too, because it is the disk that is waited for. PostgreSQL is measured
where ``POSTGRES_URL`` names a database of a server: its tables are left behind.
"""

from __future__ import annotations

import asyncio
import math
import os
import sys
import tempfile
import time
from pathlib import Path

from mcp_types import CreateMessageRequestParams, CreateMessageResultWithTools, TextContent
from measuring import Work, machine, side_by_side, table

from agentloop import Agent, Limits, tool
from agentloop.durable import Durable
from agentloop_providers.scripted import use

TURNS = 20
STEPS = 2 * TURNS + 1
SAMPLES = 7
AT_ONCE = 500
FEW_TURNS = 2
FEW_STEPS = 2 * FEW_TURNS + 1


class Model:
    """Calls a tool in each of so many turns, then says that it is done."""

    name = "fake"

    def __init__(self, turns: int) -> None:
        self._turns = turns

    async def sample(self, request: CreateMessageRequestParams) -> CreateMessageResultWithTools:
        turn = sum(message.role == "assistant" for message in request.messages)
        call = use("add", id=f"c{turn}", a=turn, b=1)
        return CreateMessageResultWithTools(
            role="assistant",
            content=[call if turn < self._turns else TextContent(text="Done.")],
            model="fake",
            stop_reason="toolUse" if turn < self._turns else "endTurn",
        )


def adder(once: bool) -> Agent[str]:
    @tool(once=once)
    async def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    limits = Limits(steps=TURNS + 1)
    return Agent("once" if once else "plain", tools=[add], limits=limits)


async def measured(kind: str, url: str) -> tuple[list[list[str]], list[str]]:
    plain, once = adder(False), adder(True)
    durable = Durable(url, name=f"bench{os.getpid()}")
    agents = {
        kind: durable.agent(plain, provider=Model(TURNS)),
        f"{kind}, the tool is `once`": durable.agent(once, provider=Model(TURNS)),
    }
    few = durable.agent(Agent("few", tools=list(plain.tools.values())), provider=Model(FEW_TURNS))
    best = dict.fromkeys(agents, math.inf)

    def work(name: str) -> Work:
        async def run() -> None:
            began = time.perf_counter()
            await agents[name].run("Add.")
            best[name] = min(best[name], time.perf_counter() - began)

        return run

    async def run_plainly() -> None:
        await plain.run("Add.", provider=Model(TURNS))

    async with durable:
        works = {"plain": run_plainly, **{name: work(name) for name in agents}}
        taken = await side_by_side(works, samples=SAMPLES)
        rows = [
            [
                name,
                f"{taken[name].median / STEPS * 1e3:.2f} ms",
                f"{taken['plain'].median / STEPS * 1e3:.2f} ms",
                f"{best[name] / STEPS * 1e3:.1f} ms",
            ]
            for name in agents
        ]
        wall, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(few.run("Add.") for _ in range(AT_ONCE)))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    steps = AT_ONCE * FEW_STEPS
    return rows, [kind, f"{wall:.0f} s", f"{steps / wall:.0f}", f"{cpu / steps * 1e3:.1f} ms"]


async def report() -> str:
    rows: list[list[str]] = []
    crowds: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        urls = {"SQLite": f"sqlite:///{Path(folder) / 'runs.db'}"}
        if postgres := os.environ.get("POSTGRES_URL"):
            urls["PostgreSQL"] = postgres
        else:
            sys.stderr.write("POSTGRES_URL is not set: PostgreSQL is not measured\n")
        for kind, url in urls.items():
            steps, together = await measured(kind, url)
            rows += steps
            crowds.append(together)
    header = [
        f"one run of {STEPS} steps",
        "CPU per durable step",
        "CPU per plain step",
        "wall per durable step, at best",
    ]
    at_once = [
        f"{AT_ONCE} runs of {FEW_STEPS} steps at once",
        "all done in",
        "steps/s",
        "CPU per step",
    ]
    return f"## Durable runs\n\n{table(header, rows)}\n\n{table(at_once, crowds)}\n\n{machine()}\n"


if __name__ == "__main__":
    sys.stdout.write(asyncio.run(report()))
