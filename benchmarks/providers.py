"""What a provider costs: CPU of one warm call, against the SDK's own call for the same request.

Both go over a mock transport that answers at once. The SDK's call is given the request in its own
form, made beforehand, and parses the reply into its own types. The provider's call is given MCP's
messages and gives MCP's reply, with the mapping both ways, the retry layer and the timeout in it.
The history has so many steps before it, each with thinking, a word, a tool call and its result, in
the form in which the provider itself left them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import httpx2
from anthropic import AsyncAnthropic
from mcp_types import CreateMessageRequestParams, TextContent
from measuring import Samples, Work, main, side_by_side, table
from openai import AsyncOpenAI

from agentloop.testing.asks import ask, kept, offer, results, user
from agentloop.testing.backend import Backend, Call, Says
from agentloop.testing.chat_api import ChatBackend
from agentloop.testing.messages_api import MessagesBackend
from agentloop.testing.responses_api import ResponsesBackend
from agentloop_providers import AnthropicProvider, OpenAIChatProvider, OpenAIProvider

HISTORY = (0, 10, 50)
STEP = Says(thinking="two numbers, so a sum", text="Let me add.", calls=(Call("add", {"x": 1}),))


def clients(sdk: Any, body: bytes) -> Any:
    """A client of an SDK whose every request is answered with ``body``."""
    headers = {"content-type": "application/json", "request-id": "req_1"}

    def answer(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, content=body, headers=headers)

    transport = httpx2.MockTransport(answer)
    http = httpx2.AsyncClient(transport=transport)
    return sdk(api_key="k", base_url="http://mock/v1", max_retries=0, http_client=http)


async def request_after(
    steps: int, backend: Backend, provider: Any
) -> tuple[CreateMessageRequestParams, dict[str, Any], bytes]:
    """A request with so many steps behind it; the same as the API gets it; and the reply to it."""
    tools = offer("add", "files.search", "files.read")
    backend.says(STEP)
    messages = [user("Add these numbers, one after another.")]
    for step in range(steps):
        reply = await provider.sample(ask(*messages, tools=tools, system_prompt="You add."))
        messages += [kept(reply), results(reply, TextContent(text=f"The sum is {step}."))]
    request = ask(*messages, tools=tools, system_prompt="You add.")
    await provider.sample(request)
    body = backend.requests[-1]
    return request, body, as_json(backend.reply(STEP, body))


def as_json(value: Any) -> bytes:
    return httpx2.Request("POST", "http://mock", json=value).read()


async def pair(
    steps: int, backend: Backend, kind: type[Any], sdk: Any, own: Callable[[Any, Any], Any]
) -> dict[str, Samples]:
    client = sdk(api_key=backend.key, base_url=backend.url, http_client=backend.http_client())
    request, body, reply = await request_after(steps, backend, kind("model-1", client=client))
    mocked = clients(sdk, reply)
    provider = kind("model-1", client=mocked)

    async def asked() -> None:
        await provider.sample(request)

    async def called() -> None:
        await own(mocked, body)

    works: dict[str, Work] = {"provider": asked, "SDK": called}
    return await side_by_side(works)


PAIRS: dict[str, tuple[type[Backend], type[Any], Any, Callable[[Any, Any], Any]]] = {
    "anthropic, Messages": (
        MessagesBackend,
        AnthropicProvider,
        AsyncAnthropic,
        lambda client, body: client.messages.create(**body),
    ),
    "openai, Responses": (
        ResponsesBackend,
        OpenAIProvider,
        AsyncOpenAI,
        lambda client, body: client.responses.create(**body),
    ),
    "openai, Chat Completions": (
        ChatBackend,
        OpenAIChatProvider,
        AsyncOpenAI,
        lambda client, body: client.chat.completions.create(**body),
    ),
}


async def measure() -> list[list[object]]:
    rows: list[list[object]] = []
    for name, (backend, kind, sdk, own) in PAIRS.items():
        for steps in HISTORY:
            taken = await pair(steps, backend(), kind, sdk, own)
            mine, its = taken["provider"], taken["SDK"]
            rows.append(
                [
                    name,
                    steps,
                    f"{its.median * 1e6:.0f}",
                    f"{mine.median * 1e6:.0f}",
                    f"{mine.ratio_to(its):.2f}",
                ]
            )
    return rows


def report() -> str:
    header = ("API", "steps before", "SDK's call, us", "provider, us", "ratio")
    return "\n\n".join(
        (
            "## Providers",
            "CPU of one warm call over a mock transport, median; the ratio is of samples side by "
            "side. The target is a ratio under 1.5.",
            table(header, anyio.run(measure)),
        )
    )


if __name__ == "__main__":
    main(report)
