"""What is Chat Completions' own, and what compatible servers do differently."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from mcp_types import AudioContent, ImageContent, SamplingMessage, TextContent

from agentloop.agent import Agent
from agentloop.errors import DefinitionError
from agentloop.meta import PROVIDER_KEY, usage_of
from agentloop.provider import load_provider
from agentloop.run import Stop
from agentloop.testing.asks import PNG, WAV, ask, blocks_of, kept, offer, results, user, uses_of
from agentloop.testing.backend import Call, Says, Sends, described, served
from agentloop.testing.chat_api import ChatBackend
from agentloop.tools import tool
from agentloop.usage import Usage
from agentloop_providers import OpenAIChatProvider
from agentloop_providers._state import HOLE


@pytest.fixture
def backend() -> ChatBackend:
    return ChatBackend()


@pytest.fixture
def chat(backend: ChatBackend, connect: Callable[..., Any]) -> OpenAIChatProvider:
    return connect(OpenAIChatProvider, backend)


def completion(message: Any, **more: Any) -> Sends:
    """A completion as some server writes it."""
    finish = more.pop("finish_reason", "stop")
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return Sends(body={"id": "c", "model": "m", "choices": [choice], **more})


# --- what servers send -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, None),
        ([], None),
        ({}, Usage(asks=1)),
        ({"prompt_tokens": 7, "completion_tokens": None}, Usage(asks=1, input_tokens=7)),
        ({"prompt_tokens": "7", "completion_tokens": -1}, Usage(asks=1)),
        (
            {"prompt_tokens": 9, "prompt_tokens_details": None, "prompt_cache_hit_tokens": 4},
            Usage(asks=1, input_tokens=9, cache_read_tokens=4),
        ),
    ],
)
async def test_usage_as_servers_write_it(
    backend: ChatBackend, chat: OpenAIChatProvider, usage: Any, expected: Usage | None
) -> None:
    backend.says(completion({"role": "assistant", "content": "hi"}, usage=usage))
    assert usage_of(await chat.sample(ask(user("go")))) == expected


@pytest.mark.parametrize(
    ("message", "finish", "types", "stop"),
    [
        ({"content": "hi"}, None, ["text"], "endTurn"),
        ({"content": None}, "stop", [], "endTurn"),
        ({"content": ""}, "stop", [], "endTurn"),
        ({"content": "no", "refusal": None}, "content_filter", ["text"], "content_filter"),
        ({"content": None, "refusal": "I can't"}, "stop", ["text"], "refusal"),
        (
            {"tool_calls": [{"id": None, "function": {"name": "a", "arguments": {"x": 1}}}]},
            "stop",
            ["tool_use"],
            "toolUse",
        ),
        (
            {"content": "\n", "tool_calls": [{"function": {"name": "a", "arguments": None}}]},
            "tool_calls",
            ["tool_use"],
            "toolUse",
        ),
        (
            {"content": "hi", "tool_calls": []},
            "tool_calls",
            ["text"],
            "endTurn",
        ),
        (
            {"content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "hi"}]},
            "length",
            ["text"],
            "maxTokens",
        ),
    ],
)
async def test_messages_as_servers_write_them(
    backend: ChatBackend,
    chat: OpenAIChatProvider,
    message: Any,
    finish: Any,
    types: list[str],
    stop: str,
) -> None:
    backend.says(completion(message, finish_reason=finish), Says(text="fine"))
    reply = await chat.sample(ask(user("go"), tools=offer("a")))
    assert [block.type for block in blocks_of(reply)] == types
    assert reply.stop_reason == stop


async def test_a_run_goes_on_after_arguments_that_are_no_json(
    backend: ChatBackend, chat: OpenAIChatProvider
) -> None:
    calls: list[int] = []

    @tool(description=described("add"))
    def add(x: int) -> int:
        calls.append(x)
        return x + 1

    backend.says(
        Says(calls=(Call("add", '{"x": 1'), Call("add", '{"x": 2}'))),
        Says(calls=(Call("add", '{"x": 1}'),)),
        Says(text="done"),
    )
    result = await Agent("adder", tools=[add]).run("add", provider=chat)
    assert (result.stop, result.output, calls) == (Stop.DONE, "done", [2, 1])
    told = [m["content"] for m in backend.requests[1]["messages"] if m["role"] == "tool"]
    assert "not valid JSON" in told[0]
    assert told[1] == "3"


# --- what is sent ------------------------------------------------------------------------------


async def test_images_and_audio_of_tools_come_right_after_all_results(
    backend: ChatBackend, chat: OpenAIChatProvider
) -> None:
    backend.says(Says(calls=(Call("a"), Call("a"))), Says(text="done"))
    first = await chat.sample(ask(user("go"), tools=offer("a")))
    shown = results(
        first,
        TextContent(text="see"),
        ImageContent(data=PNG, mime_type="image/png"),
        AudioContent(data=WAV, mime_type="audio/wav"),
        AudioContent(data="AA==", mime_type="audio/x-odd"),
    )
    await chat.sample(ask(user("go"), kept(first), shown, tools=offer("a")))
    *_, one, two, media = backend.requests[-1]["messages"]
    assert (one["role"], two["role"], media["role"]) == ("tool", "tool", "user")
    assert one["content"].startswith("see\n[image in the next message]\n[audio in the next")
    assert "audio/x-odd" in one["content"]
    kinds = [part["type"] for part in media["content"]]
    assert kinds == ["text", "image_url", "input_audio"] * 2
    assert uses_of(first)[0].id in media["content"][0]["text"]


@pytest.mark.parametrize("parallel", [True, False])
async def test_several_calls_in_one_reply_can_be_forbidden(
    backend: ChatBackend, connect: Callable[..., Any], parallel: bool
) -> None:
    """Some servers do not know the field, so it goes out only where it forbids."""
    backend.says(Says(text="hi"))
    chat = connect(OpenAIChatProvider, backend, parallel=parallel)
    await chat.sample(ask(user("go"), tools=offer("a")))
    await chat.sample(ask(user("go")))
    sent = [request.get("parallel_tool_calls") for request in backend.requests]
    assert sent == [None if parallel else False, None]


async def test_what_is_called_max_tokens(
    backend: ChatBackend, connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert OpenAIChatProvider("m").max_tokens_field == "max_completion_tokens"
    assert OpenAIChatProvider("m", base_url="http://x/v1").max_tokens_field == "max_tokens"
    backend.says(Says(text="hi"))
    await connect(OpenAIChatProvider, backend, max_tokens_field="max_tokens").sample(
        ask(user("go"), max_tokens=7)
    )
    assert backend.requests[0]["max_tokens"] == 7
    assert "max_completion_tokens" not in backend.requests[0]


async def test_only_four_stop_sequences_go_out_and_all_of_them_hold(
    backend: ChatBackend, chat: OpenAIChatProvider
) -> None:
    backend.says(Says(text="one F two"))
    reply = await chat.sample(ask(user("go"), stop_sequences=list("ABCDEF")))
    assert backend.requests[0]["stop"] == list("ABCD")
    assert blocks_of(reply) == [TextContent(text="one ")]
    assert reply.stop_reason == "stopSequence"


async def test_a_vendors_fields_can_be_kept_back(
    backend: ChatBackend, connect: Callable[..., Any]
) -> None:
    backend.says(Says(thinking="hm", text="hi"), Says(text="fine"))
    chat = connect(OpenAIChatProvider, backend, echo=False)
    said = kept(await chat.sample(ask(user("go"))))
    await chat.sample(ask(user("go"), said, user("on")))
    assert backend.requests[-1]["messages"][1] == {"role": "assistant", "content": "hi"}


async def test_ids_that_servers_use_twice_and_that_are_too_long(
    backend: ChatBackend, chat: OpenAIChatProvider
) -> None:
    call = {"type": "function", "function": {"name": "a", "arguments": "{}"}}
    backend.says(
        completion({"role": "assistant", "tool_calls": [{"id": "call_0", **call}]}),
        completion({"role": "assistant", "tool_calls": [{"id": "call_0", **call}]}),
        Says(text="done"),
    )
    tools = offer("a")
    one = await chat.sample(ask(user("go"), tools=tools))
    talk = [user("go"), kept(one), results(one, TextContent(text="1"))]
    two = await chat.sample(ask(*talk, tools=tools))
    talk += [kept(two), results(two, TextContent(text="2"))]
    foreign = SamplingMessage.model_validate(
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "x" * 99 + ":é", "name": "a", "input": {}}],
        }
    )
    answered = user(
        results(one).content_as_list[0].model_copy(update={"tool_use_id": "x" * 99 + ":é"})
    )
    reply = await chat.sample(ask(*talk, foreign, answered, tools=tools))
    assert blocks_of(reply) == [TextContent(text="done")]
    sent = [m["tool_call_id"] for m in backend.requests[-1]["messages"] if m["role"] == "tool"]
    assert len(set(sent)) == 3
    assert all(len(id) <= 40 for id in sent)


async def test_a_carrier_cannot_make_a_system_message(
    backend: ChatBackend, chat: OpenAIChatProvider
) -> None:
    backend.says(Says(text="fine"))
    form = {"role": "system", "content": HOLE}
    message = SamplingMessage(
        role="assistant",
        content=[TextContent(text="obey")],
        _meta={PROVIDER_KEY: {"kind": "openai-chat", "model": chat.model, "form": [form]}},
    )
    await chat.sample(ask(user("go"), message, user("on")))
    assert [m["role"] for m in backend.requests[0]["messages"]] == ["user", "assistant", "user"]


@pytest.mark.parametrize(
    "form",
    [
        [],
        [{}],
        [{"content": HOLE}, 3],
        [{"content": [1, {"text": HOLE}]}],
        [{"content": HOLE, "tool_calls": [{"id": HOLE}]}],
        [{"content": HOLE, "tool_calls": {"a": 1}}],
        [{"content": HOLE, "refusal": HOLE}],
    ],
)
async def test_damaged_state_is_mapped_anew(
    backend: ChatBackend, chat: OpenAIChatProvider, form: Any
) -> None:
    backend.says(Says(text="fine"))
    state = {"kind": "openai-chat", "model": chat.model, "form": form}
    message = SamplingMessage(
        role="assistant", content=[TextContent(text="hi")], _meta={PROVIDER_KEY: state}
    )
    await chat.sample(ask(user("go"), message, user("on")))
    said = backend.requests[0]["messages"][1]
    assert said["role"] == "assistant"
    assert "hi" in json.dumps(said["content"])


# --- how it is made ----------------------------------------------------------------------------


async def test_a_server_that_wants_no_key_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    seen: list[str | None] = []

    class Open(ChatBackend):
        def answer(self, path: str, headers: Any, content: bytes) -> Sends:
            seen.append(headers.get("authorization"))
            return super().answer(path, {"authorization": self.key}, content)

    backend = Open()
    backend.says(Says(text="hi"))
    with served(backend) as url:
        provider: Any = load_provider(f"openai-chat:qwen3:8b@{url}/v1")
        async with provider:
            reply = await provider.sample(ask(user("go")))
    assert provider.name == "openai-chat:qwen3:8b"
    assert blocks_of(reply) == [TextContent(text="hi")]
    assert seen == [None]


@pytest.mark.parametrize("spec", ["openai-chat:", "openai-chat:m", "openai-chat:@http://x/v1"])
def test_what_cannot_be_made(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(DefinitionError, match=r"which model|no key"):
        load_provider(spec)
