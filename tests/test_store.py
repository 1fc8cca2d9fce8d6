"""Stores: one suite, run against each of them."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import MCPError
from mcp.server.mcpserver import MCPServer
from structlog.testing import capture_logs

from agentloop import Agent
from agentloop.errors import DefinitionError
from agentloop.mcp import mount
from agentloop.store import (
    Busy,
    Claim,
    Entered,
    MemoryStore,
    Round,
    Settled,
    StaleOwnerError,
    StoreError,
    UnknownRoundError,
)
from agentloop.testing import MockClient
from agentloop_providers import ScriptedProvider

sqlalchemy = pytest.importorskip("sqlalchemy")

from agentloop.sql_store import SQLiteStore, SQLStore  # noqa: E402

KEEP = 60.0


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    if request.param == "memory":
        yield MemoryStore()
        return
    made = (
        SQLiteStore(tmp_path / "store.db")
        if request.param == "sqlite"
        else SQLStore(request.getfixturevalue("postgres"))
    )
    yield made
    await made.close()


def name() -> str:
    return os.urandom(8).hex()


async def entered(found: Any) -> Round:
    assert isinstance(found, Entered), found
    return found.round


async def test_a_round_is_entered_by_one_owner_at_a_time(store: Any) -> None:
    call = name()
    await entered(await store.begin(call, lease=30, keep=KEEP))
    assert await store.begin(call, lease=30, keep=KEEP) == Busy()


async def test_a_settled_round_gives_its_outcome_to_whoever_brings_it_again(store: Any) -> None:
    call = name()
    held = await entered(await store.begin(call, lease=30, keep=KEEP))
    await store.settle(held, "the outcome", next_state="the state")
    for _ in range(3):
        assert await store.begin(call, lease=30, keep=KEEP) == Settled("the outcome")
    following = await entered(await store.enter(call, 1, "answers", lease=30))
    assert (following.state, following.answers) == ("the state", "answers")


async def test_the_answers_that_count_are_the_first_ones(store: Any) -> None:
    call = name()
    held = await entered(await store.begin(call, lease=30, keep=KEEP))
    await store.settle(held, "asks", next_state="s")
    first = await entered(await store.enter(call, 1, "first", lease=30))
    await store.release(first)
    again = await entered(await store.enter(call, 1, "second", lease=30))
    assert again.answers == "first"


async def test_a_round_whose_lease_ran_out_is_taken_over_and_its_former_owner_refused(
    store: Any,
) -> None:
    call = name()
    stale = await entered(await store.begin(call, lease=0.05, keep=KEEP))
    await anyio.sleep(0.1)
    owner = await entered(await store.begin(call, lease=30, keep=KEEP))
    assert owner.epoch == stale.epoch + 1
    for refused in (
        store.settle(stale, "mine", next_state=None),
        store.renew(stale, lease=30),
        store.release(stale),
        store.claim(stale, "effect"),
        store.record(stale, "effect", "result"),
        store.append(stale, "entry"),
    ):
        with pytest.raises(StaleOwnerError):
            await refused
    await store.settle(owner, "yours", next_state=None)
    assert await store.begin(call, lease=30, keep=KEEP) == Settled("yours")


async def test_a_call_can_be_forgotten_with_all_that_was_claimed_in_it(store: Any) -> None:
    call = name()
    held = await entered(await store.begin(call, lease=30, keep=KEEP))
    await store.claim(held, "pay")
    await store.forget(call)
    with pytest.raises(StaleOwnerError):
        await store.claim(held, "pay")
    anew = await entered(await store.begin(call, lease=30, keep=KEEP))
    assert await store.claim(anew, "pay") == Claim(new=True)
    await store.forget("never was")


async def test_a_renewed_lease_holds(store: Any) -> None:
    call = name()
    held = await entered(await store.begin(call, lease=0.05, keep=KEEP))
    await store.renew(held, lease=30)
    await anyio.sleep(0.1)
    assert await store.begin(call, lease=30, keep=KEEP) == Busy()


async def test_an_effect_is_claimed_once_and_its_result_is_remembered_over_takeovers(
    store: Any,
) -> None:
    call = name()
    first = await entered(await store.begin(call, lease=0.05, keep=KEEP))
    assert await store.claim(first, "pay") == Claim(new=True)
    assert await store.claim(first, "pay") == Claim(new=False, result=None)
    await anyio.sleep(0.1)
    second = await entered(await store.begin(call, lease=30, keep=KEEP))
    assert await store.claim(second, "pay") == Claim(new=False, result=None)
    await store.record(second, "pay", "paid")
    assert await store.claim(second, "pay") == Claim(new=False, result="paid")


async def test_of_many_that_claim_at_once_one_is_the_first(store: Any) -> None:
    call = name()
    held = await entered(await store.begin(call, lease=30, keep=KEEP))
    claims: list[Claim] = []

    async def claim() -> None:
        claims.append(await store.claim(held, "pay"))

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(claim)
    assert sorted(c.new for c in claims) == [False] * 19 + [True]


async def test_what_many_write_down_at_once_is_all_there(store: Any) -> None:
    call = name()
    held = await entered(await store.begin(call, lease=30, keep=KEEP))
    async with anyio.create_task_group() as group:
        for number in range(40):
            group.start_soon(store.append, held, f"entry {number}")
    await store.release(held)
    again = await entered(await store.begin(call, lease=30, keep=KEEP))
    assert sorted(again.entries) == sorted(f"entry {number}" for number in range(40))


async def test_whoever_is_taken_over_while_it_writes_has_written_before_or_is_refused(
    store: Any,
) -> None:
    """What the next owner does not find when it enters is never written by the former one."""
    for _ in range(15):
        call = name()
        stale = await entered(await store.begin(call, lease=0.0, keep=KEEP))
        refused: list[str] = []
        found: list[Round] = []

        async def write(stale: Round, refused: list[str], entry: str) -> None:
            try:
                await store.append(stale, entry)
            except StaleOwnerError:
                refused.append(entry)

        async def take_over(call: str, found: list[Round]) -> None:
            found.append(await entered(await store.begin(call, lease=0.0, keep=KEEP)))

        async with anyio.create_task_group() as group:
            for number in range(6):
                group.start_soon(write, stale, refused, f"entry {number}")
                if number == 2:
                    group.start_soon(take_over, call, found)
        owner = found[0]
        assert sorted([*owner.entries, *refused]) == [f"entry {number}" for number in range(6)]


async def test_of_many_that_enter_at_once_one_gets_in(store: Any) -> None:
    call = name()
    found: list[Any] = []

    async def begin() -> None:
        found.append(await store.begin(call, lease=30, keep=KEEP))

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(begin)
    assert sum(isinstance(f, Entered) for f in found) == 1
    assert found.count(Busy()) == 19


async def test_an_unknown_round_and_an_expired_one_are_refused(store: Any) -> None:
    with pytest.raises(UnknownRoundError):
        await store.enter(name(), 3, "", lease=30)
    call = name()
    held = await entered(await store.begin(call, lease=0.01, keep=0.05))
    await store.settle(held, "asks", next_state="s")
    await anyio.sleep(0.1)
    with pytest.raises(UnknownRoundError):
        await store.enter(call, 1, "", lease=30)


@pytest.mark.parametrize("call", ["", "nobody's", "h\0", "h\ud800", "h" * 100_000])
async def test_a_name_that_no_call_can_have_is_an_unknown_one(store: Any, call: str) -> None:
    """A client may name a call as it likes: no database's own error comes of it."""
    with pytest.raises(UnknownRoundError):
        await store.enter(call, 0, "", lease=30)


