"""The tests that every provider passes. A provider of your own runs them with three lines:

    from agentloop.testing.chat_api import ChatBackend
    from agentloop.testing.http_contract import HTTPProviderContract

    class TestMine(HTTPProviderContract):
        backend_class = ChatBackend

        def provider(self, backend):
            return MyProvider(base_url=backend.url, key=backend.key, http=backend.http_client())

The backend plays the model: here any server that speaks Chat Completions, else a
:class:`~agentloop.testing.backend.Backend` of your own API. With ``over_http = True`` it is a real
server on this machine, and ``backend.http_client()`` gives None. Providers that are not reached
over HTTP derive from :class:`ProviderContract` alone. The tests need the plugin of pytest that
anyio brings; ``pytest.register_assert_rewrite("agentloop.testing")`` in a conftest makes
failures tell more.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import nullcontext
from typing import Any, ClassVar

import pytest
from mcp_types import (
    AudioContent,
    BlobResourceContents,
    ContentBlock,
    CreateMessageResultWithTools,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    SamplingMessage,
    TextContent,
    TextResourceContents,
    ToolChoice,
)

from agentloop import gather
from agentloop.agent import Agent
from agentloop.errors import BadRequestError
from agentloop.meta import INVALID_KEY, PROVIDER_KEY, usage_of
from agentloop.provider import Provider
from agentloop.run import Stop
from agentloop.testing.asks import PNG, WAV, ask, blocks_of, kept, offer, results, user, uses_of
from agentloop.testing.backend import Call, Says, Server, described
from agentloop.testing.typed_contract import Scripted, TypedAnswerContract
from agentloop.tools import tool
from agentloop.usage import Usage


class ProviderContract(TypedAnswerContract):
    """What holds for every provider. Give ``backend_class`` and :meth:`provider`."""

    pytestmark = pytest.mark.anyio

    backend_class: ClassVar[type[Any]]
    over_http: ClassVar[bool] = False

    def provider(self, backend: Any) -> Provider:
        """The provider that is tested, with ``backend`` as its model."""
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def server(cls) -> Iterator[Server | None]:
        with Server() if cls.over_http else nullcontext() as server:
            yield server

    @pytest.fixture
    def backend(self, server: Server | None) -> Any:
        backend = self.backend_class()
        if server is not None:
            server.show(backend)
        return backend

    @pytest.fixture
    async def subject(self, backend: Any) -> AsyncIterator[Provider]:
        subject = self.provider(backend)
        yield subject
        close: Any = getattr(subject, "aclose", None)
        if close is not None:
            await close()

    # --- replies -------------------------------------------------------------------------------

    async def test_it_is_a_provider_with_a_name(self, subject: Provider) -> None:
        assert isinstance(subject, Provider)
        assert subject.name

    async def test_words_come_as_text(self, backend: Scripted, subject: Provider) -> None:
        backend.says(Says(text="Grüße, 世界 🌍"))
        reply = await subject.sample(ask(user("hello"), system_prompt="be kind"))
        assert [b.type for b in blocks_of(reply)] == ["text"]
        assert blocks_of(reply)[0] == TextContent(text="Grüße, 世界 🌍")
        assert (reply.role, reply.stop_reason) == ("assistant", "endTurn")
        assert reply.model

    async def test_calls_come_in_their_order(self, backend: Scripted, subject: Provider) -> None:
        backend.says(Says(text="Let me see.", calls=(Call("b", {"x": 1}), Call("a", {"x": 2.5}))))
        reply = await subject.sample(ask(user("go"), tools=offer("a", "b")))
        assert blocks_of(reply)[0] == TextContent(text="Let me see.")
        first, second = uses_of(reply)
        assert (first.name, first.input) == ("b", {"x": 1})
        assert (second.name, second.input) == ("a", {"x": 2.5})
        assert first.id
        assert second.id not in ("", first.id)
        assert reply.stop_reason == "toolUse"

    async def test_a_reply_is_json(self, backend: Scripted, subject: Provider) -> None:
        backend.says(Says(thinking="hm", text="so", calls=(Call("a"),)))
        reply = await subject.sample(ask(user("go"), tools=offer("a")))
        data = reply.model_dump(mode="json", by_alias=True, exclude_none=True)
        assert CreateMessageResultWithTools.model_validate(data) == reply

    @pytest.mark.parametrize(
        ("stop", "expected"),
        [
            ("maxTokens", {"maxTokens"}),
            ("refusal", {"refusal", "content_filter"}),
            ("a_new_reason", {"a_new_reason", "endTurn"}),
        ],
    )
    async def test_why_a_reply_stopped(
        self, backend: Scripted, subject: Provider, stop: str, expected: set[str]
    ) -> None:
        backend.says(Says(text="I", stop=stop))
        reply = await subject.sample(ask(user("go")))
        assert reply.stop_reason in expected
        assert blocks_of(reply) == [TextContent(text="I")]

    async def test_usage_is_what_was_reported(self, backend: Scripted, subject: Provider) -> None:
        usage = Usage(asks=1, input_tokens=100, output_tokens=7)
        if "cache" in backend.features:
            usage = Usage(
                asks=1,
                input_tokens=100,
                output_tokens=7,
                cache_read_tokens=60,
                cache_write_tokens=30,
            )
        backend.says(Says(text="hi", usage=usage))
        assert usage_of(await subject.sample(ask(user("go")))) == usage

    async def test_usage_that_is_not_reported(self, backend: Scripted, subject: Provider) -> None:
        backend.says(Says(text="hi", usage=None))
        usage = usage_of(await subject.sample(ask(user("go"))))
        assert usage is None or usage.estimated

    async def test_arguments_that_are_no_json_are_the_models_mistake(
        self, backend: Scripted, subject: Provider
    ) -> None:
        if "text arguments" not in backend.features:
            pytest.skip("this API sends arguments as an object")
        wrong = ('{"x": ', "[1]", "null", '{"x": NaN}', '"x"')
        backend.says(Says(calls=tuple(Call("a", text) for text in wrong)), Says(text="I see."))
        first = await subject.sample(ask(user("go"), tools=offer("a")))
        assert len(uses_of(first)) == len(wrong)
        for use in uses_of(first):
            assert use.input == {}
            assert use.meta
            assert "arguments" in use.meta[INVALID_KEY]
        again = ask(user("go"), kept(first), results(first, error=True), tools=offer("a"))
        assert blocks_of(await subject.sample(again)) == [TextContent(text="I see.")]

    # --- requests ------------------------------------------------------------------------------

    async def test_a_request_is_left_as_it_is(self, backend: Scripted, subject: Provider) -> None:
        backend.says(Says(calls=(Call("a.b"),)), Says(text="done"))
        first = await subject.sample(ask(user("go"), tools=offer("z", "a.b")))
        request = ask(
            user("go"), kept(first), results(first, TextContent(text="1")), tools=offer("z", "a.b")
        )
        before = copy.deepcopy(request)
        await subject.sample(request)
        assert request == before

    @pytest.mark.parametrize("mode", ["auto", "required", "none", None])
    async def test_every_tool_choice(self, backend: Scripted, subject: Provider, mode: Any) -> None:
        backend.says(Says(text="fine"))
        choice = ToolChoice(mode=mode)
        for tools in (offer("a"), None):
            reply = await subject.sample(ask(user("go"), tools=tools, tool_choice=choice))
            assert blocks_of(reply) == [TextContent(text="fine")]

    async def test_sampling_parameters(self, backend: Scripted, subject: Provider) -> None:
        backend.says(Says(text="fine"))
        reply = await subject.sample(
            ask(
                user("go"),
                temperature=0.5,
                stop_sequences=["A", "B", "C", "D", "E", "F"],
                metadata={"user_id": "u1", "other": {"x": 1}},
            )
        )
        assert blocks_of(reply) == [TextContent(text="fine")]

    async def test_any_name_that_mcp_allows(self, backend: Scripted, subject: Provider) -> None:
        names = ["a.b", "a_b", "a-b", "x" * 128, "x" * 127 + "y", "x" * 64, ".", "_"]
        backend.says(Says(calls=tuple(Call(name) for name in names)), Says(text="done"))
        tools = offer(*names)
        first = await subject.sample(ask(user("go"), tools=tools))
        assert [use.name for use in uses_of(first)] == names
        second = ask(user("go"), kept(first), results(first, TextContent(text="1")), tools=tools)
        assert blocks_of(await subject.sample(second)) == [TextContent(text="done")]

    @pytest.mark.parametrize(
        "content",
        [
            pytest.param([], id="empty"),
            pytest.param([TextContent(text=" \n")], id="blank"),
            pytest.param([ImageContent(data=PNG, mime_type="image/png")], id="image"),
            pytest.param([ImageContent(data="AA==", mime_type="image/x-odd")], id="odd image"),
            pytest.param([AudioContent(data=WAV, mime_type="audio/wav")], id="audio"),
            pytest.param([AudioContent(data="AA==", mime_type="audio/x-odd")], id="odd audio"),
            pytest.param([ResourceLink(name="r", uri="file:///r")], id="link"),
            pytest.param(
                [
                    EmbeddedResource(resource=TextResourceContents(uri="file:///r", text="words")),
                    EmbeddedResource(
                        resource=BlobResourceContents(uri="a:b", blob=PNG, mime_type="image/png")
                    ),
                    EmbeddedResource(resource=BlobResourceContents(uri="a:b", blob="AA==")),
                ],
                id="resources",
            ),
        ],
    )
    @pytest.mark.parametrize("error", [False, True])
    async def test_whatever_a_tool_gives(
        self, backend: Scripted, subject: Provider, content: Sequence[ContentBlock], error: bool
    ) -> None:
        backend.says(Says(calls=(Call("a"), Call("a"))), Says(text="done"))
        first = await subject.sample(ask(user("go"), tools=offer("a")))
        answered = results(first, *content, error=error, structured={"n": 1})
        reply = await subject.sample(ask(user("go"), kept(first), answered, tools=offer("a")))
        assert blocks_of(reply) == [TextContent(text="done")]

    @pytest.mark.parametrize(
        ("block", "feature"),
        [
            (ImageContent(data=PNG, mime_type="image/png"), "images"),
            (AudioContent(data=WAV, mime_type="audio/wav"), "audio"),
        ],
        ids=["image", "audio"],
    )
    async def test_media_in_a_prompt_are_shown_or_refused(
        self, backend: Scripted, subject: Provider, block: Any, feature: str
    ) -> None:
        backend.says(Says(text="I see."))
        request = ask(user("what is this?", block))
        if feature in backend.features:
            assert blocks_of(await subject.sample(request)) == [TextContent(text="I see.")]
        else:
            with pytest.raises(BadRequestError, match=block.type):
                await subject.sample(request)

    async def test_state_of_another_provider_is_left_alone(
        self, backend: Scripted, subject: Provider
    ) -> None:
        backend.says(Says(text="fine"))
        for state in (
            {"kind": "other", "form": [{"type": "text"}]},
            {"form": 3},
            "text",
            [1],
            None,
        ):
            said = SamplingMessage(
                role="assistant", content=[TextContent(text="hi")], _meta={PROVIDER_KEY: state}
            )
            reply = await subject.sample(ask(user("go"), said, user("on")))
            assert blocks_of(reply) == [TextContent(text="fine")]

    # --- runs ----------------------------------------------------------------------------------

    async def test_an_agent_runs_to_its_end(self, backend: Scripted, subject: Provider) -> None:
        @tool(description=described("add"))
        def add(x: int, y: int) -> int:
            return x + y

        backend.says(
            Says(thinking="two sums", calls=(Call("add", {"x": 1, "y": 2}), Call("add", {"x": 3}))),
            Says(text="One was wrong.", calls=(Call("add", {"x": 3, "y": 4}), Call("nothing"))),
            Says(thinking="done", text="3 and 7"),
        )
        result = await Agent("adder", "add up", tools=[add]).run("1+2 and 3+4", provider=subject)
        assert (result.stop, result.output, result.steps) == (Stop.DONE, "3 and 7", 3)

    async def test_asks_at_the_same_time(self, backend: Scripted, subject: Provider) -> None:
        backend.says(Says(text="hi"))
        replies = await gather(*(subject.sample(ask(user("go"))) for _ in range(20)))
        assert [blocks_of(reply) for reply in replies] == [[TextContent(text="hi")]] * 20
