"""Stores of tasks: one suite, run against each of them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from agentloop.errors import StaleOwnerError, StoreError, TooManyTasksError
from agentloop.store import Entered, MemoryStore, Settled
from agentloop.task import (
    Status,
    Task,
    TaskLimits,
    answered,
    cancelled,
    finished,
    held,
    parked,
    released,
)

sqlalchemy = pytest.importorskip("sqlalchemy")

from agentloop.sql_store import SQLiteStore, SQLStore  # noqa: E402

ASK = {"0:0": {"method": "sampling/createMessage", "params": {"maxTokens": 1}}}
SQL = ["sqlite", "postgres"]


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a database, which holds no tasks of other tests."""
    kind: str = request.param
    if kind == "memory":
        return kind
    if kind == "sqlite":
        return f"sqlite:///{tmp_path / 'tasks.db'}"
    url: str = request.getfixturevalue("postgres")
    for table in ("agentloop_tasks", "agentloop_entries"):
        by_hand(url, f"DROP TABLE IF EXISTS {table}")
    by_hand(url, "CREATE TABLE IF NOT EXISTS agentloop_schema (version INTEGER NOT NULL)")
    by_hand(url, "UPDATE agentloop_schema SET version = 1")
    return url


@pytest.fixture
async def opened() -> AsyncIterator[Callable[[str], Any]]:
    """Opens stores, and closes them in the end."""
    stores: list[Any] = []

    def open_store(url: str) -> Any:
        if url == "memory":
            return MemoryStore()
        if url.startswith("sqlite"):
            stores.append(SQLiteStore(url.removeprefix("sqlite:///")))
        else:
            stores.append(SQLStore(url))
        return stores[-1]

    yield open_store
    for store in stores:
        await store.close()


@pytest.fixture
def tasks(url: str, opened: Callable[[str], Any]) -> Any:
    return opened(url).tasks


every_store = pytest.mark.parametrize("url", ["memory", *SQL], indirect=True)
databases = pytest.mark.parametrize("url", SQL, indirect=True)


def by_hand(url: str, sql: str, **values: Any) -> None:
    """What no store does."""
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text(sql), values)
    engine.dispose()


def new(**given: Any) -> Task:
    named = os.urandom(8).hex()
    return Task(**{"id": f"id-{named}", "call": f"call-{named}", "request": {"name": "t"}, **given})


async def all_at_once(work: Callable[[], Awaitable[Any]], times: int) -> list[Any]:
    came: list[Any] = []

    async def one() -> None:
        came.append(await work())

    async with anyio.create_task_group() as group:
        for _ in range(times):
            group.start_soon(one)
    return came


@every_store
async def test_a_task_is_kept_as_it_is(tasks: Any) -> None:
    """Everything comes back, text of any script and null included, with the store's own times."""
    task = new(
        principal="alice",
        caller={"client_id": "app", "claims": {"iss": None}},
        ttl=60.0,
        request={"name": "t", "arguments": {"text": "žluťoučký 🐎 \u0000", "none": None}},
        asks=ASK,
        status=Status.INPUT_REQUIRED,
        round=3,
    )
    kept = await tasks.create(task)
    assert kept.created == kept.updated > 1_700_000_000
    assert kept == replace(task, created=kept.created, updated=kept.created)
    assert await tasks.read(task.id) == kept
    assert await tasks.read("another") is None


@every_store
async def test_one_call_is_one_task_however_often_it_is_made(tasks: Any) -> None:
    first = await tasks.create(new(call="the call"))
    assert await tasks.create(new(call="the call")) == first
    came = await all_at_once(lambda: tasks.create(new(call="another call")), 10)
    assert len({task.id for task in came}) == 1
    assert len(await tasks.list()) == 2


