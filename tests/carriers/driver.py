"""Rounds by hand: each is a call of its own, on a connection of its own."""

from __future__ import annotations

from typing import Any

from mcp import Client, MCPError
from mcp.client import ClientRequestContext
from mcp_types import (
    CallToolResult,
    CreateMessageRequest,
    CreateMessageRequestParams,
    CreateMessageResult,
    CreateMessageResultWithTools,
    ErrorData,
    InputRequiredResult,
    InputResponses,
)

from agentloop.mcp.callback import TOOLS, sampling_callback
from agentloop.provider import Provider


async def call_once(
    server: Any,
    name: str,
    arguments: dict[str, Any] | None = None,
    *,
    answers: InputResponses | None = None,
    state: str | None = None,
) -> CallToolResult | InputRequiredResult:
    """Enter a tool for one round, as a client that declares ``sampling.tools``.

    Raises ``MCPError`` where the server answers with an error.
    """
    async with Client(server, sampling_callback=_never, sampling_capabilities=TOOLS) as client:
        try:
            return await client.session.call_tool(
                name,
                arguments,
                input_responses=answers,
                request_state=state,
                allow_input_required=True,
            )
        except MCPError as error:
            refused = error  # raised outside, where no task group wraps it
    raise refused


async def answers_to(round_: InputRequiredResult, model: Provider) -> InputResponses:
    """What ``model`` says to the asks of a round."""
    answer = sampling_callback(model)
    answers: InputResponses = {}
    for key, request in (round_.input_requests or {}).items():
        assert isinstance(request, CreateMessageRequest)
        said = await answer(None, request.params)  # type: ignore[arg-type]
        assert not isinstance(said, ErrorData), said
        answers[key] = said
    return answers


async def _never(
    context: ClientRequestContext, params: CreateMessageRequestParams
) -> CreateMessageResult | CreateMessageResultWithTools | ErrorData:
    raise AssertionError("asks are answered by hand")
