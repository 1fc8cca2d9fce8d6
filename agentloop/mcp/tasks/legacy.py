"""Tasks as 2025-11-25 has them (SEP-1686): the same tasks, seen by clients of that revision.

There the client decides that a call becomes a task, waits for its result in one request, and is
asked by requests of the server's while it waits. ``failed`` are also tasks whose result is an error
of the tool.
"""

from __future__ import annotations

import base64
import json
import math
import secrets
from collections.abc import Awaitable, Callable, Mapping
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
from mcp.server.streamable_http import REQUEST_CANCELLED
from mcp.shared.exceptions import MCPError
from mcp_types import (
    CLIENT_CAPABILITIES_META_KEY,
    CLIENT_INFO_META_KEY,
    CONNECTION_CLOSED,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    PROTOCOL_VERSION_META_KEY,
    SERVER_INFO_META_KEY,
    CreateMessageRequest,
    ElicitRequest,
    InputRequest,
    ListRootsResult,
    PaginatedRequestParams,
    ProgressNotification,
    ProgressNotificationParams,
    RequestParams,
    TaskStatusNotification,
    TaskStatusNotificationParams,
)
from mcp_types.methods import (
    serialize_server_result,
    validate_client_request,
)
from mcp_types.version import LATEST_MODERN_VERSION, MODERN_PROTOCOL_VERSIONS
from pydantic import TypeAdapter, ValidationError

from agentloop.errors import ProviderError, StoreError, TaskEndedError
from agentloop.log import log
from agentloop.mcp.alongside import alongside
from agentloop.mcp.handover import When
from agentloop.mcp.push import PushProvider
from agentloop.mcp.refused import as_answer
from agentloop.mcp.request import Request, call_name
from agentloop.mcp.served import elicited
from agentloop.mcp.stream import RETURN_SECONDS
from agentloop.mcp.tasks.principal import caller
from agentloop.mcp.tasks.wire import moment, unknown_task
from agentloop.store import Store
from agentloop.strays import Stray, stray
from agentloop.task import Status, Task, TaskStore, answered, cancelled
from agentloop.transcript import WIRE

Context = ServerRequestContext[Any, Any]
Setting = Callable[[str], Awaitable[When | None]]
"""When calls of a tool become tasks, by its name; None where nobody said."""

REVISION = "2025-11-25"
RELATED_TASK = "io.modelcontextprotocol/related-task"
"""In the ``_meta`` of whatever belongs to a task: its id."""

SUPPORT: Mapping[When, str] = {
    "never": "forbidden",
    "when_needed": "optional",
    "always": "optional",
    "required": "required",
}
"""What clients are told of a tool (``execution.taskSupport``)."""

ASKING_SECONDS = 3600.0
"""How long a client is asked that does not come for the result."""

PAGE = 50
"""Tasks in one answer to ``tasks/list``."""

_TOLD = 10_000
_POLL_SECONDS = (0.02, 0.5)
_ASKABLE = {"sampling", "elicitation", "roots"}
_REQUEST: TypeAdapter[InputRequest] = TypeAdapter(InputRequest)


class TaskParams(RequestParams):
    """The ``params`` of requests about one task."""

    task_id: str


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
        self._waiting: dict[str, _Waiting] = {}
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
                return _declaring(await call_next(ctx), listing=known)
            if ctx.protocol_version != REVISION:
                return await call_next(ctx)
            if ctx.method == "tools/list":
                return await _supporting(await call_next(ctx), setting)
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
                request=_request(ctx),
                principal=authenticated_principal(ctx),
                caller=caller(),
                ttl=self._granted(params["task"].get("ttl")),
            )
        )
        return {"task": self._seen(task), "_meta": related(task.id)}

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
        before = None if params.cursor is None else _position(params.cursor)
        tasks = await self._store.tasks.list(principal=principal, limit=PAGE + 1, before=before)
        page: dict[str, Any] = {"tasks": [self._seen(task) for task in tasks[:PAGE]]}
        if len(tasks) > PAGE:
            page["nextCursor"] = _cursor(tasks[PAGE - 1])
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
            return _outcome(await waiting.end_of(task))
        finally:
            self._leave(task, waiting)

    def _new_waiting(self, ctx: Context, *, answered: bool = False) -> _Waiting:
        return _Waiting(
            ctx,
            self._store.tasks,
            self._on_answer,
            self._seen,
            answered=answered,
            stream_seconds=None if answered else self._stream_seconds,
        )

    def _leave(self, task: Task, waiting: _Waiting) -> None:
        if self._waiting.get(task.id) is waiting:
            del self._waiting[task.id]

    async def _find(self, ctx: Context, id: str) -> Task:
        """The task, if it is the caller's."""
        task = await self._store.tasks.read(id)
        if task is None or task.principal != authenticated_principal(ctx):
            raise unknown_task()
        return task

    def _seen(self, task: Task) -> dict[str, Any]:
        """A task as this revision has it."""
        seen: dict[str, Any] = {
            "taskId": task.id,
            "status": "failed" if _is_error(task) else str(task.status),
            "createdAt": moment(task.created),
            "lastUpdatedAt": moment(task.updated),
            "ttl": None if task.ttl is None else round(task.ttl * 1000),
            "pollInterval": round(self._poll * 1000),
        }
        return seen | ({"statusMessage": task.message} if task.message else {})


