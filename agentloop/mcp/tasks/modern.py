"""What clients of 2026-07-28 and later ask about tasks (SEP-2663), and which calls become tasks."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.request_state import authenticated_principal
from mcp.shared.exceptions import MCPError

from agentloop.errors import TaskEndedError
from agentloop.mcp.handover import (
    HANDOVER,
    Continued,
    When,
    declares_tasks,
    kept_for,
    running,
    tasks_not_declared,
)
from agentloop.mcp.request import call_name
from agentloop.mcp.tasks.call import repeatable
from agentloop.mcp.tasks.listen import Listeners, listened_for
from agentloop.mcp.tasks.principal import caller
from agentloop.mcp.tasks.wire import (
    TaskParams,
    answers_to,
    check_routing,
    details,
    handle,
    unknown_task,
)
from agentloop.store import Store
from agentloop.task import Status, Task, answered, cancelled

Context = ServerRequestContext[Any, Any]


class UpdateParams(TaskParams):
    """The ``params`` of ``tasks/update``."""

    input_responses: dict[str, Any]
    """Checked where it is known what was asked: what nobody asked is ignored, whatever it is."""


class ModernTasks:
    """Answers clients for the tasks of a store, and makes tasks of their calls."""

    def __init__(
        self,
        store: Store,
        *,
        tools: Mapping[str, When],
        ttl: float | None,
        poll: float,
        listeners: Listeners,
        create: Callable[[Task], Awaitable[Task]],
        on_answer: Callable[[], None],
        on_cancel: Callable[[str], None],
    ) -> None:
        """``create`` keeps a new task; the other two tell those who work on tasks."""
        self._store, self._tools = store, tools
        self._ttl, self._poll = ttl, poll
        self._listeners = listeners
        self._create, self._on_answer, self._on_cancel = create, on_answer, on_cancel

    # --- calls that become tasks ------------------------------------------------------------

    async def serve(
        self,
        name: str | None,
        goes_on: bool,
        ctx: Context,
        serve: Callable[[], Awaitable[HandlerResult]],
    ) -> HandlerResult:
        """Serve a call of the tool ``name``, or give the handle of the task that it became.

        A client that cannot deal with tasks gets what it would get without them.
        """
        if running(ctx.request_id):  # it is a task already
            return await serve()
        when = self._tools.get(name or "", "never")
        if not declares_tasks(ctx.session.client_capabilities):
            if when == "required":
                raise tasks_not_declared()
            return await serve()
        handover = _Handover(ctx, self._store, self._ttl, self._create)
        if when in ("always", "required") and not goes_on:
            await handover.take(Continued(call_name(ctx)))
        else:
            token = HANDOVER.set(handover)
            try:
                result = await serve()
            finally:
                HANDOVER.reset(token)
            if handover.refused is not None:  # which FastMCP makes a tool's error of
                raise handover.refused
            if handover.task is None:
                return result
        assert handover.task is not None
        return handle(handover.task, poll=self._poll)

    # --- the methods ------------------------------------------------------------------------

    async def get(self, ctx: Context, params: TaskParams) -> dict[str, Any]:
        """What a task is doing."""
        return details(await self._find(ctx, params.task_id), poll=self._poll)

    async def update(self, ctx: Context, params: UpdateParams) -> dict[str, Any]:
        """Give a task what it has asked for."""
        task = await self._find(ctx, params.task_id)
        answers = answers_to(task, params.input_responses)
        await self._store.tasks.change(task.id, lambda task, now: answered(task, now, answers))
        self._listeners.tell(task.id)
        self._on_answer()
        return {}

    async def cancel(self, ctx: Context, params: TaskParams) -> dict[str, Any]:
        """End a task that is not wanted any more."""
        task = await self._find(ctx, params.task_id)
        try:
            await self._store.tasks.change(
                task.id, lambda task, now: cancelled(task, now, message="The client cancelled it.")
            )
        except TaskEndedError:
            return {}  # a cancellation may come too late, and that is no error
        self._listeners.tell(task.id)
        self._on_cancel(task.id)
        return {}

    async def _find(self, ctx: Context, id: str) -> Task:
        """The task, if it is the caller's."""
        if not declares_tasks(ctx.session.client_capabilities):
            raise tasks_not_declared()
        check_routing(ctx.request, id)
        task = await self._of_caller(ctx, id)
        if task is None:
            raise unknown_task()
        return task

    async def _of_caller(self, ctx: Context, id: str) -> Task | None:
        task = await self._store.tasks.read(id)
        return task if task and task.principal == authenticated_principal(ctx) else None

    async def listen(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        """Tell a client that listens what happens to its tasks (SEP-2663, notifications)."""
        wanted = listened_for(ctx.params)
        if not wanted:
            return await call_next(ctx)
        if not declares_tasks(ctx.session.client_capabilities):
            raise tasks_not_declared()
        ids = [id for id in wanted if await self._of_caller(ctx, id)]
        return await self._listeners.serve(ctx, call_next, ids)


class _Handover:
    """The chance of one served call to become a task."""

    def __init__(
        self,
        ctx: Context,
        store: Store,
        ttl: float | None,
        create: Callable[[Task], Awaitable[Task]],
    ) -> None:
        self._ctx, self._ttl, self._create = ctx, ttl, create
        self.store, self.keep = store, kept_for(ttl)
        self.task: Task | None = None
        self.refused: MCPError | None = None

    async def take(self, continued: Continued) -> None:
        try:
            self.task = await self._create(self._new(continued))
        except MCPError as error:
            self.refused = error
            raise

    def _new(self, continued: Continued) -> Task:
        return Task(
            id=secrets.token_urlsafe(24),
            call=continued.call,
            request=_request(self._ctx),
            principal=authenticated_principal(self._ctx),
            caller=caller(),
            ttl=self._ttl,
            round=continued.round,
            asks=continued.asks or {},
            status=Status.INPUT_REQUIRED if continued.asks else Status.WORKING,
        )


def _request(ctx: Context) -> dict[str, Any]:
    """The call as it can be made again: without what belongs to one request only."""
    params = repeatable(ctx)
    meta = dict(params.get("_meta") or {})
    meta.pop("progressToken", None)
    return params | {"_meta": meta}
