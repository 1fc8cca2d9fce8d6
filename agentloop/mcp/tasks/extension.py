"""The tasks of a server: what clients ask about them, and who works on them."""

from __future__ import annotations

import math
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, TypeVar
from weakref import WeakSet

import anyio
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.extension import Extension, MethodBinding, RequestHandler
from mcp.server.request_state import authenticated_principal
from mcp.shared.exceptions import MCPError
from mcp_types import METHOD_NOT_FOUND, CallToolRequestParams, PaginatedRequestParams
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from agentloop.errors import DefinitionError, TaskEndedError, TooManyTasksError
from agentloop.mcp.handover import (
    EXTENSION,
    HANDOVER,
    Continued,
    When,
    declares_tasks,
    kept_for,
    running,
    tasks_not_declared,
)
from agentloop.mcp.request import call_name
from agentloop.mcp.stream import STREAM_SECONDS
from agentloop.mcp.tasks.call import author_setting, low_level
from agentloop.mcp.tasks.legacy import REVISION, LegacyTasks, TaskParams
from agentloop.mcp.tasks.listen import LISTEN, Listeners, listened_for
from agentloop.mcp.tasks.principal import caller
from agentloop.mcp.tasks.wire import answers_to, check_routing, details, handle, too_many_tasks, unknown_task
from agentloop.mcp.tasks.worker import Worker
from agentloop.store import Store
from agentloop.strays import stray
from agentloop.task import Most, Status, Task, answered, cancelled

S = TypeVar("S")
StateT = TypeVar("StateT")

Context = ServerRequestContext[Any, Any]
Lifespan = Callable[[S], AbstractAsyncContextManager[StateT]]

DAY = 86_400.0
MODERN = frozenset(MODERN_PROTOCOL_VERSIONS)


class _UpdateParams(TaskParams):
    input_responses: dict[str, Any]
    """Checked where it is known what was asked: what nobody asked is ignored, whatever it is."""