class _Waiting:
    """The wait for the result of a task, in which its client is asked.

    It is asked on the stream of the request that waits, or beside one that was answered.
    """

    def __init__(
        self,
        ctx: Context,
        tasks: TaskStore,
        on_answer: Callable[[], None],
        seen: Callable[[Task], dict[str, Any]],
        *,
        answered: bool,
        stream_seconds: float | None,
    ) -> None:
        self._ctx, self._tasks, self._on_answer, self._seen = ctx, tasks, on_answer, seen
        id = str(ctx.request_id)
        self._request = Request(ctx, ctx.session, id, {}, None, answered=answered)
        self._stream_seconds = stream_seconds
        self._on = None if answered else ctx.request_id
        """The request on whose stream the client is told and asked."""
        self._asked: dict[tuple[int, str], anyio.CancelScope] = {}
        self._asks = True

    def ask_no_more(self) -> None:
        """Leave asking to another request, as this one's stream may have been left."""
        self._asks = False
        for scope in self._asked.values():
            scope.cancel()

    async def end_of(self, task: Task) -> Task:
        """The task, once it has ended. Raises ``MCPError`` where it expires before."""
        stream, seconds = self._request.stream, self._stream_seconds

        async def wait() -> Task:
            ended = await self._wait(task)
            with anyio.move_on_after(RETURN_SECONDS):
                await stream.open()
            return ended

        if seconds is None:
            return await self._wait(task)
        return await alongside(lambda: stream.keep_short(self._ctx, seconds), wait)

    async def _wait(self, task: Task) -> Task:
        found: Task | None = task
        pause, longest = _POLL_SECONDS
        async with anyio.create_task_group() as group:
            while found is not None and not found.status.final:
                self._ask(found, group)
                await anyio.sleep(pause)
                pause = min(pause * 1.5, longest)
                found = await self._read(task.id)
                if found and (found.status, found.message) != (task.status, task.message):
                    pause, _ = _POLL_SECONDS
                    await self._tell(found, task)
                    task = found
            group.cancel_scope.cancel()
        if found is None:
            raise unknown_task()
        return found

    async def _read(self, id: str) -> Task | None:
        while True:
            try:
                return await self._tasks.read(id)
            except StoreError as error:
                log().warning("tasks_not_read", error=str(error))
            await anyio.sleep(_POLL_SECONDS[1])

    async def _tell(self, task: Task, before: Task) -> None:
        """Tell the client that the task changed, and how far it has come."""
        send, on = self._ctx.session.send_notification, self._on
        news = TaskStatusNotificationParams.model_validate(self._seen(task))
        await send(TaskStatusNotification(params=news), related_request_id=on)  # pyright: ignore[reportArgumentType]
        meta: Mapping[str, Any] = task.request.get("_meta") or {}
        token = meta.get("progressToken")
        if token is not None and task.message != before.message and task.message:
            progress = ProgressNotificationParams(
                progress_token=token,
                # It rises over the task's whole life, wherever and as often as it is waited for.
                progress=round(task.updated - task.created, 3),
                message=task.message,
                _meta=related(task.id),
            )
            await send(ProgressNotification(params=progress), related_request_id=on)

    def _ask(self, task: Task, group: anyio.abc.TaskGroup) -> None:
        """Ask what is asked and was not yet; take back what was answered elsewhere."""
        open_asks = {(task.round, key): ask for key, ask in task.asks.items()}
        for key in [key for key in self._asked if key not in open_asks]:
            self._asked.pop(key).cancel()
        for (round_, key), ask in open_asks.items() if self._asks else ():
            if (round_, key) not in self._asked:
                scope = self._asked[round_, key] = anyio.CancelScope()
                group.start_soon(self._bring, task.id, key, ask, scope)

    async def _bring(
        self, id: str, key: str, ask: Mapping[str, Any], scope: anyio.CancelScope
    ) -> None:
        """Ask the client, and give its answer to the task."""
        with scope:
            try:
                answer = await self._answer(id, ask)
            except ConnectionError:
                return  # it may come back for the result, and be asked then
            await self._keep(id, {key: answer})

    async def _keep(self, id: str, answers: Mapping[str, Any]) -> None:
        """Give ``answers``, which may have been paid for, to the task; also to a store that fails
        for a while."""
        while True:
            try:
                with anyio.CancelScope(shield=True):
                    await self._tasks.change(id, lambda task, now: answered(task, now, answers))
                return self._on_answer()
            except StoreError as error:
                log().warning("answer_not_kept", task=id, error=str(error))
            await anyio.sleep(_POLL_SECONDS[1])

    async def _answer(self, id: str, ask: Mapping[str, Any]) -> dict[str, Any]:
        """What the client answers, or its refusal. Raises ``ConnectionError`` if it is gone."""
        params: dict[str, Any] = dict(ask.get("params") or {})
        params["_meta"] = {**(params.get("_meta") or {}), **related(id)}
        request = _REQUEST.validate_python({**ask, "params": params})
        try:
            if isinstance(request, CreateMessageRequest):
                reply = await PushProvider(self._request).sample(request.params)
            elif isinstance(request, ElicitRequest):
                reply = await elicited(self._request, request.params)
            else:
                reply = await self._request.ask(request, ListRootsResult)
        except (ProviderError, MCPError, ValidationError) as error:
            return _refusal(error)
        return reply.model_dump(**WIRE)


