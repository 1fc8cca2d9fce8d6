"""Long runs of every kind, seen the same way: tasks of MCP calls, and durable runs."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

import anyio.to_thread

from agentloop.cli._stores import cannot_be_read, holds_durable_runs, store_at, url_of
from agentloop.errors import DefinitionError, StateError, StoreError
from agentloop.task import CONDITIONS, Status, Task, TaskStore, cancelled, condition, handed_on

if TYPE_CHECKING:
    from agentloop.durable import DurableRuns, RunInfo


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
        """Let another process take it up now. Raises :class:`AgentLoopError` where none can."""
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


_ALIKE = 1000
"""How many runs there may be whose ids begin alike, before they are not counted any more."""


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
        return self.outline() | self._task.to_json()

    async def cancel(self) -> None:
        await self._store.change(
            self.id, lambda task, now: cancelled(task, now, message="An operator cancelled it.")
        )

    async def resume(self) -> None:
        if self.state == "waiting":
            raise StateError("the task waits for its client: it goes on with the client's answer")
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
        found = await self._store.list(beginning=id, limit=_ALIKE)
        return [TaskRun(task, self._store) for task in found]


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
        self.id, self.what, self.state = info.id, info.agent, str(info.state)
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
        return self.outline() | await self._runs.details(self.id)

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
        found = await self._runs.list(state=RunState(state) if state else None, limit=limit)
        return [DurableAsLongRun(info, self._runs) for info in found]

    async def count(self) -> Mapping[str, int]:
        return await self._runs.count()

    async def near(self, id: str) -> Sequence[LongRun]:
        try:
            found: Sequence[RunInfo] = [await self._runs.info(id)]
        except StateError:
            found = await self._runs.list(beginning=id, limit=_ALIKE)
        return [DurableAsLongRun(info, self._runs) for info in found]


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
                else f"{len(near)} runs have ids that begin with {id!r}: say more of it"
            )
        return near[0]


@asynccontextmanager
async def opened(where: str) -> AsyncGenerator[AllRuns]:
    """The long runs of the store at ``where``. Raises :class:`DefinitionError` where is none."""
    store, durable = store_at(where, new=False), None
    try:
        try:
            if await anyio.to_thread.run_sync(holds_durable_runs, where):
                durable = _durable_runs(url_of(where))
                await durable.count()
            await store.tasks.sweep()
        except StoreError as error:
            raise cannot_be_read(where, error) from error
        tasks = TaskRuns(store.tasks)
        yield AllRuns(tasks, DurableAsLongRuns(durable)) if durable else AllRuns(tasks)
    finally:
        await store.close()
        if durable is not None:
            await durable.close()


def _durable_runs(url: str) -> DurableRuns:
    try:
        from agentloop.durable import DurableRuns
    except ImportError as error:
        raise DefinitionError(
            "this store holds durable runs: pip install 'mcp-agentloop[dbos]'"
        ) from error
    return DurableRuns(url)
