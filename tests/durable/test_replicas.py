"""Several processes work on the same runs, and one of them dies, or is thought to be dead."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from sqlalchemy import create_engine, text

from agentloop.durable import Durable, RunState
from tests.durable.cast import Diary, Model, clerk
from tests.durable.worker import LEASE

Start = Callable[[], subprocess.Popen[bytes]]


@pytest.fixture
def replica(database: str, tmp_path: Path) -> Iterator[Start]:
    """Starts processes that work on the runs of the database."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.durable.worker", "replica", database]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(
            [*command, str(tmp_path)], cwd=Path(__file__).parents[2], **quiet
        )
        started.append(process)
        until(lambda: f"up {process.pid}" in Diary(tmp_path / "diary").lines())
        return process

    yield start
    (tmp_path / "go on").touch()
    (tmp_path / "stop").touch()
    for process in started:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGCONT)
        process.wait(20)


def until(true: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)


def paying(tmp_path: Path) -> set[str]:
    """The processes that are in the second payment of a run."""
    lines = [line.split() for line in Diary(tmp_path / "diary").lines()]
    return {words[1] for words in lines if words[0] == "paying" and words[2] == "1"}


def effects(tmp_path: Path) -> list[str]:
    lines = Diary(tmp_path / "diary").lines()
    return [line for line in lines if line.split()[0] in ("pay", "book", "send")]


def recorded(database: str) -> list[Any]:
    """Everything that the engine and the ledger hold of the runs."""
    engine = create_engine(database)
    scheme = "" if database.startswith("sqlite") else "dbos."
    with engine.connect() as connection:
        steps = f"SELECT workflow_uuid, function_id, output FROM {scheme}operation_outputs"
        rows = [connection.execute(text(f"{steps} ORDER BY 1, 2")).all()]
        claims = "SELECT call, effect, result FROM agentloop_claims ORDER BY 1, 2"
        rows.append(connection.execute(text(claims)).all())
    engine.dispose()
    return rows


async def result(database: str, id: str, tmp_path: Path) -> Any:
    diary = Diary(tmp_path / "diary")
    durable = Durable(database, lease=LEASE)
    agent = durable.agent(clerk(diary), provider=Model(diary))
    async with durable:
        return await agent.get(id).result()


async def test_another_process_takes_over_the_runs_of_one_that_died(
    replica: Start, database: str, tmp_path: Path
) -> None:
    first = replica()
    (tmp_path / "start-a").touch()
    until(lambda: str(first.pid) in paying(tmp_path))
    second = replica()
    await anyio.sleep(LEASE * 2)  # one that is alive keeps its runs
    assert paying(tmp_path) == {str(first.pid)}
    first.kill()
    (tmp_path / "go on").touch()
    until(lambda: "ask start-a 3" in Diary(tmp_path / "diary").lines())
    assert second.poll() is None
    ended = await result(database, "start-a", tmp_path)
    assert ended.text == "all done"
    done = effects(tmp_path)
    assert len([line for line in done if line.startswith("pay ")]) == 3
    assert len({*done}) == 9
    assert "Unknown outcome" in str(ended.messages[4].content)


async def test_a_process_that_was_thought_dead_writes_nothing_when_it_wakes_up(
    replica: Start, database: str, tmp_path: Path
) -> None:
    first = replica()
    (tmp_path / "start-a").touch()
    until(lambda: str(first.pid) in paying(tmp_path))
    second = replica()
    os.kill(first.pid, signal.SIGSTOP)
    until(lambda: "ask start-a 3" in Diary(tmp_path / "diary").lines())
    ended = await result(database, "start-a", tmp_path)
    assert ended.text == "all done"
    before, done = recorded(database), effects(tmp_path)

    (tmp_path / "go on").touch()
    os.kill(first.pid, signal.SIGCONT)
    await anyio.sleep(LEASE * 3)
    assert recorded(database) == before
    assert effects(tmp_path) == done

    os.kill(second.pid, signal.SIGKILL)  # the one that woke up is as good as any
    (tmp_path / "start-b").touch()
    assert (await result(database, "start-b", tmp_path)).text == "all done"
    assert first.poll() is None


async def test_what_a_process_leaves_unfinished_is_listed_and_finished_by_the_next(
    database: str, tmp_path: Path
) -> None:
    diary = Diary(tmp_path / "diary")

    def hold(turn: int) -> None:
        diary.write("paying")
        while turn == 1 and not (tmp_path / "go on").exists():
            time.sleep(0.01)

    durable = Durable(database, lease=LEASE, grace=0)
    agent = durable.agent(clerk(diary, wait=hold), provider=Model(diary))
    async with durable:
        await agent.start("x", id="a")
        while diary.lines().count("paying") < 2:  # noqa: ASYNC110  a file wakes nobody up
            await anyio.sleep(0.01)
        assert [(i.id, i.state) for i in await durable.runs()] == [("a", RunState.RUNNING)]
    (tmp_path / "go on").touch()
    ended = await result(database, "a", tmp_path)
    assert ended.text == "all done"
    assert len({*effects(tmp_path)}) == 9
