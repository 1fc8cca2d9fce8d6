"""Tasks in a database, beside the rounds and claims of their calls."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection

from agentloop.errors import StoreError
from agentloop.log import log
from agentloop.sql import clock, run
from agentloop.task import CONDITIONS, Change, Status, Task, TaskLimits, condition, taken
from agentloop.text import is_clean

T = TypeVar("T")

SCHEMA = (
    """CREATE TABLE agentloop_tasks (
        id VARCHAR(80) PRIMARY KEY,
        call VARCHAR(80) NOT NULL UNIQUE,
        principal VARCHAR(400),
        status VARCHAR(20) NOT NULL,
        created DOUBLE PRECISION NOT NULL,
        updated DOUBLE PRECISION NOT NULL,
        expires DOUBLE PRECISION,
        leased_until DOUBLE PRECISION NOT NULL,
        body TEXT NOT NULL
    )""",
    "CREATE INDEX agentloop_tasks_waiting ON agentloop_tasks (status, updated)",
    "CREATE INDEX agentloop_tasks_expires ON agentloop_tasks (expires)",
)
"""The tables, as a step of the store's migrations."""

COUNTING = ("CREATE INDEX agentloop_tasks_counting ON agentloop_tasks (status, principal)",)
"""What makes it quick to count those that are open, as a later step."""


class Transactor(Protocol):
    """Does work in one transaction of the database."""

    def __call__(self, work: Callable[[Connection], T], /) -> Awaitable[T]: ...


class SQLTasks:
    """A :class:`~agentloop.task.TaskStore` in the database of a :class:`~agentloop.SQLStore`."""

    def __init__(self, do: Transactor) -> None:
        """``do`` runs transactions."""
        self._do = do

    async def create(self, task: Task, *, limits: TaskLimits | None = None) -> Task:
        def work(connection: Connection) -> Task:
            if limits is not None:
                _take_turns(connection, _CREATING)
            now = clock(connection)
            run(connection, _SWEEP, {"now": now})
            new = replace(task, created=now, updated=now)
            known = _find(connection, _OF_CALL, {"call": task.call})
            if known is None and limits is not None:
                limits.check(**_open(connection, task.principal))
            if known is None and _wrote(connection, new):
                return new
            return known or _task(run(connection, _OF_CALL, {"call": task.call}).one().body)

        return await self._do(work)

    async def read(self, id: str) -> Task | None:
        def work(connection: Connection) -> Task | None:
            return _find(connection, _FIND, {"id": id, "now": clock(connection)})

        return await self._do(work) if is_clean(id) else None

    async def change(self, id: str, change: Change) -> Task | None:
        def work(connection: Connection) -> Task | None:
            now = clock(connection)
            found = _find(connection, _LOCK, {"id": id, "now": now})
            return _changed(connection, found, change, now)

        return await self._do(work) if is_clean(id) else None

    async def take(self, *, lease: float, per_principal: int | None = None) -> Task | None:
        def work(connection: Connection) -> Task | None:
            now = clock(connection)
            query = _WAITING
            if per_principal is not None:
                query = _WAITING_FAIRLY
                _take_turns(connection, _TAKING)
            values = {"now": now, "most": per_principal, "never": now + lease * 10}
            while (row := run(connection, query, values).one_or_none()) is not None:
                try:
                    found = _task(row.body)
                except StoreError as error:  # it must not keep the others waiting
                    log().warning("task_set_aside", task=row.id, error=str(error))
                    run(connection, _SET_ASIDE, {"id": row.id, "until": now + lease})
                else:
                    return _changed(
                        connection, found, lambda task, now: taken(task, now, lease=lease), now
                    )
            return None

        return await self._do(work)

    async def list(
        self,
        *,
        status: Status | None = None,
        principal: str | None = None,
        beginning: str = "",
        before: tuple[float, str] | None = None,
        limit: int = 100,
    ) -> Sequence[Task]:
        def work(connection: Connection) -> Sequence[Task]:
            created, id = before or (None, None)
            values = {
                "created": created,
                "id": id,
                "now": clock(connection),
                "status": status,
                "principal": principal,
                "beginning": beginning,
                "limit": limit,
            }
            return [_task(row.body) for row in run(connection, _LIST, values)]

        return await self._do(work)

    async def count(self) -> Mapping[str, int]:
        def work(connection: Connection) -> Mapping[str, int]:
            counts = dict.fromkeys(CONDITIONS, 0)
            for row in run(connection, _COUNT, {"now": clock(connection)}):
                counts[condition(Status(row.status), held=bool(row.held))] += row.number
            return counts

        return await self._do(work)

    async def sweep(self) -> int:
        def work(connection: Connection) -> int:
            return run(connection, _SWEEP, {"now": clock(connection)}).rowcount

        return await self._do(work)


