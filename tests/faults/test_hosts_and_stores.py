"""Stores that are down, slow, full or damaged; and clocks that jump."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.server.lowlevel import Server
from mcp.server.request_state import RequestStateSecurity
from pydantic import BaseModel

from agentloop import Agent, Limits, ask_user, idempotency_key, tool
from agentloop.ledger import UNKNOWN
from agentloop.mcp import mount, seal
from agentloop.mcp.request import IDEMPOTENCY_KEY
from agentloop.run import Stop
from agentloop.sql_store import SQLiteStore
from agentloop.store import MemoryStore, StaleOwnerError, Store, StoreError
from agentloop_providers import ScriptedProvider
from agentloop_providers.scripted import use
from tests.faults.kit import GO, PROVIDER, STORED, Model, calls, play, says, text
from tests.faults.wire import PEOPLE, Rejected, connected

pytestmark = pytest.mark.usefixtures("no_leaks")

WORDS = says(text("ok"))


def pay(amount: int) -> dict[str, Any]:
    return calls("pay", amount=amount)


class Flaky(MemoryStore):
    """A store that fails, or takes its time, in some of its operations."""

    def __init__(self, **options: float) -> None:
        super().__init__(**options)
        self.down: set[str] = set()
        self.seconds = 0.0
        self.done: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in OPERATIONS:
            return found

        async def operation(*args: Any, **kwargs: Any) -> Any:
            await anyio.sleep(self.seconds)
            if name in self.down:
                raise StoreError("the store failed with OperationalError")
            self.done.append(name)
            return await found(*args, **kwargs)

        return operation


OPERATIONS = ("begin", "enter", "renew", "append", "settle", "release", "claim", "record")


class Shop:
    """A server with a tool that pays once, and what was paid."""

    def __init__(self, store: Store) -> None:
        self.paid: list[int] = []
        self.keys: list[str] = []

        @tool(once=True)
        async def pay(amount: int) -> str:
            """Pay."""
            self.paid.append(amount)
            self.keys.append(idempotency_key())
            return f"paid {amount}"

        self.agent = Agent("shop", tools=[pay])
        self.server: Server[Any] = Server("faults")
        seal(self.server, RequestStateSecurity(keys=[b"k" * 32]))
        mount(self.server, self.agent, store=store)

    def open(self) -> Any:
        return connected(self.server, Model().answer, modern=True)


def execute(file: Path, *statements: str, given: tuple[str, ...] = ()) -> None:
    """Do something to a database behind the back of its store."""
    with sqlite3.connect(file) as database:
        for statement in statements:
            database.execute(statement, given)


async def out_of_reach(round_: Awaitable[Any]) -> None:
    """The round is answered with the error that says so, and not with a result."""
    with pytest.raises(Rejected) as rejected:
        await round_
    assert (rejected.value.code, rejected.value.data) == (
        -32603,
        {"reason": "store", "retryable": True},
    )


@pytest.mark.fault("B70")
@pytest.mark.parametrize("operation", ["begin", "enter", "claim", "settle", "record"])
async def test_a_store_that_is_down(carrier: str, operation: str) -> None:
    """No effect without a claim; when the store is back, the same request goes on."""
    store = Flaky(lease=0.1)
    shop = Shop(store)
    async with shop.open() as wire:
        if operation == "begin":
            store.down = {"begin"}
            await out_of_reach(wire.round("shop", GO))
            store.down = set()
        first = await wire.round("shop", GO)
        again: Any = {"answers": {"0:0": says(pay(1))}, "state": first["requestState"]}
        store.down = {operation}
        if operation != "begin":
            await out_of_reach(wire.round("shop", GO, **again))
        assert shop.paid == ([1] if operation in ("settle", "record") else [])
        store.down = set()
        second = await wire.round("shop", GO, **again)
        told = str(second["inputRequests"])
        assert ("paid 1" in told) != (UNKNOWN in told)
        assert (UNKNOWN in told) == (operation == "record")
        done = {"answers": {"0:1": WORDS}, "state": second["requestState"]}
        assert (await wire.round("shop", GO, **done))["structuredContent"] == {"result": "ok"}
    assert shop.paid == [1]


@pytest.mark.fault("B70")
@pytest.mark.parametrize("operation", ["settle", "record"])
async def test_a_store_that_is_down_for_a_moment(carrier: str, operation: str) -> None:
    """What has happened is written as soon as the store is back, and nobody notices."""
    store = Flaky(lease=2)
    shop = Shop(store)
    async with shop.open() as wire, anyio.create_task_group() as group:
        first = await wire.round("shop", GO)
        store.down = {operation}

        async def come_back() -> None:
            await anyio.sleep(0.2)
            store.down = set()

        group.start_soon(come_back)
        second = await wire.round(
            "shop", GO, answers={"0:0": says(pay(1))}, state=first["requestState"]
        )
        assert "paid 1" in str(second["inputRequests"])
    assert shop.paid == [1]


@pytest.mark.fault("B70")
async def test_a_store_that_is_slow(carrier: str) -> None:
    """Slower than its leases: they are renewed meanwhile, or the round is fenced; never twice."""
    store = Flaky(lease=0.3)
    store.seconds = 0.05
    shop = Shop(store)
    async with shop.open() as wire:
        first = await wire.round("shop", GO)
        again: Any = {"answers": {"0:0": says(pay(1))}, "state": first["requestState"]}
        given: list[Any] = []

        async def send() -> None:
            given.append(await wire.round("shop", GO, **again))

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(send)
    assert shop.paid == [1]
    assert all(result["inputRequests"] == given[0]["inputRequests"] for result in given)


@pytest.mark.fault("B70")
async def test_leases_that_cannot_be_renewed(carrier: str, logs: list[Any]) -> None:
    store = Flaky(lease=0.09)

    @tool(once=True)
    async def slow() -> str:
        await anyio.sleep(0.3)
        return "done"

    server: Server[Any] = Server("faults")
    mount(server, Agent("shop", tools=[slow]), store=store)
    async with connected(server, Model().answer, modern=True) as wire:
        first = await wire.round("shop", GO)
        store.down = {"renew"}
        second = await wire.round(
            "shop", GO, answers={"0:0": says(calls("slow"))}, state=first["requestState"]
        )
    assert "done" in str(second["inputRequests"]), "nobody took it over, so it is still its owner's"
    assert "lease_not_renewed" in {line["event"] for line in logs}


@pytest.mark.fault("B70")
async def test_a_file_that_is_no_database(carrier: str, tmp_path: Path) -> None:
    file = tmp_path / "s.db"
    file.write_bytes(b"garbage" * 1000)
    store = SQLiteStore(file)
    async with Shop(store).open() as wire:
        await out_of_reach(wire.round("shop", GO))
    await store.close()


@pytest.mark.fault("B70")
async def test_a_folder_that_is_not_there(carrier: str, tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "later" / "s.db")
    async with Shop(store).open() as wire:
        await out_of_reach(wire.round("shop", GO))
        (tmp_path / "later").mkdir()
        assert "inputRequests" in await wire.round("shop", GO)
    await store.close()


@pytest.mark.fault("B70")
@pytest.mark.timeout(15)
async def test_a_disk_that_is_full(carrier: str, tmp_path: Path) -> None:
    """A database that may not grow: the round is refused and stays as it was."""
    store = SQLiteStore(tmp_path / "s.db", lease=0.1)
    shop = Shop(store)
    async with shop.open() as wire:
        first = await wire.round("shop", GO)
        again: Any = {"answers": {"0:0": says(pay(1))}, "state": first["requestState"]}
        execute(
            tmp_path / "s.db",
            # It fails as a full disk does: in the middle of a transaction.
            "CREATE TRIGGER full BEFORE INSERT ON agentloop_claims "
            "BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END",
        )
        await out_of_reach(wire.round("shop", GO, **again))
        assert shop.paid == []
        execute(tmp_path / "s.db", "DROP TRIGGER full")
        second = await wire.round("shop", GO, **again)
        assert "paid 1" in str(second["inputRequests"])
    assert shop.paid == [1]
    await store.close()


@pytest.mark.fault("B70")
@pytest.mark.parametrize(
    ("column", "junk"),
    [("state", "junk"), ("outcome", "{"), ("outcome", "[]"), ("outcome", '{"asks": 7}')],
)
async def test_a_damaged_row(carrier: str, column: str, junk: str, tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "s.db", lease=0.1)
    shop = Shop(store)
    async with shop.open() as wire:
        first = await wire.round("shop", GO)
        again: Any = {"answers": {"0:0": says(pay(1))}, "state": first["requestState"]}
        if column == "outcome":
            await wire.round("shop", GO, **again)
        damage = f"UPDATE agentloop_rounds SET {column} = ? WHERE number = 1"
        execute(tmp_path / "s.db", damage, given=(junk,))
        with pytest.raises(Rejected) as rejected:
            await wire.round("shop", GO, **again)
        assert rejected.value.code in (-32602, -32603)
        assert rejected.value.data["reason"] in ("store", "state_mismatch")
    assert len(shop.paid) <= 1
    await store.close()


@pytest.mark.fault("B70")
async def test_damaged_answers(carrier: str, tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "s.db", lease=0.1)
    shop = Shop(store)
    async with shop.open() as wire:
        first = await wire.round("shop", GO)
        execute(tmp_path / "s.db", "UPDATE agentloop_rounds SET answers = '{' WHERE number = 1")
        again: Any = {"answers": {"0:0": says(pay(1))}, "state": first["requestState"]}
        await out_of_reach(wire.round("shop", GO, **again))
        execute(tmp_path / "s.db", "UPDATE agentloop_rounds SET answers = NULL WHERE number = 1")
        await wire.round("shop", GO, **again)
    assert shop.paid == [1]
    await store.close()


@pytest.mark.fault("B70")
async def test_a_damaged_result_of_a_claim(carrier: str, tmp_path: Path) -> None:
    """A call whose record cannot be read is not run again."""
    store = SQLiteStore(tmp_path / "s.db", lease=0.1)
    shop = Shop(store)
    async with shop.open() as wire:
        first = await wire.round("shop", GO)
        execute(
            tmp_path / "s.db",
            "CREATE TRIGGER damage AFTER UPDATE OF result ON agentloop_claims WHEN NEW.result "
            "LIKE '%paid%' BEGIN UPDATE agentloop_claims SET result = '{' ; END",
            "CREATE TRIGGER lost BEFORE UPDATE OF outcome ON agentloop_rounds "
            "BEGIN SELECT RAISE(ABORT, 'lost'); END",
        )
        again: Any = {"answers": {"0:0": says(pay(1))}, "state": first["requestState"]}
        await out_of_reach(wire.round("shop", GO, **again))
        assert shop.paid == [1]
        await out_of_reach(wire.round("shop", GO, **again))
    assert shop.paid == [1]
    await store.close()


@pytest.mark.fault("B69")
async def test_what_a_stale_owner_does_is_stopped(carrier: str) -> None:
    """A replica that finds its round taken stops its tools, and gives what comes of it there."""
    store = MemoryStore(lease=0.15)
    stopped: list[str] = []
    ran: list[str] = []
    begun = anyio.Event()

    @tool(timeout=None)
    async def slow() -> str:
        ran.append("begun")
        begun.set()
        try:
            await anyio.sleep(2 if len(ran) == 1 else 0)
        finally:
            stopped.append("stopped")
        return "done"

    server: Server[Any] = Server("faults")
    mount(server, Agent("shop", tools=[slow]), store=store)
    async with connected(server, Model().answer, modern=True) as wire:
        first = await wire.round("shop", GO)
        again: Any = {"answers": {"0:0": says(calls("slow"))}, "state": first["requestState"]}
        given: list[Any] = []

        async def send() -> None:
            given.append(await wire.round("shop", GO, **again))

        began = time.monotonic()
        async with anyio.create_task_group() as group:
            group.start_soon(send)
            await begun.wait()
            (found,) = store._calls.values()
            row = found.rounds[1]
            found.rounds[1] = type(row)(  # as if its lease had run out while it was paused
                row.state, row.answers, row.epoch, 0.0
            )
            group.start_soon(send)
    assert time.monotonic() - began < 1.5
    assert given[0]["inputRequests"] == given[1]["inputRequests"]
    assert len(stopped) == 2


async def test_every_write_of_a_stale_owner_is_refused() -> None:
    store = MemoryStore()
    stale = (await store.begin("c", lease=0, keep=60)).round  # type: ignore[union-attr]
    await anyio.sleep(0.01)
    await store.begin("c", lease=60, keep=60)
    writes: list[Callable[[], Awaitable[Any]]] = [
        lambda: store.append(stale, "mine"),
        lambda: store.settle(stale, "mine", next_state=None),
        lambda: store.renew(stale, lease=1),
        lambda: store.release(stale),
        lambda: store.claim(stale, "effect"),
        lambda: store.record(stale, "effect", "mine"),
    ]
    for write in writes:
        with pytest.raises(StaleOwnerError):
            await write()


class Form(BaseModel):
    city: str


async def test_a_tool_that_must_not_run_twice_cannot_wait_for_the_client() -> None:
    """It would have to be begun again in the next round; so it is told no, and is not stuck."""
    helper = Agent("helper")

    @tool(once=True)
    async def order() -> str:
        return (await ask_user("Where to?", Form)).city

    @tool(once=True)
    async def consult() -> str:
        return (await helper.run("Well?")).run.error or "no error"

    server: Server[Any] = Server("faults")
    mount(server, Agent("shop", tools=[order, consult]), store=MemoryStore())
    model = Model([use("order"), use("consult")], "ok")
    async with connected(server, model.answer, modern=True, capabilities=PEOPLE) as wire:
        result = await wire.call("shop", GO)
    assert result["structuredContent"] == {"result": "ok"}
    assert str(model.requests[-1]).count("cannot wait for the client while it runs") == 2


# --- clocks ------------------------------------------------------------------------------------


class Clock:
    """The wall clock of this process, which can be set."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.ahead = 0.0
        real = time.time
        patch.setattr(time, "time", lambda: real() + self.ahead)


