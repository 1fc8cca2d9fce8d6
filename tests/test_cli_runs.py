"""``agentloop runs``: an operator sees and steers what goes on without its callers."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
import sqlalchemy
from mcp.server.mcpserver import MCPServer

from agentloop import Agent
from agentloop.cli import main
from agentloop.cli._longruns import TaskRun
from agentloop.errors import RunCancelled
from agentloop.mcp import Tasks, mount
from agentloop.sql_store import SQLiteStore, SQLStore
from agentloop.sql_tasks import SQLTasks
from agentloop.task import Status, Task, finished, parked
from agentloop.testing import MockClient
from agentloop_providers import ScriptedProvider
from agentloop_providers.scripted import use
from tests.engine import needs_engine_on_sqlite


def task(number: int) -> Task:
    return Task(id=f"id-{number}", call=f"call-{number}", request={"name": "report"}, ttl=3600.0)


@asynccontextmanager
async def tasks_in(file: Path) -> AsyncGenerator[SQLTasks]:
    """The tasks of the store in ``file``."""
    store = SQLiteStore(file)
    try:
        yield store.tasks
    finally:
        await store.close()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with one task that waits for its client, one that is through, one nobody works on."""
    file = tmp_path / "runs.db"

    async def fill() -> None:
        ask = {"k": {"method": "elicitation/create", "params": {}}}
        done = {"content": [], "isError": False}
        async with tasks_in(file) as tasks:
            for number in range(3):
                await tasks.create(task(number))
            await tasks.change("id-0", lambda task, now: parked(task, now, asks=ask, state=None))
            await tasks.change("id-1", lambda task, now: finished(task, now, outcome=done))

    anyio.run(fill)
    return file


def status(store: Path, id: str) -> Status:
    async def read() -> Status:
        async with tasks_in(store) as tasks:
            found = await tasks.read(id)
        assert found is not None
        return found.status

    return anyio.run(read)


