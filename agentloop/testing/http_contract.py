"""The tests that every provider over HTTP passes, beside those that every provider passes."""

from __future__ import annotations

import json
import logging
import traceback

import anyio
import pytest
import structlog
from mcp_types import SamplingMessage, TextContent

from agentloop.agent import Agent
from agentloop.errors import (
    AuthenticationError,
    BadRequestError,
    ContextOverflowError,
    MalformedReplyError,
    OverloadedError,
    ProviderError,
)
from agentloop.output import ANSWER_TOOL
from agentloop.provider import Provider
from agentloop.run import Stop
from agentloop.testing.asks import ask, blocks_of, kept, offer, results, user
from agentloop.testing.backend import Backend, Call, Refuses, Says, Sends, described
from agentloop.testing.provider_contract import ProviderContract
from agentloop.testing.typed_contract import Verdict
from agentloop.tools import tool

PAGE = "<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"

NO_REPLIES = {
    "page": Sends(body=PAGE, headers={"content-type": "text/html"}),
    "nothing": Sends(),
    "half": Sends(body='{"id": "1", "con', headers={"content-type": "application/json"}),
    "list": Sends(body=[]),
    "text": Sends(body='"hello"'),
    "empty object": Sends(body={}),
    "error": Sends(body={"error": {"message": "out of order", "type": "odd"}}),
    "error text": Sends(body={"error": "out of order"}),
    "nulls": Sends(body={"content": None, "choices": None, "output": None}),
    "empty choices": Sends(body={"choices": [], "content": {}, "output": {}}),
    "wrong types": Sends(body={"content": [1], "choices": [1], "output": [1]}),
    "typeless": Sends(body={"content": [{}], "choices": [{}], "output": [{}]}),
    "no text": Sends(
        body={
            "content": [{"type": "text", "text": 3}],
            "choices": [{"message": {"role": "assistant", "content": 3}}],
            "output": [{"type": "message", "content": [{"type": "output_text", "text": 3}]}],
        }
    ),
    "nameless call": Sends(
        body={
            "content": [{"type": "tool_use", "id": "1", "input": {}}],
            "choices": [{"message": {"tool_calls": [{"id": "1", "function": {}}]}}],
            "output": [{"type": "function_call", "call_id": "1", "arguments": "{}"}],
        }
    ),
    "deep": Sends(body="[" * 100_000),
}
"""Responses with a 200 that are no replies."""