DAY = 86_400.0


@pytest.mark.fault("B71", on=(PROVIDER,))
@pytest.mark.parametrize("ahead", [DAY, -DAY])
async def test_a_jump_in_the_middle_of_a_run(
    carrier: str, ahead: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)

    async def jump() -> str:
        clock.ahead += ahead
        return "jumped"

    agent = Agent("worker", tools=[jump], limits=Limits(seconds=30, ask_seconds=5))
    played = await play(carrier, agent, [use("jump")], [use("jump")], "done")
    assert played.stop is Stop.DONE
    assert played.run.seconds < 5
    limited = Agent("worker", tools=[jump], limits=Limits(seconds=0.2))
    began = time.monotonic()
    played = await play(carrier, limited, [use("jump")], 30, "never")
    assert played.stop is Stop.SECONDS
    assert time.monotonic() - began < 2


@pytest.mark.fault("B71", on=(STORED,))
@pytest.mark.parametrize("ahead", [DAY, -DAY])
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_jump_while_a_round_is_held(
    carrier: str, kind: str, ahead: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Who holds it goes on; once it is gone, the next one need not wait for a day."""
    store: Any = (
        MemoryStore(lease=0.2) if kind == "memory" else SQLiteStore(tmp_path / "s.db", lease=0.2)
    )
    clock = Clock(monkeypatch)
    held = (await store.begin("call", lease=store.lease, keep=store.keep)).round
    clock.ahead = ahead
    await store.renew(held, lease=store.lease)
    await store.claim(held, "effect")
    clock.ahead = 0
    await store.renew(held, lease=store.lease)
    await store.settle(held, "outcome", next_state="state")

    held = (await store.enter("call", 1, "", lease=store.lease)).round
    clock.ahead = min(ahead, 0)
    await anyio.sleep(0.25)
    taken = (await store.enter("call", 1, "", lease=store.lease)).round
    assert taken.epoch == held.epoch + 1
    if kind == "sqlite":
        await store.close()


@pytest.mark.fault("B71")
async def test_a_jump_while_a_tool_runs(carrier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)

    async def jump() -> str:
        clock.ahead = DAY
        await anyio.sleep(0.01)
        clock.ahead = -DAY
        await anyio.sleep(0.01)
        clock.ahead = 0
        return "jumped"

    played = await play(carrier, Agent("worker", tools=[jump]), [use("jump")], "done")
    assert (played.stop, played.results) == (Stop.DONE, [("jumped", False)])


# --- idempotency -------------------------------------------------------------------------------


async def test_a_key_of_a_megabyte_is_a_key_like_any_other() -> None:
    store = MemoryStore()
    own = ScriptedProvider("mine")
    server: Server[Any] = Server("faults")
    mount(server, Agent("worker"), store=store, provider=own)
    async with connected(server, Model().answer, modern=True, capabilities={}) as wire:
        meta = {IDEMPOTENCY_KEY: "k" * 1_000_000}
        given = [await wire.round("worker", GO, meta=meta) for _ in range(2)]
    assert given[0] == given[1]
    assert max(len(call) for call in store._calls) < 80
