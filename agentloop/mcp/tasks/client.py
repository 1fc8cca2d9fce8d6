"""A client that deals with tasks: it waits for their results, and answers what they ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import anyio
from mcp import ClientSession, MCPError
from mcp.client import ClientRequestContext
from mcp.client.extension import ClaimContext, ClientExtension, ResultClaim
from mcp_types import (
    INTERNAL_ERROR,
    CallToolResult,
    EmptyResult,
    ErrorData,
    InputRequest,
    InputRequests,
    InputResponses,
    Request,
    RequestParams,
    Result,
)

from agentloop.mcp.handover import EXTENSION


class TaskOutline(Result):
    """What a server always says of a task."""

    task_id: str
    status: str
    status_message: str | None = None
    created_at: str | None = None
    last_updated_at: str | None = None
    ttl_ms: int | None = None
    poll_interval_ms: int | None = None


class TaskHandle(TaskOutline):
    """What a server gives in place of a result: ``CreateTaskResult`` of SEP-2663."""

    result_type: Literal["task"] = "task"


class TaskDetails(TaskOutline):
    """What a server says of a task that it is asked for: ``DetailedTask`` of SEP-2663."""

    input_requests: InputRequests | None = None
    result: dict[str, Any] | None = None
    error: ErrorData | None = None


class TaskParams(RequestParams):
    """The ``params`` of requests about one task."""

    task_id: str


class UpdateParams(TaskParams):
    """The ``params`` of ``tasks/update``."""

    input_responses: InputResponses


class GetTask(Request[TaskParams, Literal["tasks/get"]]):
    """Asks what a task is doing."""

    method: Literal["tasks/get"] = "tasks/get"
    params: TaskParams
    name_param = "taskId"


class UpdateTask(Request[UpdateParams, Literal["tasks/update"]]):
    """Brings answers to what a task asked."""

    method: Literal["tasks/update"] = "tasks/update"
    params: UpdateParams
    name_param = "taskId"


class CancelTask(Request[TaskParams, Literal["tasks/cancel"]]):
    """Says that a task is not wanted any more."""

    method: Literal["tasks/cancel"] = "tasks/cancel"
    params: TaskParams
    name_param = "taskId"


class FollowTasks(ClientExtension):
    """Lets a client of the SDK deal with tasks: ``Client(server, extensions=[FollowTasks()])``.

    ``call_tool`` then gives the task's result, like that of any other call. What the task asks goes
    to the client's own callbacks; if they refuse, the task is cancelled and the refusal raised. A
    caller that is cancelled leaves the task alone: ask for it again by its id.
    """

    identifier = EXTENSION

    def __init__(
        self,
        *,
        poll: float | None = None,
        on_news: Callable[[TaskHandle | TaskDetails], None] | None = None,
    ) -> None:
        """``poll`` is in seconds, by default what the server suggests; ``on_news`` sees each new
        state of a task, its handle first."""
        self._poll = poll
        self._on_news = on_news or _ignore

    def claims(self) -> list[ResultClaim[Any]]:
        return [ResultClaim(result_type="task", model=TaskHandle, resolve=self._resolve)]

    async def _resolve(self, handle: TaskHandle, context: ClaimContext) -> CallToolResult:
        self._on_news(handle)
        return await self.follow(context.session, handle.task_id)

    async def follow(self, session: ClientSession, id: str) -> CallToolResult:
        """The result of a task, once it has one; answers what it asks meanwhile.

        Raises ``MCPError`` for a task that failed, was cancelled or is not there.
        """
        told: set[str] = set()
        while True:
            news = await session.send_request(GetTask(params=TaskParams(task_id=id)), TaskDetails)
            self._on_news(news)
            if news.status == "completed":
                return CallToolResult.model_validate(news.result)
            if news.status == "failed" and news.error is not None:
                raise MCPError.from_error_data(news.error)
            if news.status in ("failed", "cancelled"):
                why = news.status_message or "it was not said why"
                raise MCPError(code=INTERNAL_ERROR, message=f"the task {news.status}: {why}")
            # What was answered may be asked for a while longer: an update takes its time.
            asks = {k: ask for k, ask in (news.input_requests or {}).items() if k not in told}
            if asks:
                await self._answer(session, id, asks)
                told.update(asks)
            else:
                await anyio.sleep(self._pause(news))

    def _pause(self, news: TaskDetails) -> float:
        return (news.poll_interval_ms or 1000) / 1000 if self._poll is None else self._poll

    async def _answer(self, session: ClientSession, id: str, asked: InputRequests) -> None:
        answers, refused = await answer_all(session, asked)
        if refused is not None:
            await session.send_request(CancelTask(params=TaskParams(task_id=id)), EmptyResult)
            raise MCPError.from_error_data(refused)
        params = UpdateParams(task_id=id, input_responses=answers)
        await session.send_request(UpdateTask(params=params), EmptyResult)


def _ignore(news: TaskHandle | TaskDetails) -> None:
    """Nobody wants to know."""


async def answer_all(
    session: ClientSession, asked: InputRequests
) -> tuple[InputResponses, ErrorData | None]:
    """What the client's own callbacks answer to all that is asked, at the same time.

    With the first refusal the others are given up.
    """
    answers: InputResponses = {}
    refused: ErrorData | None = None

    async def answer(key: str, request: InputRequest) -> None:
        nonlocal refused
        context = ClientRequestContext(session=session, request_id=key)
        said = await session.dispatch_input_request(context, request)
        if isinstance(said, ErrorData):
            refused = said
            group.cancel_scope.cancel()
        else:
            answers[key] = said

    async with anyio.create_task_group() as group:
        for key, request in asked.items():
            group.start_soon(answer, key, request)
    return {key: answers[key] for key in asked if key in answers}, refused
