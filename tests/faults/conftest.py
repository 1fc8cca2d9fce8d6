"""The table at the end, and what is watched in every test."""

from __future__ import annotations

import functools
import inspect
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
import structlog.testing

from tests.faults.table import CARRIERS, TABLE
from tests.leaks import Leaks

HERE = Path(__file__).parent

WATCHDOG = 5
"""Seconds; a test that takes longer hangs, unless it says how long it takes."""

_cells: dict[tuple[str, str], list[str]] = defaultdict(list)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "fault(*ids, on=None): plays these rows of the table, on their carriers or those given",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker("fault")
    if not marker:
        return
    rows = [TABLE[id] for id in marker.args]
    on = marker.kwargs.get("on") or rows[0].carriers
    if wrong := [row.id for row in rows if not set(on) <= set(row.carriers)]:
        raise pytest.UsageError(f"{metafunc.definition.name}: {wrong} are not played on {on}")
    if "carrier" in metafunc.fixturenames:
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
            report.user_properties += [("fault", (id, on)) for id in marker.args]
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Gather, where the reports of all workers come together, what came of each cell."""
    for name, value in report.user_properties:
        if name == "fault":
            id, on = cast(tuple[str, str], value)
            _cells[id, on].append(report.outcome)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail a run of all of this folder in which a cell was not played."""
    worker = hasattr(session.config, "workerinput")  # has played a part only
    if _is_whole(session.config) and not worker and not exitstatus and _not_played():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _is_whole(config: pytest.Config) -> bool:
    """Whether all tests of this folder were to run, and not only some."""
    paths = [Path(config.invocation_params.dir, argument).resolve() for argument in config.args]
    options = config.option
    some = options.keyword or options.markexpr or options.deselect or options.collectonly
    return HERE in paths and not some and not getattr(options, "lf", False)


def _not_played() -> list[str]:
    return [
        f"{row.id} on {carrier}"
        for row in TABLE.values()
        for carrier in row.carriers
        if _word(row.id, carrier) in NOT_PLAYED
    ]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if not _cells:
        return
    write = terminalreporter.write_line
    terminalreporter.section("fault \u00d7 carrier \u2192 outcome")
    write(f"{'':4} {'where':6} {'':52} " + " ".join(f"{carrier:>10}" for carrier in CARRIERS))
    told: list[str] = []
    whole = _is_whole(config)
    for row in TABLE.values():
        words = [_word(row.id, on) if on in row.carriers else "" for on in CARRIERS]
        told += filter(None, words)
        if whole or set(words) - {"", "not played"}:
            what = row.what if len(row.what) <= 52 else row.what[:49] + "..."
            write(f"{row.id} {row.where:6} {what:52} " + " ".join(f"{word:>10}" for word in words))
    plays = sum(map(len, _cells.values()))
    write(f"{told.count('held')} of {len(told)} cells held; {plays} plays")
    if whole and (missing := len(_not_played())):
        write(f"FAILED: {missing} cells were not played", red=True)


NOT_PLAYED = ("not played", "skipped")


def _word(id: str, carrier: str) -> str:
    outcomes = _cells.get((id, carrier), [])
    if "failed" in outcomes:
        return "FAILED"
    if "passed" in outcomes:
        return "held"
    return "skipped" if outcomes else "not played"


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[Any]]:
    """What is logged in a test, by the runtime's own logger."""
    with structlog.testing.capture_logs() as captured:
        yield captured


@pytest.fixture
async def no_leaks() -> AsyncIterator[None]:
    """No task, thread, stray or stuck call is left behind a second after the test."""
    leaks = Leaks()
    yield
    await leaks.none_within(1)