class HTTPProviderContract(ProviderContract):
    """What holds for every provider over HTTP. Its backend is a :class:`Backend`."""

    # --- what the API must get back ------------------------------------------------------------

    async def test_what_the_model_said_goes_back_as_it_was(
        self, backend: Backend, subject: Provider
    ) -> None:
        """Ten steps with thinking: each request holds all that was said so far, byte for byte."""

        @tool(description=described("look"))
        def look(at: int) -> str:
            return f"saw {at}"

        steps = [
            Says(
                thinking=f"thought {n}: ü",
                text=f"step {n}" if n % 3 else None,
                calls=tuple(
                    Call("look", {"at": at, "b": "é"} if n == 4 else {"at": at})
                    for at in range(1 + n % 3)
                ),
            )
            for n in range(9)
        ]
        backend.says(*steps, Says(thinking="enough", text="done"))
        result = await Agent("looker", tools=[look]).run("look around", provider=subject)
        assert (result.stop, result.steps) == (Stop.DONE, 10)
        assert backend.problems == []
        for number, request in enumerate(backend.requests):
            assert json.dumps(backend.heard(request)) == json.dumps(backend.spoken[:number])

    async def test_what_was_changed_on_the_way_goes_out_changed(
        self, backend: Backend, subject: Provider
    ) -> None:
        backend.says(Says(thinking="hm", text="secret plan"), Says(text="fine"))
        said = kept(await subject.sample(ask(user("go"))))
        changed = SamplingMessage(
            role="assistant", content=[TextContent(text="public plan")], _meta=said.meta
        )
        await subject.sample(ask(user("go"), changed, user("on")))
        assert "public plan" in json.dumps(backend.requests[-1])
        assert "secret plan" not in json.dumps(backend.requests[-1])

    async def test_a_message_that_lost_blocks_is_still_sent(
        self, backend: Backend, subject: Provider
    ) -> None:
        backend.says(Says(text="both", calls=(Call("a"), Call("a"))), Says(text="fine"))
        first = await subject.sample(ask(user("go"), tools=offer("a")))
        message = kept(first)
        less = message.model_copy(update={"content": message.content_as_list[:2]})
        answered = results(first, TextContent(text="1"))
        one = answered.model_copy(update={"content": answered.content_as_list[:1]})
        reply = await subject.sample(ask(user("go"), less, one, tools=offer("a")))
        assert blocks_of(reply) == [TextContent(text="fine")]

    async def test_tools_go_out_in_one_order(self, backend: Backend, subject: Provider) -> None:
        backend.says(Says(text="fine"))
        await subject.sample(ask(user("go"), tools=offer("c", "a", "b")))
        await subject.sample(ask(user("go"), tools=offer("b", "c", "a")))
        assert backend.raw[0] == backend.raw[1]

    async def test_the_prompt_and_the_results_reach_the_model(
        self, backend: Backend, subject: Provider
    ) -> None:
        backend.says(Says(calls=(Call("a"),)), Says(text="done"))
        first = await subject.sample(ask(user("go"), system_prompt="sysprompt", tools=offer("a")))
        told = results(first, TextContent(text="told"), structured={"deep": [1]}, error=True)
        request = ask(user("go"), kept(first), told, system_prompt="sysprompt", tools=offer("a"))
        await subject.sample(request)
        sent = json.dumps(backend.requests[-1])
        assert all(text in sent for text in ("sysprompt", "told", '{\\"deep\\": [1]}'))
        assert "error" in sent.lower()

    async def test_a_server_that_holds_no_model_to_a_schema(
        self, backend: Backend, subject: Provider
    ) -> None:
        """Typed answers come all the same, and what it refused once it is not asked for again."""
        backend.structured = False
        agent = Agent("judge", output=Verdict)
        refused: list[int] = []
        for _ in range(2):
            backend.clear()
            backend.says(
                Says(text="It is Oslo."),
                Says(calls=(Call(ANSWER_TOOL, {"city": "Oslo", "score": 9}),)),
            )
            result = await agent.run("Which city?", provider=subject)
            assert (result.stop, result.output) == (Stop.DONE, Verdict(city="Oslo", score=9))
            refused.append(len(backend.problems))
        assert refused[0] == refused[1] <= 1

    # --- what goes wrong -----------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("status", "kind", "attempts"),
        [
            (400, BadRequestError, 1),
            (401, AuthenticationError, 1),
            (402, AuthenticationError, 1),
            (403, AuthenticationError, 1),
            (404, BadRequestError, 1),
            (413, ContextOverflowError, 1),
            (422, BadRequestError, 1),
            (408, OverloadedError, 2),
            (409, OverloadedError, 2),
            (429, OverloadedError, 2),
            (500, OverloadedError, 2),
            (503, OverloadedError, 2),
            (529, OverloadedError, 2),
        ],
    )
    async def test_an_error_is_typed(
        self,
        backend: Backend,
        subject: Provider,
        status: int,
        kind: type[ProviderError],
        attempts: int,
    ) -> None:
        backend.says(Refuses(status, "because"))
        with pytest.raises(kind) as caught:
            await subject.sample(ask(user("go")))
        assert type(caught.value) is kind
        assert caught.value.status == status
        assert "because" in str(caught.value)
        assert len(backend.requests) >= attempts
        assert attempts > 1 or len(backend.requests) == 1

    async def test_an_error_page_is_not_repeated(self, backend: Backend, subject: Provider) -> None:
        backend.says(Sends(status=502, body=PAGE, headers={"retry-after": "0"}))
        with pytest.raises(OverloadedError) as caught:
            await subject.sample(ask(user("go")))
        assert "<" not in str(caught.value)

    async def test_too_long_for_the_model(self, backend: Backend, subject: Provider) -> None:
        backend.says(
            Refuses(400, "prompt is too long: 210000 tokens > 200000 maximum context length")
        )
        with pytest.raises(ContextOverflowError):
            await subject.sample(ask(user("go")))

    @pytest.mark.parametrize("sends", NO_REPLIES.values(), ids=NO_REPLIES)
    async def test_what_is_no_reply(
        self, backend: Backend, subject: Provider, sends: Sends
    ) -> None:
        backend.says(sends)
        with pytest.raises(MalformedReplyError):
            await subject.sample(ask(user("go")))
        assert len(backend.requests) == 1

    async def test_a_server_that_recovers(self, backend: Backend, subject: Provider) -> None:
        backend.says(Refuses(503), Refuses(429), Says(text="back"))
        assert blocks_of(await subject.sample(ask(user("go")))) == [TextContent(text="back")]
        assert len(backend.requests) == 3

    async def test_a_connection_that_breaks_in_the_middle(
        self, backend: Backend, subject: Provider
    ) -> None:
        cut = Sends(body={"text": "x" * 100_000}, breaks_off=True)
        backend.says(cut, Says(text="back"))
        assert blocks_of(await subject.sample(ask(user("go")))) == [TextContent(text="back")]

    async def test_a_run_keeps_its_transcript_when_the_server_goes(
        self, backend: Backend, subject: Provider
    ) -> None:
        @tool(description=described("look"))
        def look() -> str:
            return "saw it"

        backend.says(Says(calls=(Call("look"),)), Refuses(500))
        result = await Agent("looker", tools=[look]).run("look", provider=subject)
        assert (result.stop, len(result.messages)) == (Stop.FAILED, 3)
        assert (result.error or "").startswith("overloaded: ")

    async def test_cancelled_while_it_waits(self, backend: Backend, subject: Provider) -> None:
        backend.says(Sends(hangs=True), Says(text="still here"))
        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:
                group.start_soon(subject.sample, ask(user("go")))
                while not backend.requests:  # noqa: ASYNC110  the server is in another thread
                    await anyio.sleep(0.01)
                group.cancel_scope.cancel()
            reply = await subject.sample(ask(user("go")))
        assert blocks_of(reply) == [TextContent(text="still here")]

    async def test_the_key_is_nowhere(
        self, backend: Backend, subject: Provider, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Not in a name, a repr, an error and what hangs on it, a log or an event."""
        caplog.set_level(logging.DEBUG)
        seen = [repr(subject), str(subject), subject.name]
        with structlog.testing.capture_logs() as logs:
            for line in (
                Refuses(401, f"Incorrect API key provided: {backend.key}"),
                Refuses(500, f"Bearer {backend.key}"),
                Sends(body={"error": f"who is {backend.key}?"}),
                Sends(body=f"<p>{backend.key}", headers={"content-type": "text/html"}),
            ):
                backend.says(line)
                with pytest.raises(ProviderError) as caught:
                    await subject.sample(ask(user("go")))
                seen += _all_of(caught.value)
                backend.clear()
        assert backend.key not in "\n".join([*seen, repr(logs), caplog.text])


def _all_of(error: BaseException | None) -> list[str]:
    """What may be shown of an error: itself, its fields, and the errors behind it."""
    shown: list[str] = []
    while error is not None:
        shown += [repr(error), str(error), repr(vars(error)), *traceback.format_exception(error)]
        error = error.__cause__ or error.__context__
    return shown
