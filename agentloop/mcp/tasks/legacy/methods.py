"""What clients of 2025-11-25 ask about tasks (SEP-1686).

There the client decides that a call becomes a task, waits for its result in one request, and is
asked by requests of the server's while it waits.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
from mcp.server.context import (
    CallNext,
    HandlerResult,
    ServerMiddleware,
    ServerRequestContext,
)
from mcp.server.request_state import authenticated_principal
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, METHOD_NOT_FOUND, PaginatedRequestParams
from mcp_types.methods import validate_client_request
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from agentloop.errors import TaskEndedError
from agentloop.mcp.request import call_name
from agentloop.mcp.tasks.legacy import wire
from agentloop.mcp.tasks.legacy.waiting import Waiting
from agentloop.mcp.tasks.legacy.wire import REVISION, SUPPORT, Setting
from agentloop.mcp.tasks.principal import caller
from agentloop.mcp.tasks.wire import TaskParams, unknown_task
from agentloop.store import Store
from agentloop.strays import Stray, stray
from agentloop.task import Status, Task, cancelled

Context = ServerRequestContext[Any, Any]

ASKING_SECONDS = 3600.0
"""How long a client is asked that does not come for the result."""

PAGE = 50
"""Tasks in one answer to ``tasks/list``."""

_TOLD = 10_000


class LegacyTasks:
    """Answers clients of 2025-11-25 for the tasks of a store."""

    def __init__(
        self,
        store: Store,
        *,
        ttl: float | None,
        poll: float,
        create: Callable[[Task], Awaitable[Task]],
        on_answer: Callable[[], None],
        on_cancel: Callable[[str], None],
        stream_seconds: float | None,
    ) -> None:
        """``create`` keeps a new task; the other two tell those who work on tasks."""
        self._store = store
        self._ttl, self._poll, self._stream_seconds = ttl, poll, stream_seconds
        self._create, self._on_answer, self._on_cancel = create, on_answer, on_cancel
        self._waiting: dict[str, Waiting] = {}
        """By task, who asks its client: the last request for its result, or else an asker."""
        self._askers: dict[str, Stray] = {}
        self._told: dict[str, int] = {}
        """By task, the round in which its client was told that it is waited for."""

    # --- beside the SDK's own methods -------------------------------------------------------

    def middleware(self, setting: Setting) -> ServerMiddleware[Any]:
        """What makes calls into tasks, and tells clients that it does.

        The SDK lets a tool call of this revision answer with a tool's result alone, whatever its
        handler gives; what a middleware answers it leaves as it is.
        """

        async def around(ctx: Context, call_next: CallNext) -> HandlerResult:
            if ctx.request_id is None or ctx.protocol_version in MODERN_PROTOCOL_VERSIONS:
                return await call_next(ctx)
            if ctx.method == "initialize":
                known = authenticated_principal(ctx) is not None
                return wire.declaring(await call_next(ctx), listing=known)
            if ctx.protocol_version != REVISION:
                return await call_next(ctx)
            if ctx.method == "tools/list":
                return await wire.supporting(await call_next(ctx), setting)
            if ctx.method == "tools/call":
                return await self._call(ctx, call_next, setting)
            return await call_next(ctx)

        return around

    async def _call(self, ctx: Context, call_next: CallNext, setting: Setting) -> HandlerResult:
        params = ctx.params or {}
        name = str(params.get("name"))
        support = SUPPORT[await setting(name) or "never"]
        if params.get("task") is None:
            if support == "required":
                raise MCPError(METHOD_NOT_FOUND, f"the tool {name!r} must be called as a task")
            return await call_next(ctx)
        validate_client_request("tools/call", REVISION, params)
        if support == "forbidden":
            raise MCPError(METHOD_NOT_FOUND, f"the tool {name!r} cannot be called as a task")
        task = await self._create(
            Task(
                id=secrets.token_urlsafe(24),
                call=call_name(ctx),
                request=wire.request(ctx),
                principal=authenticated_principal(ctx),
                caller=caller(),
                ttl=self._granted(params["task"].get("ttl")),
            )
        )
        return {"task": self._seen(task), "_meta": wire.related(task.id)}

    def _granted(self, wanted: int | None) -> float | None:
        """For how many seconds a task is kept whose client wants ``wanted`` milliseconds."""
        if wanted is None:
            return self._ttl
        seconds = max(wanted / 1000, 1.0)
        return seconds if self._ttl is None else min(seconds, self._ttl)

    # --- the methods ------------------------------------------------------------------------

    async def get(self, ctx: Context, params: TaskParams) -> dict[str, Any]:
        """What a task is doing."""
        task = await self._find(ctx, params.task_id)
        self._notice(ctx, task)
        return self._seen(task)

    def _notice(self, ctx: Context, task: Task) -> None:
        """Ask a client that knows that it will be asked, and does not come for the result.

        It SHOULD come and be asked then. Some do not, and expect to be asked on any stream.
        """
        asked = task.id in self._waiting or task.id in self._askers
        if asked or task.status is not Status.INPUT_REQUIRED:
            return
        if self._told.get(task.id) == task.round:
            del self._told[task.id]
            self._askers[task.id] = stray(partial(self._ask_beside, ctx, task))
        else:
            while len(self._told) >= _TOLD:
                del self._told[next(iter(self._told))]
            self._told[task.id] = task.round

    async def _ask_beside(self, ctx: Context, task: Task) -> None:
        waiting = self._waiting[task.id] = self._new_waiting(ctx, answered=True)
        try:
            with anyio.move_on_after(ASKING_SECONDS):
                await waiting.end_of(task)
        except MCPError:
            return  # the task is not there any more
        finally:
            self._leave(task, waiting)
            self._askers.pop(task.id, None)

    async def stop(self) -> None:
        """Ask nobody any more."""
        for asker in [*self._askers.values()]:
            await asker.stop(math.inf)

    async def cancel(self, ctx: Context, params: TaskParams) -> dict[str, Any]:
        """End a task that is not wanted any more."""
        task = await self._find(ctx, params.task_id)
        try:
            ended = await self._store.tasks.change(
                task.id, lambda task, now: cancelled(task, now, message="The client cancelled it.")
            )
        except TaskEndedError as error:
            raise MCPError(INVALID_PARAMS, str(error)) from error
        if ended is None:
            raise unknown_task()
        self._on_cancel(task.id)
        return self._seen(ended)

    async def list(self, ctx: Context, params: PaginatedRequestParams) -> dict[str, Any]:
        """The caller's tasks, the newest first."""
        principal = authenticated_principal(ctx)
        if principal is None:  # whoever knows an id may use a task, so nobody is told of others'
            raise MCPError(METHOD_NOT_FOUND, "tasks are listed for authenticated callers only")
        before = None if params.cursor is None else wire.position(params.cursor)
        tasks = await self._store.tasks.list(principal=principal, limit=PAGE + 1, before=before)
        page: dict[str, Any] = {"tasks": [self._seen(task) for task in tasks[:PAGE]]}
        if len(tasks) > PAGE:
            page["nextCursor"] = wire.cursor(tasks[PAGE - 1])
        return page

    async def result(self, ctx: Context, params: TaskParams) -> dict[str, Any]:
        """What the call of a task gave, once it has ended; its client is asked meanwhile."""
        task = await self._find(ctx, params.task_id)
        waiting = self._new_waiting(ctx)
        if (asker := self._askers.pop(task.id, None)) is not None:
            asker.cancel()
        elif (before := self._waiting.get(task.id)) is not None:
            before.ask_no_more()
        self._waiting[task.id] = waiting
        try:
            return wire.outcome(await waiting.end_of(task))
        finally:
            self._leave(task, waiting)

    def _new_waiting(self, ctx: Context, *, answered: bool = False) -> Waiting:
        return Waiting(
            ctx,
            self._store.tasks,
            self._on_answer,
            poll=self._poll,
            answered=answered,
            stream_seconds=None if answered else self._stream_seconds,
        )

    def _leave(self, task: Task, waiting: Waiting) -> None:
        if self._waiting.get(task.id) is waiting:
            del self._waiting[task.id]

    async def _find(self, ctx: Context, id: str) -> Task:
        """The task, if it is the caller's."""
        task = await self._store.tasks.read(id)
        if task is None or task.principal != authenticated_principal(ctx):
            raise unknown_task()
        return task

    def _seen(self, task: Task) -> dict[str, Any]:
        return wire.seen(task, poll=self._poll)
