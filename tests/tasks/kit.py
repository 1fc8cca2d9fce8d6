"""What tests of tasks share: servers with tasks on each host, a client that goes step by step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

import anyio
import fastmcp
from mcp import Client, MCPError
from mcp.client import ClientRequestContext
from mcp.server.lowlevel import Server
from mcp.server.mcpserver import MCPServer
from mcp_types import (
    CreateMessageRequest,
    CreateMessageRequestParams,
    ElicitRequestParams,
    ElicitResult,
    ErrorData,
    InputRequest,
    Request,
    Result,
)
from pydantic import ConfigDict, TypeAdapter

from agentloop.mcp import Tasks
from agentloop.mcp.callback import TOOLS, sampling_callback
from agentloop.mcp.tasks import FollowTasks
from agentloop.mcp.tasks.call import low_level
from agentloop.provider import Provider
from tests.faults.http import serving_http

JSON = dict[str, Any]
REQUEST: TypeAdapter[Any] = TypeAdapter(InputRequest)


def on_mcpserver(tasks: Tasks) -> Any:
    return MCPServer("host", extensions=[tasks], lifespan=tasks.lifespan(), log_level="CRITICAL")


def on_low_level(tasks: Tasks) -> Any:
    server: Server[Any] = Server("host", lifespan=tasks.lifespan())
    tasks.add_to(server)
    return server


def on_fastmcp(tasks: Tasks) -> Any:
    server = fastmcp.FastMCP("host", lifespan=tasks.lifespan())
    tasks.add_to(server)
    return server


HOSTS: dict[str, Callable[[Tasks], Any]] = {
    "MCPServer": on_mcpserver,
    "low-level": on_low_level,
    "FastMCP": on_fastmcp,
}


class Raw(Result):
    """A result as it came."""

    model_config = ConfigDict(extra="allow")
    result_type: str | None = None


class Step(Request[JSON, str]):
    """Any request about a task."""

    method: str
    params: JSON
    name_param = "taskId"


class Caller:
    """A client that does nothing by itself: it calls, asks, answers and cancels when it is told."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def call(
        self,
        name: str,
        arguments: JSON | None = None,
        *,
        answers: Any = None,
        state: str | None = None,
        meta: JSON | None = None,
    ) -> JSON:
        """The result of a call, whatever its kind."""
        result = await self.client.session.call_tool(
            name,
            arguments or {},
            input_responses=answers,
            request_state=state,
            meta=meta,
            allow_input_required=True,
            allow_claimed=True,
        )
        return result.model_dump(mode="json", by_alias=True, exclude_none=True)

    async def task(self, name: str, arguments: JSON | None = None, **more: Any) -> str:
        """The id of the task that a call becomes."""
        handle = await self.call(name, arguments, **more)
        assert handle["resultType"] == "task", handle
        return handle["taskId"]

    async def request(self, method: str, **params: Any) -> JSON:
        sent = Step(method=method, params=params)
        raw = await self.client.session.send_request(sent, Raw)
        return raw.model_dump(mode="json", by_alias=True, exclude_unset=True)

    async def get(self, id: str) -> JSON:
        return await self.request("tasks/get", taskId=id)

    async def update(self, id: str, answers: JSON) -> JSON:
        return await self.request("tasks/update", taskId=id, inputResponses=answers)

    async def cancel(self, id: str) -> JSON:
        return await self.request("tasks/cancel", taskId=id)

    async def until(self, id: str, *statuses: str, seconds: float = 8) -> JSON:
        """What the task is doing once it is in one of these states."""
        give_up = time.monotonic() + seconds
        while (news := await self.get(id))["status"] not in statuses:
            assert time.monotonic() < give_up, news
            await anyio.sleep(0.01)
        return news

    async def asked(self, id: str) -> JSON:
        """What the task asks, once it does."""
        return (await self.until(id, "input_required"))["inputRequests"]

    async def finish(self, id: str, model: Provider) -> JSON:
        """Let ``model`` answer all that the task asks, and give what came of it in the end."""
        final = ("completed", "failed", "cancelled")
        while (news := await self.until(id, "input_required", *final))["status"] not in final:
            await self.update(id, await answers_of(model, news["inputRequests"]))
        return news


@contextmanager
def served(server: Any, over: str) -> Iterator[Any]:
    """What a client connects to: the server itself, or its address over HTTP."""
    if over == "memory":
        yield server
        return
    app = server.http_app if isinstance(server, fastmcp.FastMCP) else server.streamable_http_app
    with serving_http(app) as url:
        yield url


async def answers_of(model: Provider, asked: JSON) -> JSON:
    """What ``model`` says to asks, in the protocol's JSON; people agree to everything."""
    sample = sampling_callback(model)
    answers: JSON = {}
    for key, ask in asked.items():
        request = REQUEST.validate_python(ask)
        if isinstance(request, CreateMessageRequest):
            said = await sample(None, request.params)  # type: ignore[arg-type]
            assert not isinstance(said, ErrorData), said
        else:
            said = ElicitResult(action="accept", content={})
        answers[key] = said.model_dump(mode="json", by_alias=True, exclude_none=True)
    return answers


@asynccontextmanager
async def calling(server: Any, *, tasks: bool = True, sampling: bool = True, **more: Any) -> Any:
    """A :class:`Caller`, connected to a server, that can be asked everything."""
    extensions = [FollowTasks(), *more.pop("extensions", [])] if tasks else None
    async with AsyncExitStack() as stack:
        client = Client(
            low_level(server),
            sampling_callback=_by_hand if sampling else None,
            sampling_capabilities=TOOLS if sampling else None,
            elicitation_callback=_by_hand,
            extensions=extensions,
            **more,
        )
        yield Caller(await stack.enter_async_context(client))


async def _by_hand(
    context: ClientRequestContext, params: CreateMessageRequestParams | ElicitRequestParams
) -> Any:
    raise AssertionError("everything is answered by hand")


async def refused(work: Any) -> MCPError:
    """The error that ``work`` ends with."""
    try:
        came = await work
    except MCPError as error:
        return error
    raise AssertionError(f"nothing was refused: {came}")