async def test_sweeping_forgets_what_has_expired_and_nothing_else(store: Any) -> None:
    old, young = name(), name()
    held = await entered(await store.begin(old, lease=0.01, keep=0.05))
    await store.claim(held, "pay")
    kept = await entered(await store.begin(young, lease=30, keep=KEEP))
    await anyio.sleep(0.1)
    assert await store.sweep() >= 1
    await store.settle(kept, "done", next_state=None)
    assert await store.begin(young, lease=30, keep=KEEP) == Settled("done")


async def test_a_state_of_any_size_is_kept(store: Any) -> None:
    call, state = name(), "x" * 5_000_000 + "é\u2028"
    held = await entered(await store.begin(call, lease=30, keep=KEEP))
    await store.settle(held, "asks", next_state=state)
    assert (await entered(await store.enter(call, 1, "", lease=30))).state == state


async def test_two_stores_on_one_file_see_the_same(tmp_path: Path) -> None:
    one, two = SQLiteStore(tmp_path / "s.db"), SQLiteStore(tmp_path / "s.db")
    held = await entered(await one.begin("c", lease=30, keep=KEEP))
    assert await two.begin("c", lease=30, keep=KEEP) == Busy()
    await two.settle(held, "over", next_state=None)
    assert await one.begin("c", lease=30, keep=KEEP) == Settled("over")
    await one.close()
    await two.close()


async def test_a_store_that_is_out_of_reach_says_so_without_its_password() -> None:
    store = SQLStore("postgresql+psycopg://me:s3cret@127.0.0.1:9/none?connect_timeout=1")
    with pytest.raises(StoreError) as raised:
        await store.begin("c", lease=30, keep=KEEP)
    assert "s3cret" not in f"{raised.value}{store!r}"
    await store.close()


async def test_a_schema_from_the_future_is_refused(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "s.db")
    await store.sweep()
    with store._engine.begin() as connection:
        connection.execute(sqlalchemy.text("UPDATE agentloop_schema SET version = 99"))
    await store.close()
    newer = SQLiteStore(tmp_path / "s.db")
    with pytest.raises(StoreError, match="schema version 99"):
        await newer.sweep()
    await newer.close()


