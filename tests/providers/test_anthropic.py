"""What is the Messages API's own: streams, pauses, caching, thinking and tool choice."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from mcp_types import AudioContent, TextContent, ToolChoice
from structlog.testing import capture_logs

from agentloop.agent import Agent
from agentloop.errors import (
    AuthenticationError,
    BadRequestError,
    DefinitionError,
    MalformedReplyError,
    OverloadedError,
)
from agentloop.meta import usage_of
from agentloop.provider import load_provider
from agentloop.run import Stop
from agentloop.testing.asks import WAV, ask, blocks_of, kept, offer, results, user, uses_of
from agentloop.testing.backend import Call, Says, Sends, served
from agentloop.testing.messages_api import MessagesBackend
from agentloop.usage import Usage
from agentloop_providers import AnthropicProvider, Retry
from agentloop_providers._state import RESPONSE_KEY

LONG = 21_334
"""From so many tokens on, the API wants to stream."""

NO_WAIT = Retry(max_wait=0.0)


@pytest.fixture
def backend() -> MessagesBackend:
    return MessagesBackend()


@pytest.fixture
def claude(backend: MessagesBackend, connect: Callable[..., Any]) -> AnthropicProvider:
    return connect(AnthropicProvider, backend, retry=NO_WAIT)


def events(*items: dict[str, Any]) -> Sends:
    """A stream of events."""
    lines = [f"event: {item['type']}\ndata: {json.dumps(item)}\n\n" for item in items]
    return Sends(body="".join(lines), headers={"content-type": "text/event-stream"})


MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [],
    "stop_reason": None,
    "usage": {"input_tokens": 1, "output_tokens": 1},
}


# --- streams -----------------------------------------------------------------------------------


async def test_a_long_reply_is_streamed_and_goes_back_as_it_was(
    backend: MessagesBackend, claude: AnthropicProvider
) -> None:
    backend.says(
        Says(thinking="hm ü", text="first", calls=(Call("a", {"x": 1, "y": "ü"}),)),
        Says(text="done"),
    )
    first = await claude.sample(ask(user("go"), tools=offer("a"), max_tokens=LONG))
    assert backend.requests[0]["stream"] is True
    assert [use.input for use in uses_of(first)] == [{"x": 1, "y": "ü"}]
    assert usage_of(first) == Usage(asks=1, input_tokens=10, output_tokens=5)
    again = ask(user("go"), kept(first), results(first), tools=offer("a"), max_tokens=LONG)
    assert blocks_of(await claude.sample(again)) == [TextContent(text="done")]
    assert json.dumps(backend.heard(backend.requests[-1])) == json.dumps(backend.spoken[:1])


async def test_a_shorter_reply_is_not_streamed(
    backend: MessagesBackend, claude: AnthropicProvider
) -> None:
    backend.says(Says(text="hi"))
    await claude.sample(ask(user("go"), max_tokens=LONG - 1))
    assert "stream" not in backend.requests[0]


async def test_a_stream_that_ends_too_early_is_asked_for_again(
    backend: MessagesBackend, claude: AnthropicProvider
) -> None:
    begun = events(
        {"type": "message_start", "message": MESSAGE},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": "half"},
        },
    )
    backend.says(begun, Says(text="whole"))
    reply = await claude.sample(ask(user("go"), max_tokens=LONG))
    assert blocks_of(reply) == [TextContent(text="whole")]


async def test_an_error_in_a_stream_is_typed(
    backend: MessagesBackend, claude: AnthropicProvider
) -> None:
    overloaded = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    backend.says(events({"type": "message_start", "message": MESSAGE}, overloaded))
    with pytest.raises(OverloadedError, match="Overloaded"):
        await claude.sample(ask(user("go"), max_tokens=LONG))
    assert len(backend.requests) == 4
    backend.clear()
    backend.says(events({"type": "error", "error": {"type": "billing_error", "message": "pay"}}))
    with pytest.raises(AuthenticationError, match="pay"):
        await claude.sample(ask(user("go"), max_tokens=LONG))


@pytest.mark.parametrize(
    "sends",
    [
        Sends(body="<html>", headers={"content-type": "text/html"}),
        Sends(body={"error": "no"}),
        Sends(body="event: message_start\ndata: {half\n\n"),
        events({"type": "message_stop"}),
        events({"type": "message_start", "message": MESSAGE}, {"type": "content_block_delta"}),
    ],
)
async def test_what_is_no_stream(
    backend: MessagesBackend, claude: AnthropicProvider, sends: Sends
) -> None:
    backend.says(sends)
    with pytest.raises(MalformedReplyError):
        await claude.sample(ask(user("go"), max_tokens=LONG))


# --- pauses ------------------------------------------------------------------------------------


async def test_a_paused_turn_is_taken_up_within_the_ask(
    backend: MessagesBackend, claude: AnthropicProvider
) -> None:
    backend.says(
        Says(thinking="hm", text="Let me", stop="pause_turn"),
        Says(text=" see.", calls=(Call("a"),)),
        Says(text="done"),
    )
    first = await claude.sample(ask(user("go"), tools=offer("a")))
    assert [b.type for b in blocks_of(first)] == ["text", "text", "tool_use"]
    assert first.stop_reason == "toolUse"
    assert usage_of(first) == Usage(asks=2, input_tokens=20, output_tokens=10)
    await claude.sample(ask(user("go"), kept(first), results(first), tools=offer("a")))
    [heard] = backend.heard(backend.requests[-1])
    assert json.dumps(heard) == json.dumps(backend.spoken[0] + backend.spoken[1])


async def test_a_turn_that_pauses_for_ever(
    backend: MessagesBackend, claude: AnthropicProvider
) -> None:
    backend.says(Says(text="wait", stop="pause_turn"))
    backend.problem = lambda path, body: None  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(MalformedReplyError, match="paused"):
        await claude.sample(ask(user("go")))
    assert len(backend.requests) == 9


async def test_a_reply_that_filled_the_window_is_cut_off(
    backend: MessagesBackend, claude: AnthropicProvider
) -> None:
    backend.says(Says(text="and then", stop="model_context_window_exceeded"))
    result = await Agent("any").run("go", provider=claude)
    assert (result.stop, result.text) == (Stop.TRUNCATED, "and then")


# --- what is sent ------------------------------------------------------------------------------


async def test_temperature_is_dropped_with_one_warning(
    backend: MessagesBackend, claude: AnthropicProvider
) -> None:
    backend.says(Says(text="hi"))
    with capture_logs() as logs:
        await claude.sample(ask(user("go"), temperature=0.5))
        await claude.sample(ask(user("go"), temperature=0.5))
    assert [line["event"] for line in logs] == ["temperature_dropped"]
    assert all("temperature" not in request for request in backend.requests)


@pytest.mark.parametrize(
    ("cache", "expected"),
    [(True, {"type": "ephemeral"}), ("1h", {"type": "ephemeral", "ttl": "1h"}), (False, None)],
)
async def test_prompt_caching(
    backend: MessagesBackend, connect: Callable[..., Any], cache: Any, expected: Any
) -> None:
    backend.says(Says(text="hi"))
    await connect(AnthropicProvider, backend, cache=cache).sample(ask(user("go")))
    assert backend.requests[0].get("cache_control") == expected


@pytest.mark.parametrize(
    ("mode", "parallel", "expected"),
    [
        (None, True, None),
        ("auto", True, {"type": "auto"}),
        ("required", True, {"type": "any"}),
        ("none", True, {"type": "none"}),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        ("required", False, {"type": "any", "disable_parallel_tool_use": True}),
        ("none", False, {"type": "none"}),
    ],
)
async def test_tool_choice(
    backend: MessagesBackend, connect: Callable[..., Any], mode: Any, parallel: bool, expected: Any
) -> None:
    backend.says(Says(text="hi"))
    provider = connect(AnthropicProvider, backend, parallel=parallel)
    await provider.sample(ask(user("go"), tools=offer("a"), tool_choice=ToolChoice(mode=mode)))
    assert backend.requests[0].get("tool_choice") == expected
    assert [tool["name"] for tool in backend.requests[0]["tools"]] == ["a"]


async def test_a_model_that_thinks_is_not_forced_to_use_a_tool(
    backend: MessagesBackend, connect: Callable[..., Any]
) -> None:
    """The API refuses the two together."""
    backend.says(Says(text="hi"))
    provider = connect(AnthropicProvider, backend, options={"thinking": {"type": "adaptive"}})
    must = ask(user("go"), tools=offer("a"), tool_choice=ToolChoice(mode="required"))
    await provider.sample(must)
    assert backend.requests[0]["tool_choice"] == {"type": "auto"}
    assert backend.requests[0]["thinking"] == {"type": "adaptive"}


async def test_a_model_that_thinks_unasked_is_noticed(
    backend: MessagesBackend, claude: AnthropicProvider
) -> None:
    refuse = {
        "error": {
            "type": "invalid_request_error",
            "message": "Thinking may not be enabled when tool_choice forces tool use.",
        }
    }
    backend.says(Sends(status=400, body=refuse), Says(text="hi"))
    must = ask(user("go"), tools=offer("a"), tool_choice=ToolChoice(mode="required"))
    await claude.sample(must)
    await claude.sample(must)
    kinds = [request["tool_choice"]["type"] for request in backend.requests]
    assert kinds == ["any", "auto", "auto"]


async def test_audio_of_a_tool_is_named_to_the_model(
    backend: MessagesBackend, claude: AnthropicProvider
) -> None:
    backend.says(Says(calls=(Call("a"),)), Says(text="done"))
    first = await claude.sample(ask(user("go"), tools=offer("a")))
    answered = results(first, AudioContent(data=WAV, mime_type="audio/wav"))
    await claude.sample(ask(user("go"), kept(first), answered, tools=offer("a")))
    [result] = backend.requests[-1]["messages"][-1]["content"]
    assert result["content"][0]["text"].startswith("[audio (audio/wav, ")


async def test_what_else_a_response_tells_is_kept_for_people(
    backend: MessagesBackend, claude: AnthropicProvider
) -> None:
    details = {"type": "refusal", "category": "bio", "explanation": "no"}
    body = {**MESSAGE, "stop_reason": "refusal", "stop_details": details}
    backend.says(Sends(body=body, headers={"request-id": "req_7"}))
    reply = await claude.sample(ask(user("go")))
    assert (reply.stop_reason, blocks_of(reply)) == ("refusal", [])
    assert reply.meta
    assert reply.meta[RESPONSE_KEY] == {
        "id": "msg_1",
        "stop_details": details,
        "request_id": "req_7",
    }


# --- how it is made ----------------------------------------------------------------------------


async def test_by_name_with_a_base_url(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = MessagesBackend()
    backend.says(Says(text="hi"))
    monkeypatch.setenv("ANTHROPIC_API_KEY", f" {backend.key}\n")
    with served(backend) as url:
        provider: Any = load_provider(f"anthropic:claude@{url}/v1/")  # the SDK adds /v1 itself
        async with provider:
            reply = await provider.sample(ask(user("go")))
    assert (provider.name, provider.model) == ("anthropic:claude", "claude")
    assert blocks_of(reply) == [TextContent(text="hi")]


@pytest.mark.parametrize(
    ("spec", "key", "message"),
    [
        ("anthropic:", "k", "which model"),
        ("anthropic", "k", "which model"),
        ("anthropic:claude", "", "no key"),
        ("anthropic:claude@http://", "k", "base_url"),
        ("anthropic:claude@http://host:port", "k", "base_url"),
    ],
)
def test_what_cannot_be_made(
    spec: str, key: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", key)
    monkeypatch.delenv("ANTHROPIC_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("ANTHROPIC_CONFIG_DIR", str(tmp_path))
    with pytest.raises(DefinitionError, match=message):
        load_provider(spec)


async def test_an_assistant_message_with_an_image_has_no_place(
    claude: AnthropicProvider,
) -> None:
    image = {"type": "image", "data": "AA==", "mimeType": "image/png"}
    message = user("x").model_validate({"role": "assistant", "content": [image]})
    with pytest.raises(BadRequestError, match="image"):
        await claude.sample(ask(user("go"), message))
