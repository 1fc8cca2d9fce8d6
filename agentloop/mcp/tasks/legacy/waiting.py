"""The wait of a client of 2025-11-25 for the result of a task, in which it is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import anyio
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import (
    CONNECTION_CLOSED,
    CreateMessageRequest,
    ElicitRequest,
    InputRequest,
    ListRootsResult,
    ProgressNotification,
    ProgressNotificationParams,
    TaskStatusNotification,
    TaskStatusNotificationParams,
)
from pydantic import TypeAdapter, ValidationError

from agentloop.errors import ProviderError, StoreError
from agentloop.log import log
from agentloop.mcp.alongside import alongside
from agentloop.mcp.push import PushProvider
from agentloop.mcp.refused import as_answer
from agentloop.mcp.request import Request
from agentloop.mcp.served import elicited
from agentloop.mcp.stream import RETURN_SECONDS
from agentloop.mcp.tasks.legacy.wire import related, seen
from agentloop.mcp.tasks.wire import unknown_task
from agentloop.task import Task, TaskStore, answered
from agentloop.transcript import WIRE

Context = ServerRequestContext[Any, Any]

_POLL_SECONDS = (0.02, 0.5)
_REQUEST: TypeAdapter[InputRequest] = TypeAdapter(InputRequest)


class Waiting:
    """The wait for the result of a task, in which its client is asked.

    It is asked on the stream of the request that waits, or beside one that was answered.
    """

    def __init__(
        self,
        ctx: Context,
        tasks: TaskStore,
        on_answer: Callable[[], None],
        *,
        poll: float,
        answered: bool,
        stream_seconds: float | None,
    ) -> None:
        """``on_answer`` is told when a task was given an answer."""
        self._ctx, self._tasks, self._on_answer, self._poll = ctx, tasks, on_answer, poll
        id = str(ctx.request_id)
        self._request = Request(ctx, ctx, ctx.session, id, {}, None, answered=answered)
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
        news = TaskStatusNotificationParams.model_validate(seen(task, poll=self._poll))
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
