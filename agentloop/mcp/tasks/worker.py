"""Goes on with tasks that wait for nobody, wherever they were begun."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import anyio
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR, INVALID_PARAMS
from pydantic import ValidationError

from agentloop.errors import StaleOwnerError, StoreError, where
from agentloop.ledger import insist
from agentloop.log import log
from agentloop.mcp.alongside import alongside
from agentloop.mcp.handover import Running
from agentloop.mcp.tasks.call import go_on
from agentloop.store import Store
from agentloop.task import Change, Task, excused, finished, held, parked, released, renewed

MOST_ATTEMPTS = 5
"""How often a task is taken up that ends its server, or is not heard of again, each time."""

_GIVEN_UP = f"Given up: {MOST_ATTEMPTS} servers began to go on with it and were not heard of again."

MESSAGE_SECONDS = 1.0
"""How often what a task is doing is written down, at the most."""


class Worker:
    """Works on the tasks of a store, as many at once as it may.

    Tasks of a worker that is not heard of any more are taken over once their lease has run out;
    what the former worker still says of them is refused.
    """

    def __init__(
        self,
        store: Store,
        *,
        at_once: int,
        per_principal: int | None,
        look_every: float,
        on_change: Callable[[str], None],
    ) -> None:
        """``on_change`` is told the id of each task of which something was written."""
        self._store = store
        self._on_change = on_change
        self._per_principal = per_principal
        self._look_every = look_every
        self._free = anyio.Semaphore(at_once)
        self._news = anyio.Event()
        self._working, self._taking = anyio.CancelScope(), anyio.CancelScope()
        self._scopes: dict[str, anyio.CancelScope] = {}

    def look(self) -> None:
        """There may be something to do."""
        self._news.set()

    def drop(self, id: str) -> None:
        """Stop working on a task that was cancelled, if this worker does."""
        if (scope := self._scopes.get(id)) is not None:
            scope.cancel()

    async def work(self, server: Server[Any], lifespan: Any) -> None:
        """Go on with tasks until :meth:`stop`; what is not through then is left for others."""
        with self._working:
            await self._work(server, lifespan)

    def stop(self) -> None:
        """Let :meth:`work` end."""
        self._working.cancel()

    async def _work(self, server: Server[Any], lifespan: Any) -> None:
        async with anyio.create_task_group() as group:
            with self._taking:
                while True:
                    await self._free.acquire()
                    try:
                        task = await self._take()
                    except BaseException:
                        self._free.release()
                        raise
                    scope = self._scopes[task.id] = anyio.CancelScope()
                    group.start_soon(self._work_on, server, lifespan, task, scope)
            await anyio.sleep_forever()

    async def finish(self) -> None:
        """Take up nothing more, and wait for the end of what is being worked on."""
        self._taking.cancel()
        while self._scopes:
            self._news = anyio.Event()
            await self._news.wait()

    async def _take(self) -> Task:
        while True:
            self._news, task = anyio.Event(), None
            try:
                with anyio.CancelScope(shield=True):  # else nobody would know that it was taken
                    task = await self._store.tasks.take(
                        lease=self._store.lease, per_principal=self._per_principal
                    )
            except StoreError as error:
                log().warning("tasks_not_read", error=str(error))
            if task is not None:
                return task
            with anyio.move_on_after(self._look_every):
                await self._news.wait()

    async def _work_on(
        self, server: Server[Any], lifespan: Any, task: Task, scope: anyio.CancelScope
    ) -> None:
        held_task = _Held(self._store, task, scope, self._on_change)
        try:
            with scope:
                await alongside(held_task.hold, lambda: held_task.advance(server, lifespan))
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True), suppress(StoreError):
                await held_task.write(lambda task, now: released(task))
            raise
        except StaleOwnerError:
            log().warning("task_taken_over", task=task.id)
        except Exception as error:  # noqa: BLE001  one task must not end the others
            log().warning("task_left", task=task.id, error_type=type(error).__name__)
        finally:
            del self._scopes[task.id]
            self._free.release()
            self.look()


class _Held:
    """A task while a worker holds it."""

    def __init__(
        self,
        store: Store,
        task: Task,
        scope: anyio.CancelScope,
        on_change: Callable[[str], None],
    ) -> None:
        self._store, self._task, self._scope = store, task, scope
        self._on_change = on_change
        self._message = ""
        self._news = anyio.Event()

    async def hold(self) -> None:
        """Renew the lease, and write down what the task is doing; stop it once it is another's."""
        lease = self._store.lease
        while True:
            with anyio.move_on_after(lease / 3):
                await self._news.wait()
                await anyio.sleep(min(MESSAGE_SECONDS, lease / 3))
            self._news = anyio.Event()
            try:
                await self.write(
                    lambda task, now: renewed(task, now, lease=lease, message=self._message)
                )
            except StaleOwnerError:
                return self._scope.cancel()
            except StoreError as error:
                log().warning("lease_not_renewed", task=self._task.id, error=str(error))

    async def advance(self, server: Server[Any], lifespan: Any) -> None:
        """Let the function go on, and write down what came of it."""
        if self._task.attempts > MOST_ATTEMPTS:
            await insist(self._store, lambda: self.write(_failed(INTERNAL_ERROR, _GIVEN_UP)))
            return
        try:
            running = Running(self._task, self._store)
            change = _came(await go_on(server, lifespan, running, self._note))
        except MCPError as error:
            if _is_passing(error):
                await self.write(excused)
                return  # the lease runs out, and somebody tries again
            change = _failed(error.code, error.message, error.data)
        except ValidationError:
            change = _failed(INVALID_PARAMS, "Invalid request parameters")
        except Exception as error:  # noqa: BLE001  what a caller would get for it
            log().warning("task_failed", error_type=type(error).__name__, at=where(error))
            change = _failed(INTERNAL_ERROR, "Internal server error")
        await insist(self._store, lambda: self.write(change))

    def _note(self, message: str) -> None:
        self._message = message
        self._news.set()

    async def write(self, change: Change) -> None:
        """Change the task. Raises :class:`StaleOwnerError` where it is held no more."""
        epoch = self._task.epoch
        if (
            await self._store.tasks.change(
                self._task.id, lambda task, now: change(held(task, epoch), now)
            )
            is None
        ):
            raise StaleOwnerError("the task has expired")
        self._on_change(self._task.id)


def _came(result: dict[str, Any]) -> Change:
    """What becomes of a task whose function gave ``result``."""
    if result.get("resultType") != "input_required":
        return lambda task, now: finished(task, now, outcome=result)
    asks: dict[str, Any] = result.get("inputRequests") or {}
    return lambda task, now: parked(task, now, asks=asks, state=result.get("requestState"))


def _failed(code: int, message: str, data: Any = None) -> Change:
    error = {"code": code, "message": message} | ({} if data is None else {"data": data})
    return lambda task, now: finished(task, now, outcome=error, failed=True)


def _is_passing(error: MCPError) -> bool:
    """Whether the call did not end, but could not go on now."""
    data: Any = error.data
    return isinstance(data, dict) and bool(data.get("retryable"))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
