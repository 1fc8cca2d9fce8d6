"""What many runs at once cost: wall time, CPU and memory of R runs in one event loop.

Each run has five steps: a model that takes 50 ms and a tool that takes 10 ms, so one run alone
takes 0.35 s. The floor is the bare loop of ``steps.py`` on the same types. Each measurement has a
process of its own; memory is how far the resident size at its peak rose over the size before.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import steps
from mcp_types import CreateMessageRequestParams, CreateMessageResultWithTools
from measuring import main, table

from agentloop import Agent, Limits

RUNS = (100, 1000, 5000)
STEPS = 5
SAMPLES = 3


async def add(a: int, b: int) -> str:
    """Add two numbers."""
    await anyio.sleep(0.01)
    return str(a + b)


class Model(steps.Model):
    async def sample(self, request: CreateMessageRequestParams) -> CreateMessageResultWithTools:
        await anyio.sleep(0.05)
        return await super().sample(request)


AGENT = Agent("adder", tools=[add], limits=Limits(steps=None))


async def ours() -> None:
    result = await AGENT.run(steps.PROMPT, provider=Model(STEPS))
    assert result.text == "Done.", result


async def floor() -> None:
    assert await steps.typed_floor(Model(STEPS)) == "Done."


async def together(work: Callable[[], Awaitable[None]], runs: int) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(runs):
            group.start_soon(work)


async def measure(name: str, runs: int) -> dict[str, float]:
    steps.add = add
    work = ours if name == "agentloop" else floor
    await together(work, 10)  # the warm-up
    before = peak()
    began, used = time.perf_counter(), time.process_time()
    await together(work, runs)
    return {
        "wall": time.perf_counter() - began,
        "cpu": (time.process_time() - used) / runs,
        "kib": (peak() - before) / runs,
    }


def peak() -> int:
    """The resident size at its peak so far, in KiB."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size // 1024 if sys.platform == "darwin" else size


def in_own_process(name: str, runs: int) -> dict[str, float]:
    command = [sys.executable, __file__, name, str(runs)]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def report() -> str:
    rows: list[list[str]] = []
    for runs in RUNS:
        taken: dict[str, list[dict[str, float]]] = {"agentloop": [], "floor": []}
        for _ in range(SAMPLES):
            for name, samples in taken.items():
                samples.append(in_own_process(name, runs))

        def median(name: str, what: str, taken: Any = taken) -> float:
            return statistics.median(sample[what] for sample in taken[name])

        pairs = zip(taken["agentloop"], taken["floor"], strict=True)
        ratio = statistics.median(a["wall"] / b["wall"] for a, b in pairs)
        rows.append(
            [
                f"{runs:,}",
                *(f"{median(name, 'wall'):.2f}" for name in taken),
                f"{ratio:.2f}",
                *(f"{median(name, 'cpu') * 1e6:,.0f}" for name in taken),
                *(f"{median(name, 'kib'):.1f}" for name in taken),
            ]
        )
    header = ["runs", "wall s", "floor", "ratio", "CPU µs per run", "floor"]
    return "\n\n".join(
        [
            "## Runs at once: five steps each, 50 ms model, 10 ms tool",
            table([*header, "KiB per run", "floor"], rows),
            f"Medians of {SAMPLES}. With 100 runs the memory is below what can be told.",
        ]
    )


if __name__ == "__main__":
    if sys.argv[1:]:
        print(json.dumps(anyio.run(measure, sys.argv[1], int(sys.argv[2]))))
    else:
        main(report)