@every_store
async def test_changes_do_not_get_in_each_others_way(tasks: Any) -> None:
    """Of changes made at once none is lost."""
    task = await tasks.create(new())
    count = lambda task, now: replace(task, round=task.round + 1)  # noqa: E731
    await all_at_once(lambda: tasks.change(task.id, count), 20)
    assert (await tasks.read(task.id)).round == 20
    assert await tasks.change("another", count) is None


@every_store
async def test_a_change_that_is_refused_changes_nothing(tasks: Any) -> None:
    task = await tasks.create(new())

    def refuse(task: Task, now: float) -> Task:
        raise StaleOwnerError("no")

    with pytest.raises(StaleOwnerError):
        await tasks.change(task.id, refuse)
    assert await tasks.read(task.id) == task


@every_store
async def test_answers_and_a_cancellation_at_once_leave_one_of_them(tasks: Any) -> None:
    """A client that cancels while it answers has cancelled."""
    for _ in range(5):
        task = await tasks.create(new(asks=ASK, status=Status.INPUT_REQUIRED))
        changes = [
            lambda task, now: answered(task, now, {"0:0": {}}),
            lambda task, now: cancelled(task, now),
        ]

        async def change(task: Task = task, changes: list[Any] = changes) -> None:
            await tasks.change(task.id, changes.pop())

        await all_at_once(change, 2)
        ended = await tasks.read(task.id)
        assert (ended.status, ended.asks, ended.answers) == (Status.CANCELLED, {}, {})


@every_store
async def test_each_task_is_handed_to_one_taker_the_oldest_first(tasks: Any) -> None:
    made = [await tasks.create(new()) for _ in range(3)]
    first = await tasks.take(lease=30)
    assert first.id == made[0].id
    assert (first.epoch, first.leased_until > first.updated + 20) == (1, True)
    came = await all_at_once(lambda: tasks.take(lease=30), 6)
    ids = [task.id for task in came if task is not None]
    assert sorted(ids) == sorted(task.id for task in made[1:])


@every_store
async def test_a_lease_that_ran_out_is_taken_over_and_its_former_owner_refused(tasks: Any) -> None:
    made = await tasks.create(new())
    stale = await tasks.take(lease=0.05)
    assert await tasks.take(lease=30) is None
    await anyio.sleep(0.1)
    owner = await tasks.take(lease=30)
    assert (owner.id, owner.epoch) == (made.id, stale.epoch + 1)
    for change in (
        lambda task, now: released(held(task, stale.epoch)),
        lambda task, now: finished(held(task, stale.epoch), now, outcome={}),
    ):
        with pytest.raises(StaleOwnerError):
            await tasks.change(made.id, change)
    await tasks.change(
        made.id, lambda task, now: finished(held(task, owner.epoch), now, outcome={"a": 1})
    )
    assert (await tasks.read(made.id)).outcome == {"a": 1}


@every_store
async def test_only_what_can_go_on_is_taken(tasks: Any) -> None:
    """Not what waits for its client, nor what has ended; and at once what was given back."""
    waits = await tasks.create(new(asks=ASK, status=Status.INPUT_REQUIRED))
    ended = await tasks.create(new())
    await tasks.change(ended.id, lambda task, now: cancelled(task, now))
    assert await tasks.take(lease=30) is None
    await tasks.change(waits.id, lambda task, now: answered(task, now, {"0:0": {"x": 1}}))
    mine = await tasks.take(lease=30)
    assert (mine.id, mine.answers) == (waits.id, {"0:0": {"x": 1}})
    await tasks.change(mine.id, lambda task, now: released(held(task, mine.epoch)))
    again = await tasks.take(lease=30)
    assert (again.id, again.epoch) == (mine.id, mine.epoch + 1)
    await tasks.change(
        mine.id, lambda task, now: parked(held(task, again.epoch), now, asks=ASK, state=None)
    )
    assert await tasks.take(lease=30) is None


