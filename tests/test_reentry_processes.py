"""A call that is suspended goes on anywhere that has the key: nothing of it stays in memory."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator
from itertools import count, cycle
from pathlib import Path
from typing import Any

import anyio
import pytest
import structlog.testing
from mcp_types import CallToolResult, InputRequiredResult

from tests.carriers.driver import answers_to, call_once
from tests.carriers.kit import Scenario
from tests.carriers.processes import Fresh, fresh_processes, stdio_process
from tests.carriers.stage import TABLE, played_directly, stage

CALLS = count()
OVER_ROUNDS = [row.name for row in TABLE.values() if not {"rounds", "http"} & row.not_on.keys()]
SEVERAL_ROUNDS = [
    "nested sub-agents",
    "planner, writers, editor",
    "branches in branches, agents in a tool",
    "values made once",
]

# The SDK's HTTP client leaves generators of httpx2 unfinished, which trio complains about.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <async_generator object (EventSource|Response|PoolByteStream)"
)

Enter = Callable[..., Awaitable[CallToolResult | InputRequiredResult]]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Keep tracebacks of failures that are wanted from being drawn, which takes long."""
    with structlog.testing.capture_logs():
        yield


async def played(row: Scenario, enter: Enter) -> tuple[Any, int]:
    """What comes of ``row`` where each round is one call of ``enter``; and the rounds."""
    model = row.model()
    arguments = {"name": row.name, "call": f"call-{next(CALLS)}"}
    result = await enter("play", arguments)
    rounds = 0
    while isinstance(result, InputRequiredResult):
        rounds += 1
        answers = await answers_to(result, model)
        result = await enter("play", arguments, answers=answers, state=result.request_state)
    model.finish()
    assert not result.is_error, result.content
    return result.structured_content, rounds


@pytest.mark.parametrize("name", OVER_ROUNDS)
async def test_a_new_server_at_every_round(name: str, tmp_path: Path) -> None:
    """Every scenario, suspended at every ask and entered on a server that never saw it."""

    async def enter(*args: Any, **kwargs: Any) -> CallToolResult | InputRequiredResult:
        return await call_once(stage(tmp_path), *args, **kwargs)

    row = TABLE[name]
    result, _ = await played(row, enter)

    assert result == await played_directly(row, row.model())


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fresh]:
    """Starts processes that share a folder for their records, and nothing else."""
    if not hasattr(os, "fork"):
        pytest.skip("processes are forked")
    with fresh_processes(tmp_path_factory.mktemp("records")) as start:
        yield start


@pytest.mark.parametrize("name", SEVERAL_ROUNDS)
async def test_a_new_process_at_every_round(name: str, start: Fresh) -> None:
    """Each round is served over HTTP by a process that is killed after it."""
    processes: set[int] = set()
    row = TABLE[name]

    async def enter(*args: Any, **kwargs: Any) -> CallToolResult | InputRequiredResult:
        with start() as (url, process):
            processes.add(process)
            return await call_once(url, *args, **kwargs)

    with anyio.fail_after(60):
        result, rounds = await played(row, enter)

    assert result == await played_directly(row, row.model())
    assert len(processes) == rounds + 1
    assert rounds >= 3


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # of the client; the servers use both
async def test_a_new_process_over_stdio_at_every_round(tmp_path: Path) -> None:
    """The same over stdio; the processes even change between asyncio and trio."""
    backends = cycle(["trio", "asyncio"])

    async def enter(*args: Any, **kwargs: Any) -> CallToolResult | InputRequiredResult:
        return await call_once(stdio_process(next(backends), tmp_path), *args, **kwargs)

    row = TABLE["values made once"]
    with anyio.fail_after(60):
        result, rounds = await played(row, enter)

    assert result == await played_directly(row, row.model())
    assert rounds == 3