_INSERT = """INSERT INTO agentloop_tasks
    (id, call, principal, status, created, updated, expires, leased_until, body)
    VALUES (:id, :call, :principal, :status, :created, :updated, :expires, :leased_until, :body)
    ON CONFLICT (call) DO NOTHING"""
_UPDATE = """UPDATE agentloop_tasks SET principal = :principal, status = :status,
    created = :created, updated = :updated, expires = :expires, leased_until = :leased_until,
    body = :body WHERE id = :id"""
_ALIVE = "(expires IS NULL OR expires >= :now)"
_FIND = f"SELECT body FROM agentloop_tasks WHERE id = :id AND {_ALIVE}"
_LOCK = f"{_FIND} FOR UPDATE"
_OF_CALL = "SELECT body FROM agentloop_tasks WHERE call = :call"
# No lease reaches as far as :never: the clock was set back since.
_FREE = f"""status = 'working' AND (leased_until <= :now OR leased_until > :never) AND {_ALIVE}"""
_WAITING = f"""SELECT id, body FROM agentloop_tasks WHERE {_FREE}
    ORDER BY updated LIMIT 1 FOR UPDATE SKIP LOCKED"""
_WAITING_FAIRLY = f"""SELECT id, body FROM agentloop_tasks t WHERE {_FREE} AND (
    SELECT count(*) FROM agentloop_tasks h WHERE h.status = 'working'
    AND h.leased_until > :now AND h.leased_until <= :never
    AND coalesce(h.principal, '') = coalesce(t.principal, '')
    ) < :most ORDER BY updated LIMIT 1 FOR UPDATE SKIP LOCKED"""
_SET_ASIDE = "UPDATE agentloop_tasks SET leased_until = :until WHERE id = :id"
_LIST = f"""SELECT body FROM agentloop_tasks WHERE {_ALIVE}
    AND (CAST(:status AS VARCHAR) IS NULL OR status = :status)
    AND (CAST(:principal AS VARCHAR) IS NULL OR principal = :principal)
    AND substr(id, 1, length(CAST(:beginning AS VARCHAR))) = :beginning
    AND (CAST(:id AS VARCHAR) IS NULL OR created < :created OR (created = :created AND id < :id))
    ORDER BY created DESC, id DESC LIMIT :limit"""
_COUNT = f"""SELECT status, leased_until > :now AS held, count(*) AS number
    FROM agentloop_tasks WHERE {_ALIVE} GROUP BY 1, 2"""
_OPEN = """SELECT count(*) AS open,
    count(CASE WHEN principal = CAST(:principal AS VARCHAR) THEN 1 END) AS of_principal
    FROM agentloop_tasks WHERE status IN ('working', 'input_required')"""
_SWEEP = "DELETE FROM agentloop_tasks WHERE expires < :now"

_TAKING, _CREATING = 7311840276, 7311840277
"""The locks of those that count tasks and then change what they counted."""


def _take_turns(connection: Connection, lock: int) -> None:
    """Let no other transaction count what this one is about to change; SQLite does so anyway."""
    if connection.dialect.name == "postgresql":
        run(connection, "SELECT pg_advisory_xact_lock(:lock)", {"lock": lock})


def _changed(connection: Connection, task: Task | None, change: Change, now: float) -> Task | None:
    if task is None:
        return None
    new = change(task, now)
    if new is not task:
        run(connection, _UPDATE, _columns(new))
    return new


def _open(connection: Connection, principal: str | None) -> dict[str, int]:
    """How many tasks are open, and how many of them are the principal's."""
    row = run(connection, _OPEN, {"principal": principal}).one()
    return {"open": row.open, "of_principal": row.of_principal}


def _wrote(connection: Connection, task: Task) -> bool:
    """Write a new task, unless there is one of the same call by now."""
    return bool(run(connection, _INSERT, {**_columns(task), "call": task.call}).rowcount)


def _columns(task: Task) -> dict[str, Any]:
    return {
        "id": task.id,
        "principal": task.principal,
        "status": task.status,
        "created": task.created,
        "updated": task.updated,
        "expires": task.expires,
        "leased_until": task.leased_until,
        "body": json.dumps(task.to_json(), separators=(",", ":")),
    }


def _find(connection: Connection, query: str, values: dict[str, Any]) -> Task | None:
    row = run(connection, query, values).one_or_none()
    return None if row is None else _task(row.body)


def _task(body: str) -> Task:
    try:
        return Task.from_json(json.loads(body))
    except (ValueError, AttributeError) as error:
        raise StoreError("the store holds a task that cannot be read") from error