@every_store
async def test_nobody_keeps_all_workers_busy(tasks: Any) -> None:
    """``per_principal`` bounds how many tasks of one caller are held, also among many takers."""
    for principal in ("alice", "alice", "alice", "alice", "bob", None, None):
        await tasks.create(new(principal=principal))
    came = await all_at_once(lambda: tasks.take(lease=30, per_principal=1), 7)
    taken = [task for task in came if task is not None]
    assert sorted(str(task.principal) for task in taken) == ["None", "alice", "bob"]
    [alices] = [task for task in taken if task.principal == "alice"]
    await tasks.change(
        alices.id, lambda task, now: finished(held(task, alices.epoch), now, outcome={})
    )
    following = await tasks.take(lease=30, per_principal=1)
    assert (following.principal, following.id != alices.id) == ("alice", True)


@every_store
async def test_no_more_tasks_are_open_than_there_may_be(tasks: Any) -> None:
    """Those that wait for their client are open, those that ended or expired are not."""
    limits = TaskLimits(most_open=3)
    waits = await tasks.create(new(asks=ASK, status=Status.INPUT_REQUIRED), limits=limits)
    await tasks.create(new(call="the call"), limits=limits)
    await tasks.create(new(ttl=0.3), limits=limits)
    refused = new()
    with pytest.raises(TooManyTasksError, match="as many tasks are open as there may be: 3"):
        await tasks.create(refused, limits=limits)
    assert await tasks.read(refused.id) is None
    again = await tasks.create(new(call="the call"), limits=limits)  # is no other task
    assert again.call == "the call"
    await tasks.change(waits.id, lambda task, now: cancelled(task, now))
    await tasks.create(new(), limits=limits)
    with pytest.raises(TooManyTasksError):
        await tasks.create(refused, limits=limits)
    await anyio.sleep(0.4)
    await tasks.create(refused, limits=limits)


@every_store
async def test_one_caller_leaves_room_for_the_others(tasks: Any) -> None:
    """Callers that nobody authenticated are not taken for one."""
    limits = TaskLimits(most_open=6, most_open_per_principal=2)
    for principal in ("alice", "alice", "bob", None, None, None):
        await tasks.create(new(principal=principal), limits=limits)
    with pytest.raises(TooManyTasksError, match="as many open tasks as one may have: 2"):
        await tasks.create(new(principal="alice"), limits=limits)
    for principal in ("bob", None):
        with pytest.raises(TooManyTasksError, match="there may be: 6"):
            await tasks.create(new(principal=principal), limits=limits)
    await tasks.create(new(principal="alice"))  # where no limits are given, there are none


@every_store
async def test_what_there_is_room_for_once_is_kept_once(
    url: str, tasks: Any, opened: Callable[[str], Any]
) -> None:
    """However many are made at the same time, and through however many servers."""
    many = [tasks] if url == "memory" else [tasks, opened(url).tasks, opened(url).tasks]
    limits = TaskLimits(most_open=7, most_open_per_principal=5)
    waiting = [(which, principal) for which in many for principal in ["alice"] * 12 + ["bob"] * 12]

    async def create() -> bool:
        which, principal = waiting.pop()
        try:
            await which.create(new(principal=principal), limits=limits)
        except TooManyTasksError:
            return False
        return True

    came = await all_at_once(create, len(waiting))
    assert came.count(True) == len(await tasks.list()) == 7
    for principal in ("alice", "bob"):
        assert 2 <= len(await tasks.list(principal=principal)) <= 5


@every_store
async def test_a_task_whose_time_is_over_is_not_there(tasks: Any) -> None:
    short = await tasks.create(new(ttl=0.05))
    lasting = await tasks.create(new(ttl=None))
    await anyio.sleep(0.1)
    assert await tasks.read(short.id) is None
    assert await tasks.change(short.id, lambda task, now: cancelled(task, now)) is None
    assert [task.id for task in await tasks.list()] == [lasting.id]
    assert sum((await tasks.count()).values()) == 1
    assert (await tasks.take(lease=30)).id == lasting.id
    assert await tasks.take(lease=30) is None
    assert await tasks.sweep() == 1
    assert await tasks.sweep() == 0