class Tasks(Extension):
    """Lets calls go on without their clients, who come back for what came of them (SEP-2663).

    ::

        tasks = Tasks(SQLiteStore("tasks.db"))
        server = MCPServer("reports", extensions=[tasks], lifespan=tasks.lifespan())
        mount(server, agent, task="always")

    Any server with the same store answers for any task, and goes on with those of a server that is
    not heard of any more.
    """

    identifier = EXTENSION

    def __init__(
        self,
        store: Store,
        *,
        tools: Mapping[str, When] | None = None,
        ttl: float | None = DAY,
        poll: float = 1.0,
        look_every: float = 1.0,
        at_once: int = 64,
        per_principal: int | None = None,
        most: int | None = 10_000,
        most_per_principal: int | None = 1_000,
        grace: float = 0.0,
        stream_seconds: float | None = STREAM_SECONDS,
    ) -> None:
        """``tools`` says of tools that are no agents of ours when their calls become tasks.

        A task is kept for ``ttl`` seconds after its creation, and clients are told to ask every
        ``poll`` seconds. A server looks every ``look_every`` seconds for tasks that others have
        left, works on ``at_once`` of them at most, and on ``per_principal`` of any one caller. When
        it stops, it goes on for ``grace`` seconds with those it works on; what is not through by
        then is left to others, or to its next start.

        ``most`` tasks may be open in the store, and ``most_per_principal`` of any one caller that
        the transport authenticates; a call that would become one more is refused. Clients of 2025-11-25 that wait for a result
        over HTTP get a new stream every ``stream_seconds``, where the host has an event store.
        """
        self._store = store
        self._tools: dict[str, When] = dict(tools or {})
        self._ttl, self._poll, self._grace = ttl, poll, grace
        for name, number in (("most", most), ("most_per_principal", most_per_principal)):
            if number is not None and number < 1:
                raise DefinitionError(f"{name}={number!r} is not 1 or more")
        self._most = Most(in_all=most, per_principal=most_per_principal)
        self._listeners = Listeners(store.tasks, poll=poll, look_every=look_every)
        self._make_worker = lambda: Worker(
            store,
            at_once=at_once,
            per_principal=per_principal,
            look_every=look_every,
            on_change=self._listeners.tell,
        )
        self._workers: set[Worker] = set()
        self._legacy = LegacyTasks(
            store,
            ttl=ttl,
            poll=poll,
            create=self._create,
            on_answer=self._look,
            on_cancel=self._drop,
            stream_seconds=stream_seconds,
        )
        self._known = WeakSet[Any]()
        """Servers that serve clients of 2025-11-25, too."""

    # --- the server's side -----------------------------------------------------------------

    def lifespan(self, inner: Lifespan[S, StateT] | None = None) -> Lifespan[S, Any]:
        """The ``lifespan=`` of the server: works on tasks as long as it serves.

        ``inner`` is the lifespan that the server would have otherwise.
        """

        @asynccontextmanager
        async def lifespan(server: S) -> AsyncGenerator[Any]:
            if inner is None:
                async with self._at_work(server, {}):
                    yield {}
            else:
                async with inner(server) as state, self._at_work(server, state):
                    yield state

        return lifespan

    @asynccontextmanager
    async def _at_work(self, server: Any, state: Any) -> AsyncGenerator[None]:
        inner = low_level(server)
        if self._around_listening not in inner.middleware:
            # An extension may wrap calls of tools only, so this one is not among what it declares.
            inner.middleware.append(self._around_listening)
        self._serve_legacy(server)
        worker = self._make_worker()
        self._workers.add(worker)
        errand = stray(lambda: worker.work(inner, state))
        try:
            yield
            with anyio.move_on_after(self._grace):
                await worker.finish()
        finally:
            self._workers.discard(worker)
            worker.stop()
            with anyio.CancelScope(shield=True):
                await errand.wait(math.inf)
            if not self._workers:
                await self._legacy.stop()

    def _serve_legacy(self, server: Any) -> None:
        inner = low_level(server)
        if inner not in self._known:
            self._known.add(inner)
            inner.middleware.append(self._legacy.middleware(partial(self._setting, server)))

    async def _setting(self, server: Any, name: str) -> When | None:
        return self._tools.get(name) or await author_setting(server, name)

    def add_to(self, server: Any) -> None:
        """For hosts that take no extensions: the SDK's low-level ``Server`` and FastMCP."""
        inner = low_level(server)
        inner.extensions[self.identifier] = self.settings()
        inner.middleware.append(self._around_calls)
        for method in self.methods():
            inner.add_request_handler(method.method, method.params_type, _gated(method))

    async def _around_calls(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        if ctx.method != "tools/call" or ctx.request_id is None:
            return await call_next(ctx)
        params = ctx.params or {}
        return await self._serve(
            params.get("name"), "requestState" in params, ctx, lambda: call_next(ctx)
        )

    async def intercept_tool_call(
        self, params: CallToolRequestParams, ctx: Context, call_next: CallNext
    ) -> HandlerResult:
        """Give the call the chance to become a task.

        A client that cannot deal with tasks gets what it would get without them.
        """
        goes_on = params.request_state is not None
        return await self._serve(params.name, goes_on, ctx, lambda: call_next(ctx))

    async def _serve(
        self,
        name: str | None,
        goes_on: bool,
        ctx: Context,
        serve: Callable[[], Awaitable[HandlerResult]],
    ) -> HandlerResult:
        if running(ctx.request_id) or ctx.protocol_version not in MODERN:
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
            if handover.task is None:
                return result
        assert handover.task is not None
        return handle(handover.task, poll=self._poll)

    async def _create(self, task: Task) -> Task:
        if not self._workers:
            raise DefinitionError(
                "nobody works on tasks here: give the server lifespan=tasks.lifespan()"
            )
        try:
            task = await self._store.tasks.create(task, most=self._most)
        except TooManyTasksError as error:
            raise too_many_tasks(error) from error
        self._look()
        return task

    def _look(self) -> None:
        for worker in self._workers:
            worker.look()

    # --- the clients' side -----------------------------------------------------------------

    def methods(self) -> list[MethodBinding]:
        """What clients of each revision may ask about tasks."""
        legacy, both = frozenset({REVISION}), MODERN | {REVISION}
        return [
            MethodBinding("tasks/get", TaskParams, self._get, both),
            MethodBinding("tasks/update", _UpdateParams, self._update, MODERN),
            MethodBinding("tasks/cancel", TaskParams, self._cancel, both),
            MethodBinding("tasks/result", TaskParams, self._legacy.result, legacy),
            MethodBinding("tasks/list", PaginatedRequestParams, self._legacy.list, legacy),
        ]

    async def _get(self, ctx: Context, params: TaskParams) -> dict[str, Any]:
        if ctx.protocol_version not in MODERN:
            return await self._legacy.get(ctx, params)
        return details(await self._find(ctx, params.task_id), poll=self._poll)

    async def _update(self, ctx: Context, params: _UpdateParams) -> dict[str, Any]:
        task = await self._find(ctx, params.task_id)
        answers = answers_to(task, params.input_responses)
        await self._store.tasks.change(task.id, lambda task, now: answered(task, now, answers))
        self._listeners.tell(task.id)
        self._look()
        return {}

    async def _cancel(self, ctx: Context, params: TaskParams) -> dict[str, Any]:
        if ctx.protocol_version not in MODERN:
            return await self._legacy.cancel(ctx, params)
        task = await self._find(ctx, params.task_id)
        try:
            await self._store.tasks.change(
                task.id, lambda task, now: cancelled(task, now, message="The client cancelled it.")
            )
        except TaskEndedError:
            return {}  # a cancellation may come too late, and that is no error
        self._listeners.tell(task.id)
        self._drop(task.id)
        return {}

    def _drop(self, id: str) -> None:
        for worker in self._workers:
            worker.drop(id)

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

    async def _around_listening(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        """Tell a client that listens what happens to its tasks (SEP-2663, notifications)."""
        listens = ctx.method == LISTEN and ctx.protocol_version in MODERN
        wanted = listened_for(ctx.params) if listens else []
        if not wanted:
            return await call_next(ctx)
        if not declares_tasks(ctx.session.client_capabilities):
            raise tasks_not_declared()
        ids = [id for id in wanted if await self._of_caller(ctx, id)]
        return await self._listeners.serve(ctx, call_next, ids)


def _gated(method: MethodBinding) -> RequestHandler:
    """The handler of ``method``, for the revisions that have it."""

    async def handler(ctx: Context, params: Any) -> HandlerResult:
        if ctx.protocol_version not in (method.protocol_versions or ()):
            raise MCPError(METHOD_NOT_FOUND, "Method not found", method.method)
        return await method.handler(ctx, params)

    return handler


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

    async def take(self, continued: Continued) -> None:
        self.task = await self._create(
            Task(
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
        )


def _request(ctx: Context) -> dict[str, Any]:
    """The call as it can be made again: without what belongs to one request only."""
    params = dict(ctx.params or {})
    for name in ("inputResponses", "requestState", "task"):
        params.pop(name, None)
    meta = dict(params.get("_meta") or {})
    meta.pop("progressToken", None)
    return params | {"_meta": meta}
