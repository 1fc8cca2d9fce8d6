"""What tools at the same time cost: wall time of one step that calls K tools of 50 ms.

Asynchronous tools sleep; blocking tools hold their thread. While blocking tools run, a task that
wakes every millisecond notes the longest time for which the event loop did not come round. The
floor is a bare anyio task group (or ``anyio.to_thread``) that runs the same functions.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.to_thread
from mcp_types import (
    CreateMessageRequestParams,
    CreateMessageResultWithTools,
    TextContent,
    ToolUseContent,
)
from measuring import main, table

from agentloop import Agent, Limits

SECONDS = 0.05
SAMPLES = 7


async def wait(number: int) -> int:
    """Take 50 ms without blocking."""
    await anyio.sleep(SECONDS)
    return number


def block(number: int) -> int:
    """Take 50 ms and block a thread."""
    time.sleep(SECONDS)
    return number


class Model:
    """Calls one tool K times in one reply, then says how many results it got."""

    name = "fake"

    def __init__(self, tool: str, calls: int) -> None:
        self._tool, self._calls = tool, calls

    async def sample(self, request: CreateMessageRequestParams) -> CreateMessageResultWithTools:
        results = request.messages[-1].content_as_list
        uses = [
            ToolUseContent(name=self._tool, id=f"c{number}", input={"number": number})
            for number in range(self._calls)
        ]
        first = len(request.messages) == 1
        return CreateMessageResultWithTools(
            role="assistant",
            content=uses if first else [TextContent(text=str(len(results)))],
            model="fake",
        )


AGENT = Agent(
    "fan", tools=[wait, block], limits=Limits(parallel=1024, calls_per_reply=1024, tool_calls=None)
)


def ours(tool: str, calls: int) -> Callable[[], Awaitable[None]]:
    async def work() -> None:
        result = await AGENT.run("Go.", provider=Model(tool, calls))
        assert result.text == str(calls)

    return work


def floor(tool: str, calls: int) -> Callable[[], Awaitable[None]]:
    limiter = anyio.CapacityLimiter(1024)

    async def one(number: int) -> None:
        if tool == "wait":
            await wait(number)
        else:
            await anyio.to_thread.run_sync(block, number, limiter=limiter)

    async def work() -> None:
        async with anyio.create_task_group() as group:
            for number in range(calls):
                group.start_soon(one, number)

    return work


async def lag(work: Callable[[], Awaitable[None]]) -> float:
    """The longest time between two rounds of the event loop while ``work`` ran, in seconds."""
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        before = time.monotonic()
        while True:
            await anyio.sleep(0.001)
            now = time.monotonic()
            longest = max(longest, now - before - 0.001)
            before = now

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        await work()
        group.cancel_scope.cancel()
    return longest


async def measure(tool: str, calls: int) -> dict[str, Any]:
    works = {"agentloop": ours(tool, calls), "floor": floor(tool, calls)}
    wall: dict[str, list[float]] = {name: [] for name in works}
    cpu: dict[str, list[float]] = {name: [] for name in works}
    held = dict.fromkeys(works, math.inf)
    for sample in range(-1, SAMPLES):
        for name, work in works.items():
            began, used = time.perf_counter(), time.process_time()
            await work()
            if sample >= 0:  # the first is the warm-up
                wall[name].append(time.perf_counter() - began)
                cpu[name].append(time.process_time() - used)
                held[name] = min(held[name], await lag(work))
    return {
        "wall": {name: statistics.median(times) for name, times in wall.items()},
        "cpu": {name: statistics.median(times) / calls for name, times in cpu.items()},
        "held": held,
    }


def report() -> str:
    rows: list[list[str]] = []
    for tool, calls in (("wait", 8), ("wait", 64), ("wait", 256), ("block", 8), ("block", 40)):
        took = anyio.run(measure, tool, calls)
        rows.append(
            [
                f"{'async' if tool == 'wait' else 'blocking'}, K={calls}",
                *(f"{took['wall'][name] * 1e3:.1f}" for name in ("agentloop", "floor")),
                *(f"{took['cpu'][name] * 1e6:.0f}" for name in ("agentloop", "floor")),
                *(f"{took['held'][name] * 1e3:.1f}" for name in ("agentloop", "floor")),
            ]
        )
    header = ["tools of 50 ms", "wall ms", "floor", "CPU µs per call", "floor"]
    return "\n\n".join(
        [
            "## Fan-out: K tools of 50 ms in one step",
            table([*header, "event loop held, ms", "floor"], rows),
            f"Medians of {SAMPLES}; the time for which the event loop was held is the best of as "
            "many, since other programs hold it too.",
        ]
    )


if __name__ == "__main__":
    main(report)