def test_list_shows_what_there_is_and_counts_it(store: Path, capsys: Any) -> None:
    assert main(["runs", "--store", str(store), "list"]) == 0
    out = capsys.readouterr().out
    rows = {line.split()[0]: line for line in out.splitlines()[1:-1]}
    assert "waiting" in rows["id-0"]
    assert "completed" in rows["id-1"]
    assert "queued" in rows["id-2"]
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
        async with tasks_in(store) as tasks:
            return await tasks.take(lease=1000)

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
        (["--store", "a?b.db", "list"], "no store can be at a?b.db: leave the '?' out"),
        (["--store", "sqlite:///nowhere.db", "list"], "there is no store at nowhere.db"),
        (["--store", "{other}", "list"], "is no store of agentloop's"),
        (["--store", "{junk}", "list"], "cannot be read: file is not a database"),
        (["--store", "{newer}", "list"], "cannot be read: the store has schema version 99"),
        (
            ["--store", "postgresql+psycopg://me:secret@127.0.0.1:1/x", "list"],
            "postgresql+psycopg://me:***@127.0.0.1:1/x cannot be read: connection failed",
        ),
        (["--store", "{store}", "show", "none"], "there is no run 'none'"),
        (
            ["--store", "{store}", "show", "id-"],
            "3 runs have ids that begin with 'id-': say more of",
        ),
        (["--store", "{store}", "list", "--state", "lost"], "there is no state 'lost'"),
        (["--store", "{store}", "list", "--limit", "0"], "--limit 0 is not 1 or more"),
    ],
)
def test_mistakes_are_one_clear_line(
    arguments: list[str], said: str, store: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And leave what is not theirs as it was."""
    monkeypatch.delenv("AGENTLOOP_STORE", raising=False)
    monkeypatch.chdir(store.parent)
    files = {kind: store.parent / f"{kind}.db" for kind in ("other", "junk", "newer")}
    by_hand(files["other"], "CREATE TABLE users (name TEXT)")
    by_hand(files["newer"], "CREATE TABLE agentloop_schema (version INTEGER NOT NULL)")
    by_hand(files["newer"], "INSERT INTO agentloop_schema VALUES (99)")
    files["junk"].write_text("no database" * 1000)
    assert main(["runs", *(each.format(store=store, **files) for each in arguments)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert "secret" not in line
    assert not Path("nowhere.db").exists()
    assert {kind: tables(files[kind]) for kind in ("other", "newer")} == {
        "other": ["users"],
        "newer": ["agentloop_schema"],
    }
    assert files["junk"].read_text() == "no database" * 1000


def by_hand(file: Path, sql: str) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute(sql)
    connection.close()


def tables(file: Path) -> list[str]:
    with sqlite3.connect(file) as connection:
        found = connection.execute("SELECT name FROM sqlite_master").fetchall()
    connection.close()
    return [name for (name,) in found]


def test_a_task_that_waits_for_its_client_is_not_there_to_be_taken_up(
    store: Path, capsys: Any
) -> None:
    assert main(["runs", "--store", str(store), "resume", "id-0"]) == 1
    assert "the task waits for its client" in capsys.readouterr().err
    assert status(store, "id-0") is Status.INPUT_REQUIRED


def test_a_run_is_found_among_many_by_how_its_id_begins(store: Path, capsys: Any) -> None:
    """And by the whole of it, where others go on from there."""

    async def fill() -> None:
        async with tasks_in(store) as tasks:
            await tasks.create(replace(task(7), id="id-7%", call="x"))
            await tasks.create(replace(task(7), id="id-7%_more", call="y"))
            for number in range(100, 150):
                await tasks.create(task(number))

    anyio.run(fill)
    for wanted, found in (("id-7%_", "id-7%_more"), ("id-7%", "id-7%"), ("id-149", "id-149")):
        assert main(["runs", "--store", str(store), "show", wanted]) == 0
        shown = json.loads(capsys.readouterr().out)
        assert (shown["id"], shown["kind"], shown["state"]) == (found, "task", "queued")


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


# --- durable runs --------------------------------------------------------------------------------


class Gate:
    """Holds tools in the middle of their runs until it is opened."""

    def __init__(self) -> None:
        self.reached, self.opened = anyio.Event(), anyio.Event()


def durable_agent(url: str, gate: Gate) -> Any:
    """A durable agent whose tool waits at the gate, and the engine to enter."""
    if url.startswith("sqlite"):
        needs_engine_on_sqlite()
    durable = pytest.importorskip("agentloop.durable").Durable(url, lease=0.6)

    async def wait() -> str:
        """Wait."""
        gate.reached.set()
        await gate.opened.wait()
        return "passed"

    def model(request: Any) -> Any:
        asked = sum(message.role == "assistant" for message in request.messages)
        return "Done." if asked else use("wait")

    provider = ScriptedProvider(model, repeat=True)
    return durable, durable.agent(Agent("waiter", tools=[wait]), provider=provider)


async def operated(store: str, *arguments: str) -> tuple[int, str]:
    """``agentloop runs`` beside this event loop: how it ended, and all that it said."""

    def execute() -> tuple[int, str]:
        # Not pytest's capture: the engine's log keeps the stream that it finds for good.
        with redirect_stdout(StringIO()) as said, redirect_stderr(said):
            return main(["runs", "--store", store, *arguments]), said.getvalue()

    return await anyio.to_thread.run_sync(execute)


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/both.db"
    server = sqlalchemy.make_url(request.getfixturevalue("postgres"))
    engine = sqlalchemy.create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("CREATE DATABASE operated"))
    engine.dispose()
    return server.set(database="operated").render_as_string(hide_password=False)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.timeout(60)
async def test_durable_runs_are_seen_and_steered_beside_tasks(database: str) -> None:
    gate = Gate()
    durable, waiter = durable_agent(database, gate)
    store = SQLStore(database)
    await store.tasks.create(replace(task(0), id="beside"))
    await store.close()
    async with durable:
        kept = await waiter.start("Wait.", id="kept")
        await gate.reached.wait()
        dropped = await waiter.start("Wait.", id="dropped")
        code, out = await operated(database, "list")
        rows = {line.split()[0]: line for line in out.splitlines()[1:-1]}
        assert code == 0
        assert "durable" in rows["kept"]
        assert "waiter" in rows["kept"]
        assert "running" in rows["kept"]
        assert "task" in rows["beside"]
        assert out.splitlines()[-1] == "1 queued, 2 running"
        assert await operated(database, "cancel", "drop") == (0, "cancelled: dropped\n")
        with pytest.raises(RunCancelled):
            await dropped.result()
        for verb in ("cancel", "resume"):
            code, told = await operated(database, verb, "dropped")
            assert (code, told) == (1, "agentloop: the run has ended already: it is cancelled\n")
        gate.opened.set()
        assert (await kept.result()).text == "Done."
        told = await operated(database, "cancel", "kept")
        assert told == (1, "agentloop: the run has ended already: it is completed\n")
    code, out = await operated(database, "list", "--state", "completed", "--json")
    assert [json.loads(line)["id"] for line in out.splitlines()] == ["kept"]
    code, out = await operated(database, "show", "kept")
    shown = json.loads(out)
    assert (shown["kind"], shown["state"]) == ("durable", "completed")
    assert shown["order"]["run"]["messages"][0]["content"][0]["text"] == "Wait."
    assert [step["error"] for step in shown["steps"]] == [None] * len(shown["steps"])
    assert "Done." in json.dumps(shown["result"])


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.timeout(60)
async def test_a_durable_run_is_resumed_while_its_process_does_not_get_on(
    tmp_path: Path,
) -> None:
    gate = Gate()
    url = f"sqlite:///{tmp_path}/runs.db"
    durable, waiter = durable_agent(url, gate)
    async with durable:
        run = await waiter.start("Wait.", id="stuck")
        await gate.reached.wait()
        gate.reached = anyio.Event()
        assert await operated(url, "resume", "stuck") == (
            0,
            "free to be taken up: stuck\n",
        )
        with anyio.fail_after(20):
            await gate.reached.wait()  # it is worked on once more, from where it was
        gate.opened.set()
        assert (await run.result()).text == "Done."


def test_without_a_database_library_it_says_what_to_install(store: Path) -> None:
    hidden = "import sys; sys.modules['sqlalchemy'] = None; from agentloop.cli import main; "
    listing = f"{hidden}sys.exit(main(['runs', '--store', {str(store)!r}, 'list']))"
    command = [sys.executable, "-c", listing]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "pip install 'mcp-agentloop[store]'" in line


def test_without_the_engine_tasks_are_seen_as_long_as_there_are_no_durable_runs(
    store: Path,
) -> None:
    hidden = "import sys; sys.modules['dbos'] = None; from agentloop.cli import main; "
    listing = f"{hidden}sys.exit(main(['runs', '--store', {str(store)!r}, 'list']))"
    command = [sys.executable, "-c", listing]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 queued, 1 waiting, 1 completed" in done.stdout
    with sqlite3.connect(store) as connection:  # the engine's table
        connection.execute("CREATE TABLE workflow_status (workflow_uuid TEXT)")
    connection.close()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "this store holds durable runs: pip install 'mcp-agentloop[dbos]'" in line
