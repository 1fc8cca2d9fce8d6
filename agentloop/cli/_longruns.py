"""Long runs of every kind, seen the same way: tasks of MCP calls, and durable runs."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from agentloop.errors import DefinitionError
from agentloop.task import CONDITIONS, Status, Task, TaskStore, cancelled, condition, handed_on

if TYPE_CHECKING:
    from agentloop.durable import DurableRuns, RunInfo
    from agentloop.sql_store import SQLStore


class LongRun(Protocol):
    """One run, as ``agentloop runs`` sees it."""

    id: str
    kind: str
    what: str
    state: str
    created: float
    message: str

    def outline(self) -> dict[str, Any]:
        """What a list says of it."""
        ...

    async def details(self) -> dict[str, Any]:
        """Everything that is known of it."""
        ...

    async def cancel(self) -> None:
        """Stop it. Raises :class:`AgentLoopError` where it has ended."""
        ...

    async def resume(self) -> None:
        """Let another process take it up now. Raises :class:`AgentLoopError` where it has ended."""
        ...


class LongRuns(Protocol):
    """The long runs of one kind in a store."""

    async def list(self, state: str | None, limit: int) -> Sequence[LongRun]:
        """The latest runs in one of :data:`CONDITIONS`, the newest first."""
        ...

    async def count(self) -> Mapping[str, int]:
        """How many there are, by state."""
        ...

    async def near(self, id: str) -> Sequence[LongRun]:
        """The run of that id, or else those whose ids begin so."""
        ...


_LOOKED_THROUGH = 1000
"""How many runs are looked through for one whose id begins in a certain way."""


class TaskRun:
    """A task as a long run."""

    kind = "task"

    def __init__(self, task: Task, store: TaskStore) -> None:
        self._task, self._store = task, store
        self.id, self.what, self.state = task.id, task.name, _condition(task)
        self.created, self.message = task.created, task.message

    def outline(self) -> dict[str, Any]:
        task = self._task
        return {
            "id": task.id,
            "kind": self.kind,
            "tool": task.name,
            "state": self.state,
            "message": task.message,
            "principal": task.principal,
            "created": task.created,
            "updated": task.updated,
            "expires": task.expires,
        }

    async def details(self) -> dict[str, Any]:
        return self._task.to_json()

    async def cancel(self) -> None:
        await self._store.change(
            self.id, lambda task, now: cancelled(task, now, message="An operator cancelled it.")
        )

    async def resume(self) -> None:
        await self._store.change(self.id, handed_on)


class TaskRuns:
    """The tasks of a store as long runs."""

    def __init__(self, store: TaskStore) -> None:
        self._store = store

    async def list(self, state: str | None, limit: int) -> Sequence[LongRun]:
        status = None if state is None else _STATUSES[state]
        found: list[LongRun] = []
        before: tuple[float, str] | None = None
        while len(found) < limit:
            page = await self._store.list(status=status, before=before, limit=limit)
            runs = [TaskRun(task, self._store) for task in page]
            found += [run for run in runs if state in (None, run.state)]
            if len(page) < limit:
                break
            before = (page[-1].created, page[-1].id)
        return found[:limit]

    async def count(self) -> Mapping[str, int]:
        return await self._store.count()

    async def near(self, id: str) -> Sequence[LongRun]:
        if (task := await self._store.read(id)) is not None:
            return [TaskRun(task, self._store)]
        found = await self._store.list(limit=_LOOKED_THROUGH)
        return [TaskRun(task, self._store) for task in found if task.id.startswith(id)]


_STATUSES = {
    "queued": Status.WORKING,
    "running": Status.WORKING,
    "waiting": Status.INPUT_REQUIRED,
    "completed": Status.COMPLETED,
    "failed": Status.FAILED,
    "cancelled": Status.CANCELLED,
}


def _condition(task: Task) -> str:
    return condition(task.status, held=task.leased_until > time.time())


class DurableAsLongRun:
    """A durable run as a long run."""

    kind = "durable"

    def __init__(self, info: RunInfo, runs: DurableRuns) -> None:
        self._info, self._runs = info, runs
        self.id, self.what, self.state = info.id, info.agent, _NAMES.get(info.state, info.state)
        self.created, self.message = info.created, ""

    def outline(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "kind": self.kind,
            "agent": self.what,
            "state": self.state,
            "replica": self._info.replica,
            "created": self.created,
        }

    async def details(self) -> dict[str, Any]:
        return await self._runs.details(self.id) | {"state": self.state}

    async def cancel(self) -> None:
        await self._runs.cancel(self.id)

    async def resume(self) -> None:
        await self._runs.resume(self.id)


class DurableAsLongRuns:
    """The durable runs of a database as long runs."""

    def __init__(self, runs: DurableRuns) -> None:
        self._runs = runs

    async def list(self, state: str | None, limit: int) -> Sequence[LongRun]:
        from agentloop.durable import RunState

        if state == "waiting":
            return []  # theirs are open asks of a provider, and so they are running
        own = {_NAMES.get(each, str(each)): each for each in RunState}
        found = await self._runs.list(state=own[state] if state else None, limit=limit)
        return [DurableAsLongRun(info, self._runs) for info in found]

    async def count(self) -> Mapping[str, int]:
        counts = await self._runs.count()
        return {_NAMES.get(state, state): number for state, number in counts.items()}

    async def near(self, id: str) -> Sequence[LongRun]:
        found = await self._runs.list(beginning=id, limit=_LOOKED_THROUGH)
        exact = [info for info in found if info.id == id]
        return [DurableAsLongRun(info, self._runs) for info in exact or found]


_NAMES = {"ended": "completed"}
"""What a list calls the states of durable runs, where tasks have another word for it."""


class AllRuns:
    """Long runs of several kinds, as one list."""

    def __init__(self, *kinds: LongRuns) -> None:
        self._kinds = kinds

    async def list(self, state: str | None, limit: int) -> Sequence[LongRun]:
        """The latest runs, the newest first. Raises :class:`DefinitionError` for a state that
        there is not, or a limit below 1."""
        if state is not None and state not in CONDITIONS:
            raise DefinitionError(f"there is no state {state!r}; known are {', '.join(CONDITIONS)}")
        if limit < 1:
            raise DefinitionError(f"--limit {limit} is not 1 or more")
        found = [run for kind in self._kinds for run in await kind.list(state, limit)]
        return sorted(found, key=lambda run: run.created, reverse=True)[:limit]

    async def count(self) -> Mapping[str, int]:
        """How many there are, by state."""
        counts = dict.fromkeys(CONDITIONS, 0)
        for kind in self._kinds:
            for state, number in (await kind.count()).items():
                counts[state] += number
        return counts

    async def find(self, id: str) -> LongRun:
        """The run whose id begins so. Raises :class:`DefinitionError` unless there is just one."""
        near = [run for kind in self._kinds for run in await kind.near(id)]
        near = [run for run in near if run.id == id] or near
        if len(near) != 1:
            raise DefinitionError(
                f"there is no run {id!r} in this store"
                if not near
                else f"{len(near)} runs have ids that begin with {id!r}"
            )
        return near[0]


def store_at(where: str, *, new: bool) -> SQLStore:
    """The store at ``where``, a SQLite file or a database's URL.

    Raises :class:`DefinitionError` where none can be had, or, unless it may be ``new``, is none.
    """
    from agentloop.sql_store import SQLiteStore, SQLStore

    if "://" in where:
        return SQLStore(where)
    if not new and not Path(where).is_file():
        raise DefinitionError(f"there is no store at {where}")
    return SQLiteStore(where)


@asynccontextmanager
async def opened(where: str) -> AsyncGenerator[AllRuns]:
    """The long runs of the store at ``where``. Raises :class:`DefinitionError` where is none."""
    store = store_at(where, new=False)
    try:
        await store.tasks.sweep()  # also tells of a database that cannot be had
        if not _holds_durable_runs(_url(where)):
            yield AllRuns(TaskRuns(store.tasks))
            return
        durable = _durable_runs(_url(where))
        try:
            yield AllRuns(TaskRuns(store.tasks), DurableAsLongRuns(durable))
        finally:
            await durable.close()
    finally:
        await store.close()


def _url(where: str) -> str:
    return where if "://" in where else f"sqlite:///{where}"


def _holds_durable_runs(url: str) -> bool:
    """Whether the engine of durable runs has its tables there; it need not be installed."""
    from sqlalchemy import create_engine, inspect

    engine = create_engine(url)
    try:
        schema = None if engine.dialect.name == "sqlite" else "dbos"
        return inspect(engine).has_table("workflow_status", schema=schema)
    finally:
        engine.dispose()


def _durable_runs(url: str) -> DurableRuns:
    try:
        from agentloop.durable import DurableRuns
    except ImportError as error:
        raise DefinitionError(
            "this store holds durable runs: pip install 'mcp-agentloop[dbos]'"
        ) from error
    return DurableRuns(url)
