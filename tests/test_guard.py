"""No provider reaches a real model where a test forbids it."""

from __future__ import annotations

import anyio
import pytest
from mcp_types import (
    CreateMessageRequestParams,
    CreateMessageResult,
    SamplingMessage,
    TextContent,
)

from agentloop.fallback import Fallback
from agentloop.guard import RealRequestError, check_real_requests, no_real_requests
from agentloop.meta import Reply
from agentloop_providers import ScriptedProvider

HELLO = CreateMessageRequestParams(
    messages=[SamplingMessage(role="user", content=TextContent(text="Hello?"))], max_tokens=10
)


class Paid:
    """Does what providers that cost money do before they send a request."""

    name = "paid"

    def __init__(self) -> None:
        self.asked = 0

    async def sample(self, request: CreateMessageRequestParams) -> Reply:
        check_real_requests(self.name)
        self.asked += 1
        return CreateMessageResult(role="assistant", content=TextContent(text="Hi."), model="paid")


async def test_no_real_request_leaves_inside_the_guard():
    paid = Paid()
    with no_real_requests():
        with no_real_requests():
            await ScriptedProvider("free").sample(HELLO)
        with pytest.raises(RealRequestError, match="paid would send"):
            await paid.sample(HELLO)
    assert paid.asked == 0
    await paid.sample(HELLO)
    assert paid.asked == 1


async def test_a_fallback_does_not_hide_a_forbidden_request():
    with no_real_requests(), pytest.raises(RealRequestError):
        await Fallback(Paid(), ScriptedProvider("free")).sample(HELLO)


async def test_the_guard_holds_for_other_threads():
    with no_real_requests(), pytest.raises(RealRequestError):
        await anyio.to_thread.run_sync(check_real_requests, "paid")


@no_real_requests()
def test_it_is_a_decorator_too():
    with pytest.raises(RealRequestError):
        check_real_requests("paid")
