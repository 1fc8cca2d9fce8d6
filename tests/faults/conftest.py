"""The table at the end, and what is watched in every test."""

from __future__ import annotations

import functools
import gc
import inspect
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest
import structlog.testing

from agentloop import threads
from agentloop.strays import left_behind
from tests.faults.kit import tasks_alive
from tests.faults.table import CARRIERS, TABLE

WATCHDOG = 5
"""Seconds; a test that takes longer hangs, unless it says how long it takes."""

POOLED = ("agentloop tool", "AnyIO worker", "Trio thread", "asyncio_")
"""Threads that are kept for the next call."""

_cells: dict[tuple[str, str], list[str]] = defaultdict(list)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "fault(*ids, on=None): plays these rows of the table, on their carriers or those given",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker("fault")
    if marker and "carrier" in metafunc.fixturenames:
        on = marker.kwargs.get("on") or TABLE[marker.args[0]].carriers
        metafunc.parametrize("carrier", on)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every test of this folder so much time, and then a clear end."""
    for item in items:
        if "tests/faults" not in item.path.as_posix() or not isinstance(item, pytest.Function):
            continue
        marker = item.get_closest_marker("timeout")
        seconds = marker.args[0] if marker else WATCHDOG
        if inspect.iscoroutinefunction(item.obj):
            item.obj = _watched(item.obj, seconds)
            item.add_marker(pytest.mark.timeout(seconds + 10), append=False)
        elif not marker:
            item.add_marker(pytest.mark.timeout(seconds))


def _watched(test: Any, seconds: float) -> Any:
    @functools.wraps(test)
    async def watched(*args: Any, **kwargs: Any) -> None:
        with anyio.fail_after(seconds):
            await test(*args, **kwargs)

    return watched


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report: Any = yield
    marker = item.get_closest_marker("fault")
    if marker and (report.when == "call" or not report.passed):
        callspec = getattr(item, "callspec", None)
        carrier = callspec.params.get("carrier") if callspec else None
        for on in [carrier] if carrier else marker.kwargs["on"]:
            for id in marker.args:
                _cells[id, on].append(report.outcome)
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if not _cells:
        return
    write = terminalreporter.write_line
    terminalreporter.section("fault \u00d7 carrier \u2192 outcome")
    write(f"{'':4} {'where':6} {'':52} " + " ".join(f"{carrier:>9}" for carrier in CARRIERS))
    held = played = 0
    for row in TABLE.values():
        told: list[str] = []
        for carrier in CARRIERS:
            outcomes = _cells.get((row.id, carrier))
            if carrier not in row.carriers:
                told.append("")
            elif not outcomes:
                told.append("not run")
            else:
                played += 1
                held += "failed" not in outcomes and "passed" in outcomes
                told.append(_word(outcomes))
        if any(told):
            what = row.what if len(row.what) <= 52 else row.what[:49] + "..."
            write(f"{row.id} {row.where:6} {what:52} " + " ".join(f"{t:>9}" for t in told))
    write(f"{held} of {played} cells held; {sum(map(len, _cells.values()))} plays")


def _word(outcomes: list[str]) -> str:
    if "failed" in outcomes:
        return "FAILED"
    return "held" if "passed" in outcomes else "skipped"


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[Any]]:
    """What is logged in a test, by the runtime's own logger."""
    with structlog.testing.capture_logs() as captured:
        yield captured


@pytest.fixture
async def no_leaks() -> AsyncIterator[None]:
    """No task, thread, stray or stuck call is left behind a second after the test."""
    tasks, running = tasks_alive(), _threads()
    yield
    give_up = time.monotonic() + 1
    while (left := _left(tasks, running)) and time.monotonic() < give_up:
        gc.collect()
        await anyio.sleep(0.01)
    assert not left, left


def _left(tasks: int, running: set[threading.Thread]) -> list[str]:
    left = [f"thread {thread.name}" for thread in _threads() - running]
    if (more := tasks_alive() - tasks) > 0:
        left.append(f"{more} tasks")
    if strays := left_behind():
        left.append(f"{strays} strays")
    if stuck := len(threads._STUCK):
        left.append(f"{stuck} stuck calls")
    return left


def _threads() -> set[threading.Thread]:
    return {t for t in threading.enumerate() if not t.name.startswith(POOLED)}
