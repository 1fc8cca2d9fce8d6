"""A provider as the model of an MCP client: asks of servers are answered by it.

    Client(server, sampling_callback=sampling_callback(provider), sampling_capabilities=TOOLS)
    fastmcp.Client(server, sampling_handler=sampling_handler(provider), sampling_capabilities=TOOLS)

Token usage and the provider's own state travel in ``_meta`` of the results, and so come back to
the provider in the next ask of a server that preserves it, as it SHOULD.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from mcp.client import ClientRequestContext
from mcp.client.session import SamplingFnT
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    REQUEST_TIMEOUT,
    AudioContent,
    CreateMessageRequestParams,
    CreateMessageResult,
    CreateMessageResultWithTools,
    ErrorData,
    ImageContent,
    SamplingCapability,
    SamplingContent,
    SamplingMessage,
    SamplingMessageContentBlock,
    SamplingToolsCapability,
    TextContent,
)

from agentloop.errors import (
    AskTimeoutError,
    BadRequestError,
    ContextOverflowError,
    DeniedError,
    ProviderError,
    where,
)
from agentloop.log import log
from agentloop.mcp.request_limits import RequestLimits
from agentloop.meta import Reply
from agentloop.provider import Provider

TOOLS = SamplingCapability(tools=SamplingToolsCapability())
"""What a client declares so that servers may ask it with tools; any provider can do that."""

USER_REJECTED = -1
"""The code of a request that a person or a policy rejected (client/sampling, Error Handling)."""

ERROR_KEY = "dev.agentloop/error"
"""In the data of an error: its stable code, and whether the same ask may succeed later."""

DEFAULT_LIMITS = RequestLimits()

Answer = CreateMessageResult | CreateMessageResultWithTools | ErrorData


def sampling_callback(provider: Provider, *, limits: RequestLimits = DEFAULT_LIMITS) -> SamplingFnT:
    """What ``mcp.Client(sampling_callback=...)`` takes, with ``provider`` as the model.

    A denial becomes an error with the code -1, every other error of the provider one whose message
    says of which kind it is and no more: what providers say may not be for servers to read.
    A request beyond ``limits`` is refused before the provider sees it.
    """

    async def answer(context: ClientRequestContext, params: CreateMessageRequestParams) -> Answer:
        if (excess := limits.excess(params)) is not None:
            data = {ERROR_KEY: {"code": BadRequestError.code, "retryable": False}}
            return ErrorData(code=INVALID_PARAMS, message=excess, data=data)
        try:
            reply = await provider.sample(params)
        except Exception as error:  # noqa: BLE001  the server gets an answer in any case
            return _error(provider, error)
        with_tools = params.tools is not None or params.tool_choice is not None
        return _with_tools(reply) if with_tools else _without_tools(reply)

    return answer


def sampling_handler(
    provider: Provider, *, limits: RequestLimits = DEFAULT_LIMITS
) -> Callable[[list[SamplingMessage], CreateMessageRequestParams, Any], Awaitable[Any]]:
    """What ``fastmcp.Client(sampling_handler=...)`` takes, with ``provider`` as the model."""
    callback = sampling_callback(provider, limits=limits)

    async def answer(
        messages: list[SamplingMessage], params: CreateMessageRequestParams, context: Any
    ) -> Any:
        return await callback(context, params)

    return answer


def _error(provider: Provider, error: Exception) -> ErrorData:
    told = {"error": str(error)} if isinstance(error, ProviderError) else {}
    log().warning(
        "sampling_failed",
        provider=provider.name,
        error_type=type(error).__name__,
        at=where(error),
        **told,
    )
    if not isinstance(error, ProviderError):
        return ErrorData(code=INTERNAL_ERROR, message="the model could not be asked")
    data = {ERROR_KEY: {"code": error.code, "retryable": error.retryable}}
    if isinstance(error, DeniedError):
        return ErrorData(code=USER_REJECTED, message="User rejected sampling request", data=data)
    code = INTERNAL_ERROR
    if isinstance(error, BadRequestError | ContextOverflowError):
        code = INVALID_PARAMS
    elif isinstance(error, AskTimeoutError):
        code = REQUEST_TIMEOUT
    return ErrorData(code=code, message=f"the model could not answer: {error.code}", data=data)


def _with_tools(reply: Reply) -> CreateMessageResultWithTools:
    if isinstance(reply, CreateMessageResultWithTools):
        return reply
    return CreateMessageResultWithTools(
        role=reply.role,
        content=reply.content,
        model=reply.model,
        stop_reason=reply.stop_reason,
        _meta=reply.meta,
    )


def _without_tools(reply: Reply) -> CreateMessageResult:
    """``reply`` with a single block, which is all that a request without tools may get."""
    if isinstance(reply, CreateMessageResult):
        return reply
    return CreateMessageResult(
        role=reply.role,
        content=_one_block(reply.content_as_list),
        model=reply.model,
        stop_reason=reply.stop_reason,
        _meta=reply.meta,
    )


def _one_block(content: list[SamplingMessageContentBlock]) -> SamplingContent:
    """All text of ``content`` as one block; without any text, its first image or audio clip."""
    texts = [block for block in content if block.type == "text"]
    if len(texts) == 1:
        return texts[0]
    media = [block for block in content if isinstance(block, ImageContent | AudioContent)]
    if texts or not media:
        return TextContent(text="\n\n".join(block.text for block in texts))
    return media[0]
