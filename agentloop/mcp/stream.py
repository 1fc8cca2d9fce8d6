"""The stream on which a call over HTTP is answered, closed now and then (SEP-1699).

Proxies and clients end a stream that lasts too long. Where the host keeps events, a stream can end
before they do: the client comes back for what it has missed, and the call never knew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata
from mcp_types import CONNECTION_CLOSED, REQUEST_TIMEOUT, EmptyResult, PingRequest

STREAM_SECONDS = 25.0
"""How long a stream lasts: less than the shortest limits of common proxies, which are 29 and 30."""

RETURN_SECONDS = 5.0
"""How long a client may need to answer before the stream is closed once more."""

SETTLE_SECONDS = 0.2
"""How long the host may need, at first, from what it sends again to what it sends anew."""


class Stream:
    """The stream of one request.

    While the client comes back, what leaves may be missed for good: it is too late for what the
    host sends again, and too early for the new stream. So nothing is asked or answered until the
    client has answered a ping that it can only have got on the new stream.
    """

    def __init__(self) -> None:
        self._back: anyio.Event | None = None
        self._settle = SETTLE_SECONDS

    async def open(self) -> None:
        """Wait until the client is there."""
        if self._back is not None:
            await self._back.wait()

    async def keep_short(
        self,
        wire: ServerRequestContext[Any, Any],
        seconds: float,
        on_back: Callable[[], None] | None = None,
    ) -> None:
        """Close the stream every ``seconds``, until the session ends or this is cancelled.

        ``on_back`` is called each time that the client is back.
        """
        there = wire.close_sse_stream is not None
        while there:
            await anyio.sleep(seconds)
            self._back = anyio.Event()
            there = await self._renewed(wire)
            self._back.set()
            if on_back is not None:
                on_back()

    async def _renewed(self, wire: ServerRequestContext[Any, Any]) -> bool:
        """Close the stream, and wait for the client; whether it came back."""
        while wire.close_sse_stream is not None:
            await wire.close_sse_stream()
            try:
                await _ping(wire)  # which it may have got with what it had missed
                await anyio.sleep(self._settle)
                await _ping(wire)
            except MCPError as error:
                if error.code == CONNECTION_CLOSED:
                    break
                self._settle *= 2
            else:
                return True
        return False


async def _ping(wire: ServerRequestContext[Any, Any]) -> None:
    """Wait until the client shows that it heard. Raises ``MCPError`` where it does not."""
    try:
        await wire.session.send_request(
            PingRequest(),
            EmptyResult,
            request_read_timeout_seconds=RETURN_SECONDS,
            metadata=ServerMessageMetadata(related_request_id=wire.request_id),
        )
    except MCPError as error:
        if error.code in (CONNECTION_CLOSED, REQUEST_TIMEOUT):
            raise
