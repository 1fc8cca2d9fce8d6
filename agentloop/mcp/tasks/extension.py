"""The tasks of a server, for clients of each revision, and who works on them."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, TypeVar
from weakref import WeakSet

import anyio
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.extension import Extension, MethodBinding, RequestHandler
from mcp.shared.exceptions import MCPError
from mcp_types import METHOD_NOT_FOUND, CallToolRequestParams, PaginatedRequestParams
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from agentloop.errors import DefinitionError, TooManyTasksError
from agentloop.mcp.handover import EXTENSION, When
from agentloop.mcp.stream import STREAM_SECONDS
from agentloop.mcp.tasks.call import author_setting, low_level
from agentloop.mcp.tasks.legacy import REVISION, LegacyTasks
from agentloop.mcp.tasks.listen import LISTEN, Listeners
from agentloop.mcp.tasks.modern import ModernTasks, UpdateParams
from agentloop.mcp.tasks.wire import TaskParams, too_many_tasks
from agentloop.mcp.tasks.worker import Worker
from agentloop.store import Store, check_store
from agentloop.strays import stray
from agentloop.task import Task, TaskLimits

S = TypeVar("S")
StateT = TypeVar("StateT")

Context = ServerRequestContext[Any, Any]
Lifespan = Callable[[S], AbstractAsyncContextManager[StateT]]

DAY = 86_400.0
MODERN = frozenset(MODERN_PROTOCOL_VERSIONS)


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
        most_open: int | None = 10_000,
        most_open_per_principal: int | None = 1_000,
        grace: float = 0.0,
        stream_seconds: float | None = STREAM_SECONDS,
    ) -> None:
        """``tools`` says of tools that are no agents of ours when their calls become tasks.

        A task is kept for ``ttl`` seconds after its creation, and clients are told to ask every
        ``poll`` seconds. A server looks every ``look_every`` seconds for tasks that others have
        left, works on ``at_once`` of them at most, and on ``per_principal`` of any one caller. When
        it stops, it goes on for ``grace`` seconds with those it works on; what is not through by
        then is left to others, or to its next start.

        ``most_open`` tasks may be open in the store, and ``most_open_per_principal`` of any one
        caller that the transport authenticates; a call that would become one more is refused.

        Clients of 2025-11-25 that wait for a result over HTTP get a new stream every
        ``stream_seconds``, where the host has an event store.
        """
        check_store(store)
        self._store = store
        self._tools: dict[str, When] = dict(tools or {})
        self._grace = grace
        self._limits = TaskLimits(
            most_open=most_open, most_open_per_principal=most_open_per_principal
        )
        listeners = Listeners(store.tasks, poll=poll, look_every=look_every)
        self._make_worker = lambda: Worker(
            store,
            at_once=at_once,
            per_principal=per_principal,
            look_every=look_every,
            on_change=listeners.tell,
        )
        self._workers: set[Worker] = set()
        self._modern = ModernTasks(
            store,
            tools=self._tools,
            ttl=ttl,
            poll=poll,
            listeners=listeners,
            create=self._create,
            on_answer=self._look,
            on_cancel=self._drop,
        )
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
        name, goes_on = params.get("name"), "requestState" in params
        return await self._serve_call(name, goes_on, ctx, call_next)

    async def intercept_tool_call(
        self, params: CallToolRequestParams, ctx: Context, call_next: CallNext
    ) -> HandlerResult:
        """Give the call the chance to become a task."""
        return await self._serve_call(params.name, params.request_state is not None, ctx, call_next)

    async def _serve_call(
        self, name: str | None, goes_on: bool, ctx: Context, call_next: CallNext
    ) -> HandlerResult:
        if ctx.protocol_version not in MODERN:
            return await call_next(ctx)
        return await self._modern.serve(name, goes_on, ctx, lambda: call_next(ctx))

    async def _around_listening(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        if ctx.method != LISTEN or ctx.protocol_version not in MODERN:
            return await call_next(ctx)
        return await self._modern.listen(ctx, call_next)

    async def _create(self, task: Task) -> Task:
        if not self._workers:
            raise DefinitionError(
                "nobody works on tasks here: give the server lifespan=tasks.lifespan()"
            )
        try:
            task = await self._store.tasks.create(task, limits=self._limits)
        except TooManyTasksError as error:
            raise too_many_tasks(error) from error
        self._look()
        return task

    def _look(self) -> None:
        for worker in self._workers:
            worker.look()

    def _drop(self, id: str) -> None:
        for worker in self._workers:
            worker.drop(id)

    # --- the clients' side -----------------------------------------------------------------

    def methods(self) -> list[MethodBinding]:
        """What clients of each revision may ask about tasks."""
        legacy, both = frozenset({REVISION}), MODERN | {REVISION}
        return [
            MethodBinding("tasks/get", TaskParams, self._get, both),
            MethodBinding("tasks/update", UpdateParams, self._modern.update, MODERN),
            MethodBinding("tasks/cancel", TaskParams, self._cancel, both),
            MethodBinding("tasks/result", TaskParams, self._legacy.result, legacy),
            MethodBinding("tasks/list", PaginatedRequestParams, self._legacy.list, legacy),
        ]

    def _of(self, ctx: Context) -> ModernTasks | LegacyTasks:
        """Who answers clients of the request's revision."""
        return self._modern if ctx.protocol_version in MODERN else self._legacy

    async def _get(self, ctx: Context, params: TaskParams) -> dict[str, Any]:
        return await self._of(ctx).get(ctx, params)

    async def _cancel(self, ctx: Context, params: TaskParams) -> dict[str, Any]:
        return await self._of(ctx).cancel(ctx, params)


def _gated(method: MethodBinding) -> RequestHandler:
    """The handler of ``method``, for the revisions that have it."""

    async def handler(ctx: Context, params: Any) -> HandlerResult:
        if ctx.protocol_version not in (method.protocol_versions or ()):
            raise MCPError(METHOD_NOT_FOUND, "Method not found", method.method)
        return await method.handler(ctx, params)

    return handler
