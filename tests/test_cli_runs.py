"""``agentloop runs``: an operator sees and steers what goes on without its callers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.server.mcpserver import MCPServer

from agentloop import Agent
from agentloop.cli import main
from agentloop.cli._longruns import TaskRun
from agentloop.mcp import Tasks, mount
from agentloop.sql_store import SQLiteStore
from agentloop.task import Status, Task, finished, parked
from agentloop.testing import MockClient
from agentloop_providers import ScriptedProvider
from agentloop_providers.scripted import use


def task(number: int) -> Task:
    return Task(id=f"id-{number}", call=f"call-{number}", request={"name": "report"}, ttl=3600.0)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with one task that waits for its client, one that is through, one nobody works on."""
    file = tmp_path / "runs.db"

    async def fill() -> None:
        tasks = SQLiteStore(file).tasks
        for number in range(3):
            await tasks.create(task(number))
        ask = {"k": {"method": "elicitation/create", "params": {}}}
        await tasks.change("id-0", lambda task, now: parked(task, now, asks=ask, state=None))
        done = {"content": [], "isError": False}
        await tasks.change("id-1", lambda task, now: finished(task, now, outcome=done))

    anyio.run(fill)
    return file


def status(store: Path, id: str) -> Status:
    async def read() -> Status:
        found = await SQLiteStore(store).tasks.read(id)
        assert found is not None
        return found.status

    return anyio.run(read)


def test_list_shows_what_there_is_and_counts_it(store: Path, capsys: Any) -> None:
    assert main(["runs", "--store", str(store), "list"]) == 0
    out = capsys.readouterr().out
    rows = {line.split()[0]: line for line in out.splitlines()[1:-1]}
    assert "input_required" in rows["id-0"]
    assert "completed" in rows["id-1"]
    assert "working" in rows["id-2"]
    assert out.splitlines()[-1] == "1 queued, 1 waiting, 1 completed"


def test_list_by_state_as_json(store: Path, capsys: Any) -> None:
    main(["runs", "--store", str(store), "list", "--state", "completed", "--json"])
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["id"] == "id-1"


def test_show_tells_everything(store: Path, capsys: Any) -> None:
    assert main(["runs", "--store", str(store), "show", "id-0"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["asks"] == {"k": {"method": "elicitation/create", "params": {}}}
    assert shown["request"] == {"name": "report"}


def test_cancel_ends_a_run_and_only_once(store: Path, capsys: Any) -> None:
    assert main(["runs", "--store", str(store), "cancel", "id-0"]) == 0
    assert status(store, "id-0") is Status.CANCELLED
    assert main(["runs", "--store", str(store), "cancel", "id-0"]) == 1
    assert "the task has ended already: it is cancelled" in capsys.readouterr().err


def test_resume_takes_a_run_from_whoever_has_it(store: Path) -> None:
    async def take() -> Task | None:
        return await SQLiteStore(store).tasks.take(lease=1000)

    first = anyio.run(take)
    assert first is not None
    assert anyio.run(take) is None  # it is held
    assert main(["runs", "--store", str(store), "resume", first.id]) == 0
    second = anyio.run(take)
    assert second is not None
    assert second.id == first.id
    assert second.epoch > first.epoch  # so what the first says is refused


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["list"], "which store?"),
        (["--store", "nowhere.db", "list"], "there is no store at nowhere.db"),
        (["--store", "x://y", "list"], "no store can be had at this URL"),
        (["--store", "{store}", "show", "none"], "there is no run 'none'"),
        (["--store", "{store}", "show", "id-"], "3 runs have ids that begin with 'id-'"),
        (["--store", "{store}", "list", "--state", "lost"], "there is no state 'lost'"),
    ],
)
def test_mistakes_are_one_clear_line(
    arguments: list[str], said: str, store: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AGENTLOOP_STORE", raising=False)
    assert main(["runs", *(each.format(store=store) for each in arguments)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


async def test_a_cancelled_run_stops_where_it_runs(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "runs.db", lease=0.3)
    tasks = Tasks(store, poll=0.01, look_every=0.05)
    server = MCPServer("slow", extensions=[tasks], lifespan=tasks.lifespan())
    begun, stopped = anyio.Event(), anyio.Event()

    async def wait() -> str:
        """Wait."""
        begun.set()
        try:
            await anyio.sleep(60)
        finally:
            stopped.set()
        return "never"

    mount(server, Agent("waiter", tools=[wait]), task="always")
    model = ScriptedProvider(use("wait"))

    async def cancel() -> None:
        await begun.wait()
        (running,) = await store.tasks.list()
        await TaskRun(running, store.tasks).cancel()

    client = MockClient(server, model, carrier="task")
    async with client, anyio.create_task_group() as group:
        group.start_soon(cancel)
        with pytest.raises(Exception, match="the task cancelled: An operator cancelled it"):
            await client.call_tool("waiter", {"prompt": "Wait."})
        with anyio.fail_after(2):
            await stopped.wait()
    await store.close()
