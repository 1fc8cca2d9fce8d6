"""The MCP request that is being served, seen the same way in each of the three hosts."""

from __future__ import annotations

import hashlib
import inspect
import json
import secrets
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

from mcp.server.context import ServerRequestContext
from mcp.server.mcpserver import Context
from mcp.server.request_state import RequestStateBoundary, authenticated_principal
from mcp.server.session import ServerSession
from mcp.shared.message import ServerMessageMetadata
from mcp_types import CallToolRequestParams, InputResponses, ServerRequest
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import BaseModel

from agentloop.mcp.handover import Running, running
from agentloop.mcp.stream import Stream

AnswerT = TypeVar("AnswerT", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Request:
    """One ``tools/call``, as far as an agent loop cares."""

    context: Any
    """The host's own context object."""
    wire: ServerRequestContext[Any, Any]
    """The SDK's own context, which the others wrap."""
    session: ServerSession
    id: str
    answers: InputResponses
    """What the client answered to the asks of the round before (SEP-2322)."""
    state: str | None
    """The state that the client brought back; None in the first round."""
    sealed: bool = True
    """Whether state that crosses the wire is protected, as SEP-2322 demands."""
    stream: Stream = field(default_factory=Stream)
    """On which the client waits, where the transport has one for each request."""
    answered: bool = False
    """Whether the client has its answer already, and is asked beside it."""

    @property
    def params(self) -> Mapping[str, Any]:
        """The request's params as they came."""
        return self.wire.params or {}

    @property
    def arguments(self) -> Any:
        """What the tool was called with, unchecked."""
        return self.params.get("arguments")

    @property
    def wants_progress(self) -> bool:
        """Whether the client may want to hear of progress: it sends a token for that. In one
        process with the server, over rounds, it sends none and may still want to."""
        told = "progressToken" in (self.params.get("_meta") or {})
        return told or (self.in_rounds and self.wire.request is None)

    @property
    def principal(self) -> str | None:
        """Who calls, where the transport authenticated somebody."""
        return authenticated_principal(self.context)

    @property
    def running(self) -> Running | None:
        """The task that goes on in this request; None where it is a client's."""
        return running(self.id)

    def new_call(self) -> str:
        """A name for the call that begins with this request, see :func:`call_name`."""
        return call_name(self.wire)

    @property
    def in_rounds(self) -> bool:
        """Whether asks travel in results, for want of a way to send requests to the client."""
        return self.session.protocol_version in MODERN_PROTOCOL_VERSIONS

    async def ask(self, request: ServerRequest, answer: type[AnswerT]) -> AnswerT:
        """What the client answers to a request of the server's, which belongs to this one.

        Raises ``MCPError`` where it answers with an error, ``ValidationError`` for anything else.
        """
        await self.stream.open()
        return await self.session.send_request(
            request,
            answer,
            # Without it the request would leave on a stream that nobody may be reading, and
            # sampling is only allowed within a request of the client's (SEP-2260).
            metadata=None if self.answered else ServerMessageMetadata(related_request_id=self.id),
        )


IDEMPOTENCY_KEY = "dev.agentloop/idempotency-key"
"""In the ``_meta`` of a ``tools/call``: the same key with the same arguments is the same call, also
when the client never got the first answer."""


def call_name(wire: ServerRequestContext[Any, Any]) -> str:
    """A name for the call that begins with this request.

    The same each time where the client gave it a key of its own, and else unguessable.
    """
    params: Mapping[str, Any] = wire.params or {}
    meta: Mapping[str, Any] = params.get("_meta") or {}
    key = meta.get(IDEMPOTENCY_KEY)
    if not isinstance(key, str):
        return secrets.token_urlsafe(24)
    called = [params.get("name"), params.get("arguments"), authenticated_principal(wire)]
    named = f"{key}\n{json.dumps(called, sort_keys=True, separators=(',', ':'))}"
    return "k" + hashlib.sha256(named.encode("utf-8", "replace")).hexdigest()


REQUEST: ContextVar[Request | None] = ContextVar("agentloop_request", default=None)
"""The request that is being served."""


def request_in(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Request | None:
    """The request behind the arguments that a host gave to a handler or a tool function."""
    values = [*args, *kwargs.values()]
    for value in values:
        if isinstance(value, ServerRequestContext):
            return _of_low_level(value, values)  # pyright: ignore[reportUnknownArgumentType]
        if isinstance(value, Context) or _is_fastmcp(value):
            return _of_context(value)  # pyright: ignore[reportUnknownArgumentType]
    return _current_fastmcp()


def is_context(annotation: Any) -> bool:
    """Whether a parameter annotated so receives a host's context."""
    origin = getattr(annotation, "__origin__", annotation)
    kinds = [Context, ServerRequestContext]
    if fastmcp := sys.modules.get("fastmcp.server.context"):
        kinds.append(fastmcp.Context)
    return isinstance(origin, type) and issubclass(origin, tuple(kinds))


def _of_low_level(context: ServerRequestContext[Any, Any], values: list[Any]) -> Request | None:
    params = next((v for v in values if isinstance(v, CallToolRequestParams)), None)
    if params is None:
        return None
    return Request(
        context,
        context,
        context.session,
        str(context.request_id),
        params.input_responses or {},
        params.request_state,
        sealed=_behind_boundary(),
    )


def _behind_boundary() -> bool:
    """Whether the SDK's request-state boundary awaits the handler that runs now.

    Nothing that a handler is given knows of the server's middleware, but the stack does.
    """
    boundary = RequestStateBoundary.__call__.__code__
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code is boundary:
            return True
        frame = frame.f_back
    return False


def _of_context(context: Any) -> Request:
    """From MCPServer's context or FastMCP's: they have the same names for what is needed."""
    held = context.request_context  # looked up once: the SDK's takes its time
    if held is None:  # FastMCP's, outside of requests
        raise RuntimeError("this does not run in a request of a client's")
    return Request(
        context,
        getattr(held, "_srctx", held),
        held.session,
        str(held.request_id),
        context.input_responses or {},
        context.request_state,
    )


def _is_fastmcp(value: Any) -> bool:
    module = sys.modules.get("fastmcp.server.context")
    return module is not None and isinstance(value, module.Context)


def _current_fastmcp() -> Request | None:
    """FastMCP knows the current context by itself, so a tool need not take it."""
    module = sys.modules.get("fastmcp.server.dependencies")
    if module is None:
        return None
    try:
        return _of_context(module.get_context())
    except RuntimeError:
        return None