@every_store
@pytest.mark.parametrize("id", ["", "nobody's", "id\0", "id\ud800", "i" * 100_000])
async def test_a_name_that_no_task_can_have_is_an_unknown_one(tasks: Any, id: str) -> None:
    """A client may name a task as it likes: no database's own error comes of it."""
    assert await tasks.read(id) is None
    assert await tasks.change(id, lambda task, now: task) is None


@every_store
async def test_a_call_may_be_made_again_after_its_task_was_forgotten(tasks: Any) -> None:
    first = await tasks.create(new(call="the call", ttl=0.05))
    await anyio.sleep(0.1)
    assert (await tasks.create(new(call="the call"))).id != first.id


@every_store
async def test_tasks_are_listed_the_newest_first_and_counted(tasks: Any) -> None:
    made = [await tasks.create(new(principal=p)) for p in ("alice", "bob", "alice")]
    await tasks.change(made[0].id, lambda task, now: cancelled(task, now))
    ids = [task.id for task in made]
    assert [task.id for task in await tasks.list()] == ids[::-1]
    assert [task.id for task in await tasks.list(limit=2)] == ids[:0:-1]
    assert [task.id for task in await tasks.list(principal="alice")] == [ids[2], ids[0]]
    assert [task.id for task in await tasks.list(status=Status.CANCELLED)] == [ids[0]]
    assert await tasks.list(status=Status.WORKING, principal="carol") == []
    assert [task.id for task in await tasks.list(beginning=ids[1][:9])] == [ids[1]]
    assert await tasks.list(beginning="id%") == []
    counts = await tasks.count()
    assert (counts["cancelled"], counts["failed"], sum(counts.values())) == (1, 0, 3)


@databases
async def test_other_processes_see_the_same_tasks(url: str, opened: Callable[[str], Any]) -> None:
    one, other = opened(url).tasks, opened(url).tasks
    made = await one.create(new())
    assert await other.read(made.id) == made
    assert (await other.take(lease=30)).id == made.id
    assert await one.take(lease=30) is None


@databases
@pytest.mark.parametrize(
    "body", ["", "[]", "null", "{}", '{"v":1}', '{"v":1,"status":"gone"}', '{"v":2,"id":"x"}']
)
async def test_a_record_that_cannot_be_read_is_said_to_be_one(
    body: str, url: str, opened: Callable[[str], Any]
) -> None:
    """Damaged, or of a newer agentloop. It does not keep the tasks behind it from being taken."""
    tasks = opened(url).tasks
    broken, good = await tasks.create(new()), await tasks.create(new())
    by_hand(url, "UPDATE agentloop_tasks SET body = :body WHERE id = :id", body=body, id=broken.id)
    change = lambda task, now: cancelled(task, now)  # noqa: E731
    for asked in (tasks.read(broken.id), tasks.change(broken.id, change), tasks.list()):
        with pytest.raises(StoreError, match="the store holds a task"):
            await asked
    assert (await tasks.take(lease=30)).id == good.id
    assert await tasks.take(lease=30) is None


@databases
async def test_a_store_of_the_version_before_gets_tasks_and_keeps_what_it_held(
    url: str, opened: Callable[[str], Any]
) -> None:
    before = opened(url)
    call = os.urandom(8).hex()
    found = await before.begin(call, lease=30, keep=60)
    assert isinstance(found, Entered)
    await before.settle(found.round, "the outcome", next_state=None)
    for table in ("agentloop_tasks", "agentloop_entries"):
        by_hand(url, f"DROP TABLE {table}")
    by_hand(url, "UPDATE agentloop_schema SET version = 1")

    after = opened(url)
    made = await after.tasks.create(new())
    assert await after.tasks.read(made.id) == made
    assert await after.begin(call, lease=30, keep=60) == Settled("the outcome")