def _refusal(error: Exception) -> dict[str, Any]:
    cause = error.__cause__ if isinstance(error, ProviderError) else error
    if isinstance(cause, MCPError) and cause.code == CONNECTION_CLOSED:
        raise ConnectionError from error
    refused = error if isinstance(error, ProviderError) else ProviderError(str(error))
    return as_answer(refused)


# --- how it is written --------------------------------------------------------------------------


def related(id: str) -> dict[str, Any]:
    """What a message that belongs to a task has in its ``_meta``."""
    return {RELATED_TASK: {"taskId": id}}


def _is_error(task: Task) -> bool:
    """Whether the tool said that it failed: to this revision, the task did then."""
    return task.status is Status.COMPLETED and bool((task.outcome or {}).get("isError"))


def _outcome(task: Task) -> dict[str, Any]:
    """What the call of a task that has ended would have given to this revision's client."""
    outcome = dict(task.outcome or {})
    if task.status is Status.CANCELLED:
        raise MCPError(REQUEST_CANCELLED, "the task was cancelled")
    if task.status is Status.FAILED:
        raise MCPError(outcome["code"], outcome["message"], outcome.get("data"))
    try:
        written = serialize_server_result("tools/call", REVISION, outcome)
    except ValidationError as error:
        log().warning("result_not_of_revision", task=task.id, revision=REVISION)
        raise MCPError(INTERNAL_ERROR, "Handler returned an invalid result") from error
    meta: dict[str, Any] = dict(written.get("_meta") or {})
    meta.pop(SERVER_INFO_META_KEY, None)  # the next revision's, in which tasks are worked on
    return written | {"_meta": meta | related(task.id)}


def _request(ctx: Context) -> dict[str, Any]:
    """The call as a worker makes it: with what this revision's clients say once, at the start."""
    params = dict(ctx.params or {})
    for name in ("inputResponses", "requestState", "task"):
        params.pop(name, None)
    session = ctx.session
    declared: dict[str, Any] = {}
    if session.client_capabilities is not None and session.can_send_request:
        declared = session.client_capabilities.model_dump(**WIRE, include=_ASKABLE)
    meta: dict[str, Any] = {
        **(params.get("_meta") or {}),
        PROTOCOL_VERSION_META_KEY: LATEST_MODERN_VERSION,
        CLIENT_CAPABILITIES_META_KEY: declared,
    }
    if session.client_params is not None:
        meta[CLIENT_INFO_META_KEY] = session.client_params.client_info.model_dump(**WIRE)
    return params | {"_meta": meta}


def _declaring(result: HandlerResult, *, listing: bool) -> HandlerResult:
    """The result of ``initialize`` with what the server can do with tasks."""
    if not isinstance(result, dict) or result.get("protocolVersion") != REVISION:
        return result
    tasks: dict[str, Any] = {"cancel": {}, "requests": {"tools": {"call": {}}}}
    if listing:
        tasks["list"] = {}
    return result | {"capabilities": {**result["capabilities"], "tasks": tasks}}


async def _supporting(result: HandlerResult, setting: Setting) -> HandlerResult:
    """The result of ``tools/list`` with which tools can be called as tasks."""
    if not isinstance(result, dict):
        return result
    tools: list[dict[str, Any]] = []
    for tool in result["tools"]:
        when = await setting(str(tool["name"]))
        support: dict[str, Any] = (
            {} if when is None else {"execution": {"taskSupport": SUPPORT[when]}}
        )
        tools.append({**tool, **support})
    return result | {"tools": tools}


def _cursor(task: Task) -> str:
    """Where a page of tasks ends."""
    return base64.urlsafe_b64encode(json.dumps([task.created, task.id]).encode()).decode()


def _position(cursor: str) -> tuple[float, str]:
    try:
        created, id = json.loads(base64.urlsafe_b64decode(cursor))
        return float(created), str(id)
    except (ValueError, TypeError) as error:
        raise MCPError(INVALID_PARAMS, "the cursor is not one of this server's") from error
