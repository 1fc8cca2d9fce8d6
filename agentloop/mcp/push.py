"""Carrier *push*: an ask is a request to the client, sent while the tool call waits.

For clients that negotiated 2025-11-25 or older.
"""

from __future__ import annotations

from mcp.shared.exceptions import MCPError, NoBackChannelError
from mcp_types import (
    INVALID_PARAMS,
    REQUEST_TIMEOUT,
    CreateMessageRequestParams,
    CreateMessageResultWithTools,
)
from pydantic import ValidationError

from agentloop.errors import (
    AskTimeoutError,
    BadRequestError,
    DeniedError,
    MalformedReplyError,
    OverloadedError,
    ProviderError,
)
from agentloop.mcp.callback import ERROR_KEY
from agentloop.mcp.refused import KINDS
from agentloop.mcp.request import Request
from agentloop.mcp.written import Writer
from agentloop.meta import Reply

USER_REJECTED = -1
"""The code with which a client says that its user rejected the request (sampling, Errors)."""

_DENIALS = ("denied", "reject", "declin", "not allowed", "disabled by")
_RATE_LIMITS = ("rate limit", "too many requests", "quota")


class PushProvider:
    """The client of one request as a provider."""

    name = "client (push)"

    def __init__(self, request: Request) -> None:
        self._request = request
        self._writer = Writer()

    async def sample(self, request: CreateMessageRequestParams) -> Reply:
        """Send ``request`` to the client and wait for its answer.

        An answer that is no sampling result is asked for once more.
        """
        try:
            return await self._send(request)
        except ValidationError:
            pass
        try:
            return await self._send(request)
        except ValidationError as error:
            where = ".".join(str(part) for part in error.errors()[0]["loc"])
            raise MalformedReplyError(
                f"the client's answer is no sampling result (at {where or 'the root'})"
            ) from error

    async def _send(self, request: CreateMessageRequestParams) -> Reply:
        try:
            return await self._request.ask(
                self._writer.request(request),
                # It takes one block and a list of them, as the protocol has it with and without
                # tools; the SDK's other type takes one block only.
                CreateMessageResultWithTools,
            )
        except MCPError as error:
            raise refusal(error) from error


def _code(error: MCPError) -> str:
    data = error.data
    told: object = data.get(ERROR_KEY) if isinstance(data, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return str(told.get("code")) if isinstance(told, dict) else ""  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]


def refusal(error: MCPError) -> ProviderError:
    """What a client's error means for the run. Clients agree on little but the code -1."""
    said = error.message.lower()
    message = f"{error.message} (code {error.code})"
    if (kind := KINDS.get(_code(error))) is not None:  # the client is one of ours, and says it
        return kind(message)
    if error.code == USER_REJECTED or any(word in said for word in _DENIALS):
        return DeniedError(message)
    if error.code == REQUEST_TIMEOUT or "timed out" in said or "timeout" in said:
        return AskTimeoutError(message)
    if any(word in said for word in _RATE_LIMITS):
        return OverloadedError(message)
    if isinstance(error, NoBackChannelError) or error.code == INVALID_PARAMS:
        return BadRequestError(message)
    return ProviderError(message)
