"""Long runs of every kind, seen the same way: tasks of MCP calls, and durable runs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from agentloop.errors import DefinitionError
from agentloop.task import CONDITIONS, Status, Task, TaskStore, cancelled, handed_on

if TYPE_CHECKING:
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
        """Stop it. Raises :class:`StoreError` where it has ended."""
        ...

    async def resume(self) -> None:
        """Let another process take it up now. Raises :class:`StoreError` where it has ended."""
        ...


class LongRuns(Protocol):
    """The long runs of one store."""

    async def list(self, state: str | None, limit: int) -> Sequence[LongRun]:
        """The latest runs, the newest first."""
        ...

    async def count(self) -> Mapping[str, int]:
        """How many there are, by state."""
        ...

    async def find(self, id: str) -> LongRun:
        """The run whose id begins so. Raises :class:`DefinitionError` unless there is just one."""
        ...


class TaskRun:
    """A task as a long run."""

    kind = "task"

    def __init__(self, task: Task, store: TaskStore) -> None:
        self._task, self._store = task, store
        self.id, self.what, self.state = task.id, task.name, str(task.status)
        self.created, self.message = task.created, task.message

    def outline(self) -> dict[str, Any]:
        task = self._task
        return {
            "id": task.id,
            "kind": self.kind,
            "tool": task.name,
            "state": task.status,
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
        if state is not None and state not in set(Status):
            raise DefinitionError(f"there is no state {state!r}; known are {', '.join(Status)}")
        found = await self._store.list(status=Status(state) if state else None, limit=limit)
        return [TaskRun(task, self._store) for task in found]

    async def count(self) -> Mapping[str, int]:
        counts = await self._store.count()
        return {state: counts[state] for state in CONDITIONS}

    async def find(self, id: str) -> LongRun:
        if (task := await self._store.read(id)) is not None:
            return TaskRun(task, self._store)
        near = [task for task in await self._store.list(limit=1000) if task.id.startswith(id)]
        if len(near) != 1:
            raise DefinitionError(
                f"there is no run {id!r} in this store"
                if not near
                else f"{len(near)} runs have ids that begin with {id!r}"
            )
        return TaskRun(near[0], self._store)


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
async def opened(where: str) -> AsyncGenerator[LongRuns]:
    """The long runs of the store at ``where``. Raises :class:`DefinitionError` where is none."""
    store = store_at(where, new=False)
    try:
        yield TaskRuns(store.tasks)
    finally:
        await store.close()