@pytest.mark.parametrize(
    ("file", "why"),
    [
        ("nowhere/runs.db", "unable to open database file"),
        ("", "unable to open database file"),
        ("text.db", "file is not a database"),
        ("other.db", "no such column"),
    ],
)
async def test_a_file_that_cannot_be_a_store_fails_with_the_reason(
    tmp_path: Path, file: str, why: str
) -> None:
    """The author finds it in the log; the client is told that it may come again."""
    (tmp_path / "text.db").write_text("This is no database. " * 100)
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE agentloop_schema (something)")
    store = SQLiteStore(tmp_path / file)
    server = MCPServer("host", log_level="CRITICAL")
    mount(server, Agent("any"), store=store)

    async with MockClient(server, ScriptedProvider("hi"), carrier="rounds") as client:
        with capture_logs() as lines, pytest.raises(MCPError, match="again later"):
            await client.call_tool("any", {"prompt": "go"})
    with pytest.raises(StoreError, match=why):
        await store.sweep()
    await store.close()

    [line] = [line for line in lines if line["event"] == "store_failed"]
    assert why in line["error"]
    assert file in line["store"]


async def test_a_file_that_another_holds_is_waited_for(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "runs.db")
    await store.sweep()
    with closing(sqlite3.connect(tmp_path / "runs.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                group.start_soon(store.sweep)
                await anyio.sleep(0.2)
                other.execute("COMMIT")
    await store.close()


async def test_a_file_may_be_called_anything(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "a?b#c %41.db")
    await store.sweep()
    await store.close()
    assert os.listdir(tmp_path) == ["a?b#c %41.db"]


def test_a_url_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(DefinitionError, match="URL"):
        SQLStore("no url at all")


async def test_what_was_written_down_is_there_for_whoever_enters_again(store: Any) -> None:
    call = name()
    held = await entered(await store.begin(call, lease=30, keep=KEEP))
    for entry in ("first", "second"):
        await store.append(held, entry)
    await store.release(held)
    again = await entered(await store.begin(call, lease=30, keep=KEEP))
    assert again.entries == ("first", "second")
    with pytest.raises(StaleOwnerError):
        await store.append(held, "late")
    await store.append(again, "third")
    await store.settle(again, "the outcome", next_state="s")
    following = await entered(await store.enter(call, 1, "", lease=30))
    assert following.entries == ()


async def test_of_operations_that_come_together_one_that_is_refused_is_alone(store: Any) -> None:
    stale = await entered(await store.begin(name(), lease=0.05, keep=KEEP))
    await anyio.sleep(0.1)
    await entered(await store.begin(stale.call, lease=30, keep=KEEP))
    owners = [await entered(await store.begin(name(), lease=30, keep=KEEP)) for _ in range(5)]
    came: dict[str, Any] = {}

    async def claim(round: Round) -> None:
        try:
            came[round.call] = await store.claim(round, "pay")
        except StaleOwnerError:
            came[round.call] = "refused"

    async with anyio.create_task_group() as group:
        for round in (*owners[:2], stale, *owners[2:]):
            group.start_soon(claim, round)
    assert came.pop(stale.call) == "refused"
    assert came == {owner.call: Claim(new=True) for owner in owners}
    for owner in owners:
        assert await store.claim(owner, "pay") == Claim(new=False)


async def test_operations_that_come_together_take_one_transaction(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "store.db")
    commits: list[Any] = []
    owners = [await entered(await store.begin(name(), lease=30, keep=KEEP)) for _ in range(20)]
    sqlalchemy.event.listen(store._engine, "commit", commits.append)
    async with anyio.create_task_group() as group:
        for owner in owners:
            group.start_soon(store.claim, owner, "pay")
    await store.close()
    assert len(commits) == 1


async def test_connections_that_were_cut_while_they_were_idle_are_made_anew(postgres: str) -> None:
    store = SQLStore(postgres, connections=2)
    held = await entered(await store.begin(name(), lease=30, keep=KEEP))
    engine = sqlalchemy.create_engine(postgres, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(
            sqlalchemy.text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND datname = current_database()"
            )
        )
    engine.dispose()
    await anyio.sleep(1.1)
    assert await store.claim(held, "pay") == Claim(new=True)
    await store.close()


async def test_an_owner_that_is_paused_in_a_transaction_does_not_keep_the_round(
    postgres: str,
) -> None:
    paused, other = SQLStore(postgres, lease=0.3), SQLStore(postgres)
    held = await entered(await paused.begin(name(), lease=0.3, keep=KEEP))
    awake = threading.Event()

    def pause(connection: Any) -> None:
        lock = "SELECT epoch FROM agentloop_rounds WHERE call = :call FOR UPDATE"
        connection.execute(sqlalchemy.text(lock), {"call": held.call}).one()
        awake.wait(10)

    async def write() -> None:
        with pytest.raises(StoreError):
            await paused._do(pause)

    async with anyio.create_task_group() as group:
        group.start_soon(write)
        await anyio.sleep(0.5)
        with anyio.fail_after(5):
            await entered(await other.begin(held.call, lease=30, keep=KEEP))
        awake.set()
    await paused.close()
    await other.close()
