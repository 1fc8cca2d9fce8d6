"""Databases that fail at any operation: no effect without a claim, and nothing is lost."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.server.lowlevel import Server
from mcp_types import CreateMessageRequestParams

from agentloop import Agent, Limits, tool
from agentloop.ledger import UNKNOWN
from agentloop.mcp import mount
from agentloop.store import Claim, MemoryStore, Round, StoreError
from tests.faults.kit import STORED, check_history
from tests.faults.wire import JSON, Rejected, Wire, connected

sqlalchemy = pytest.importorskip("sqlalchemy")

from agentloop.sql_store import SQLiteStore, SQLStore  # noqa: E402

GO = {"prompt": "Go"}
PAY = {"type": "tool_use", "id": "c1", "name": "pay", "input": {}}
LEASE = 0.3
OUT_OF_REACH = {"reason": "store", "retryable": True}


class Till:
    """A tool that must not run twice, and what the model was told of it."""

    def __init__(self) -> None:
        self.paid = 0
        self.told = ""

    async def pay(self) -> str:
        """Pay."""
        self.paid += 1
        return "paid"

    async def answer(self, method: str, params: JSON) -> JSON:
        """Calls the tool, and then says what it heard of it."""
        check_history(CreateMessageRequestParams.model_validate(params).messages)
        last = params["messages"][-1]["content"]
        results = [b for b in last if b["type"] == "tool_result"] if isinstance(last, list) else []
        if results:
            self.told = results[0]["content"][0]["text"]
        said: JSON = {"type": "text", "text": "over"} if results else PAY
        return {"role": "assistant", "model": "m", "content": said}


@asynccontextmanager
async def calling(store: Any, till: Till) -> AsyncIterator[Wire]:
    agent = Agent("worker", tools=[tool(once=True)(till.pay)], limits=Limits(errors=None))
    server: Server[Any] = Server("till")
    mount(server, agent, store=store)
    async with connected(server, till.answer, modern=True) as wire:
        yield wire
    if isinstance(store, SQLStore):
        await store.close()


async def seen_through(wire: Wire, request: JSON, *, refusals: int = 3) -> JSON:
    """A call to its end; where the store fails, the same request is sent again."""
    while True:
        try:
            result = await wire.round("worker", GO, **request)
        except Rejected as rejected:
            if rejected.data != OUT_OF_REACH or not refusals:
                raise
            refusals -= 1
            continue
        if result["resultType"] != "input_required":
            return result
        request = {"answers": await wire.answers_to(result), "state": result["requestState"]}


class Failing(SQLiteStore):
    """Fails at one of its operations: before it is done, or when it is done and nobody hears."""

    def __init__(self, path: Path, at: int, *, done: bool) -> None:
        super().__init__(path, lease=LEASE)
        self.count = 0
        self._at, self._done = at, done
        self._lock = threading.Lock()

    def _transact(self, operations: Any) -> Any:
        with self._lock:
            first = self.count
            self.count += len(operations)
            fails = first < self._at <= self.count
        if fails and not self._done:
            raise StoreError("down for a moment")
        outcomes = super()._transact(operations)
        if fails:
            raise StoreError("lost on the way back")
        return outcomes


@pytest.mark.fault("B70", on=(STORED,))
@pytest.mark.timeout(60)
@pytest.mark.parametrize("done", [False, True], ids=["not done", "done unheard"])
async def test_every_operation_may_fail(tmp_path: Path, done: bool) -> None:
    """Whichever fails, the call ends with the tool run once, or said to be of unknown outcome."""
    at = 0
    while True:
        at += 1
        till, store = Till(), Failing(tmp_path / f"{at}.db", at, done=done)
        async with calling(store, till) as wire:
            result = await seen_through(wire, {})
        assert result["content"][0]["text"] == "over"
        assert (till.paid, till.told) in {(1, "paid"), (0, UNKNOWN)}, at
        if store.count < at:
            break
    assert at > 8


def run(url: str, *statements: str) -> None:
    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(sqlalchemy.text(statement))
    engine.dispose()


CUT_OFF = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'tills'"


@pytest.mark.fault("B70", on=(STORED,))
@pytest.mark.timeout(20)
async def test_a_database_that_cuts_all_off_and_comes_back(postgres: str) -> None:
    run(postgres, "DROP DATABASE IF EXISTS tills", "CREATE DATABASE tills")
    till = Till()
    store = SQLStore(postgres.removesuffix("/postgres") + "/tills", lease=LEASE)
    async with calling(store, till) as wire:
        first = await wire.round("worker", GO)
        again: JSON = {"answers": await wire.answers_to(first), "state": first["requestState"]}
        run(postgres, "ALTER DATABASE tills ALLOW_CONNECTIONS false", CUT_OFF)
        for _ in range(2):
            with pytest.raises(Rejected) as rejected:
                await wire.round("worker", GO, **again)
            assert rejected.value.data == OUT_OF_REACH
        assert till.paid == 0
        run(postgres, "ALTER DATABASE tills ALLOW_CONNECTIONS true")
        result = await seen_through(wire, again)
    assert result["content"][0]["text"] == "over"
    assert (till.paid, till.told) == (1, "paid")


class SlowToSave(MemoryStore):
    """Takes its time to save, and notes whether anything is claimed meanwhile."""

    saving = False
    claimed_meanwhile = False

    async def append(self, round: Round, entry: str) -> None:
        self.saving = True
        await anyio.sleep(0.05)
        await super().append(round, entry)
        self.saving = False

    async def claim(self, round: Round, key: str) -> Claim:
        self.claimed_meanwhile |= self.saving
        return await super().claim(round, key)


@pytest.mark.fault("B68", on=(STORED,))
async def test_nothing_is_claimed_before_what_led_to_it_is_saved() -> None:
    """Also of two calls at once, of which one finds that the other is saving already."""
    till, store = Till(), SlowToSave()
    async with calling(store, till) as wire:
        first = await wire.round("worker", GO)
        both = {"role": "assistant", "model": "m", "content": [PAY, {**PAY, "id": "c2"}]}
        await wire.round("worker", GO, answers={"0:0": both}, state=first["requestState"])
    assert till.paid == 2
    assert not store.claimed_meanwhile
