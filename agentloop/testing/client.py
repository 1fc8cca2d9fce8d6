"""A real MCP client in memory, whose model is any provider and whose manners can be bad."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Literal

import anyio
from mcp import Client, InputRequiredRoundsExceededError, MCPError
from mcp.client import ClientRequestContext
from mcp_types import (
    REQUEST_TIMEOUT,
    CallToolResult,
    CreateMessageRequestParams,
    CreateMessageResult,
    CreateMessageResultWithTools,
    ElicitRequestParams,
    ElicitResult,
    ErrorData,
    InputRequest,
    InputRequiredResult,
    InputResponses,
    Result,
    SamplingCapability,
    SamplingToolsCapability,
)

from agentloop.mcp.callback import sampling_callback
from agentloop.mcp.tasks.client import FollowTasks, TaskDetails, TaskHandle, answer_all
from agentloop.place import User
from agentloop.provider import Provider

Carrier = Literal["push", "rounds", "task"]
Asks = bool | int | frozenset[int] | set[int]
"""Which asks something happens to: none, all, one by its number (from 1), or several."""

DEFAULT_MAX_ROUNDS = 10
"""After so many rounds the clients of the Python, TypeScript, C#, Go and Rust SDKs give up."""


class MockClient:
    """The SDK's own client, connected to a server in this process.

    ``carrier`` picks the protocol era: ``push`` speaks 2025-11-25, ``rounds`` 2026-07-28, and
    ``task`` does that and can deal with tasks (SEP-2663). The other arguments are what clients
    really do: declare no ``sampling`` or no ``sampling.tools``; deny an ask, never answer it,
    answer that it timed out, or go away instead; give up after ``max_rounds``; and report any
    ``stop_reason`` they like.

    Use it as an async context manager. ``asks`` holds the requests that arrived, ``questions`` what
    its user was asked, ``rounds`` how
    many rounds the last call took, ``progress`` the progress messages of the last call.
    """

    def __init__(
        self,
        server: Any,
        provider: Provider | None = None,
        *,
        carrier: Carrier = "rounds",
        sampling: bool = True,
        tools: bool = True,
        max_rounds: int = DEFAULT_MAX_ROUNDS,
        denies: Asks = False,
        ignores: Asks = False,
        times_out: Asks = False,
        disconnects: Asks = False,
        user: User | None = None,
        stop_reason: str | Callable[[str | None], str | None] | None = None,
        poll: float | None = 0.01,
    ) -> None:
        """``server`` is an ``MCPServer``, a low-level ``Server`` or a ``FastMCP``; without a
        ``provider`` the client declares no sampling, without a ``user`` no elicitation. It asks for
        its tasks every ``poll`` seconds; None for as often as the server suggests."""
        self.asks: list[CreateMessageRequestParams] = []
        self.rounds = 0
        self.progress: list[str] = []
        self._max_rounds = max_rounds
        self._denies, self._ignores = denies, ignores
        self._times_out, self._disconnects = times_out, disconnects
        self._stop_reason = stop_reason
        self._user = user
        self.questions: list[ElicitRequestParams] = []
        self.news: list[TaskHandle | TaskDetails] = []
        """What the server said of its tasks, in order."""
        self._tasks = FollowTasks(poll=poll, on_news=self.news.append)
        self._answer = sampling_callback(provider) if provider else None
        self._scope: anyio.CancelScope | None = None
        self._gone = False
        declared = SamplingCapability(tools=SamplingToolsCapability() if tools else None)
        self._client = Client(
            _low_level(server),
            mode="legacy" if carrier == "push" else "auto",
            sampling_callback=self._sample if sampling and provider else None,
            sampling_capabilities=declared if sampling and provider else None,
            elicitation_callback=self._elicit if user else None,
            extensions=[self._tasks] if carrier == "task" else None,
        )
        self._stack = AsyncExitStack()

    @property
    def client(self) -> Client:
        """The SDK's client itself, for everything that is not a tool call."""
        return self._client

    async def __aenter__(self) -> MockClient:
        await self._stack.enter_async_context(self._client)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        return await self._stack.__aexit__(kind, error, trace)

    async def call_tool(
        self,
        name: str,
        arguments: dict[str, Any] | None = None,
        *,
        between_rounds: Callable[[InputRequiredResult], Awaitable[None]] | None = None,
    ) -> CallToolResult:
        """Call a tool and answer its asks to the end.

        ``between_rounds`` sees each round before its asks are answered. Raises ``MCPError`` where
        the server or the client's own callback answers with an error,
        ``InputRequiredRoundsExceededError`` past ``max_rounds``, and ``ConnectionError`` once the
        client has gone away.
        """
        self.rounds, self.progress = 0, []
        with anyio.CancelScope() as self._scope:
            result = await self._call(name, arguments, None, None)
            while isinstance(result, InputRequiredResult):
                self.rounds += 1
                if self.rounds > self._max_rounds:
                    raise InputRequiredRoundsExceededError(self._max_rounds)
                if between_rounds is not None:
                    await between_rounds(result)
                answers = await self._answer_all(result.input_requests or {})
                result = await self._call(name, arguments, answers, result.request_state)
            if isinstance(result, CallToolResult):
                return result
            assert isinstance(result, TaskHandle)
            self.news.append(result)
            return await self._tasks.follow(self._client.session, result.task_id)
        raise ConnectionError(f"the mock client went away at ask {len(self.asks)}")

    async def _call(
        self,
        name: str,
        arguments: dict[str, Any] | None,
        answers: InputResponses | None,
        state: str | None,
    ) -> CallToolResult | InputRequiredResult | Result:
        return await self._client.session.call_tool(
            name,
            arguments,
            input_responses=answers,
            request_state=state,
            progress_callback=self._on_progress,
            allow_input_required=True,
            allow_claimed=True,
        )

    async def _answer_all(self, requests: dict[str, InputRequest]) -> InputResponses:
        answers, refused = await answer_all(self._client.session, requests)
        if refused is not None:
            raise MCPError.from_error_data(refused)
        return answers

    async def _sample(
        self, context: ClientRequestContext, params: CreateMessageRequestParams
    ) -> CreateMessageResult | CreateMessageResultWithTools | ErrorData:
        assert self._answer is not None
        self.asks.append(params)
        number = len(self.asks)
        if _hits(self._disconnects, number):
            assert self._scope is not None
            self._scope.cancel()
            await anyio.sleep_forever()
        if _hits(self._ignores, number):
            await anyio.sleep_forever()
        if _hits(self._denies, number):
            return ErrorData(code=-1, message="User rejected sampling request")
        if _hits(self._times_out, number):
            return ErrorData(code=REQUEST_TIMEOUT, message="The model did not answer in time")
        said = await self._answer(context, params)
        if self._stop_reason is None or isinstance(said, ErrorData):
            return said
        lie = self._stop_reason
        reason = lie(said.stop_reason) if callable(lie) else lie
        return said.model_copy(update={"stop_reason": reason})

    async def _elicit(
        self, context: ClientRequestContext, params: ElicitRequestParams
    ) -> ElicitResult | ErrorData:
        assert self._user is not None
        self.questions.append(params)
        return await self._user(params)

    async def _on_progress(self, progress: float, total: float | None, message: str | None) -> None:
        self.progress.append(message or "")


def _hits(asks: Asks, number: int) -> bool:
    if isinstance(asks, bool):
        return asks
    return number == asks if isinstance(asks, int) else number in asks


def _low_level(server: Any) -> Any:
    """The SDK's server inside a FastMCP; any other server as it is."""
    return getattr(server, "_mcp_server", server)
