"""Agents: defined once, run at will, inside one another, and several at a time."""

from __future__ import annotations

import gc
import json
import re
import time
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from mcp_types import CreateMessageRequestParams, ImageContent, SamplingMessage, TextContent
from pydantic import BaseModel

from agentloop import Agent, Limits, Stop, ToolError, Usage, gather, once, tool
from agentloop.errors import DefinitionError, OverloadedError, RunStopped
from agentloop.events import Event, RunEnded
from agentloop.place import HERE, MAX_NESTING
from agentloop_providers import ScriptedProvider
from agentloop_providers.scripted import reply, use


class City(BaseModel):
    city: str


@tool
async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def tool_text(messages: Any, index: int = -1) -> list[str]:
    return [
        "|".join(part.text for part in block.content if part.type == "text")
        for block in messages[index].content_as_list
        if block.type == "tool_result"
    ]


# --- definitions -------------------------------------------------------------------------------


def test_an_agent_is_a_definition_that_can_be_read() -> None:
    agent = Agent("agent", "Be brief.", tools=[add], limits=Limits(steps=3), max_tokens=100)
    assert (agent.name, list(agent.tools)) == ("agent", ["add"])
    assert agent.definition.limits.steps == 3
    assert repr(agent) == "Agent('agent', tools=['add'])"


@pytest.mark.parametrize("max_tokens", [0, -1, 1.5, True, None])
def test_max_tokens_is_a_whole_number(max_tokens: Any) -> None:
    with pytest.raises(DefinitionError, match="max_tokens"):
        Agent("agent", max_tokens=max_tokens)


def test_the_digest_changes_with_what_the_model_sees_and_with_nothing_else() -> None:
    def digest(**options: Any) -> str:
        return Agent(**{"name": "agent", "tools": [add], **options}).definition.digest

    same = digest()
    assert digest(limits=Limits(steps=3)) == digest(max_tokens=7) == same
    others = [digest(name="other"), digest(instructions="x"), digest(tools=[]), digest(output=City)]
    assert len({same, *others}) == 5


# --- who answers -------------------------------------------------------------------------------


async def test_without_anybody_to_ask_the_error_says_what_to_do() -> None:
    with pytest.raises(DefinitionError, match=r"no model to ask: pass provider="):
        await Agent("agent").run("go")


async def test_an_agents_own_provider_answers_and_one_for_the_run_goes_before_it() -> None:
    agent = Agent("agent", provider=ScriptedProvider("mine", repeat=True))
    assert (await agent.run("go")).text == "mine"
    assert (await agent.run("go", provider=ScriptedProvider("given"))).text == "given"


async def test_an_agent_inside_another_is_answered_by_the_others_provider() -> None:
    inner = Agent("inner")

    @tool
    async def consult() -> str:
        """Ask the other agent."""
        return (await inner.run("and?")).text

    given = ScriptedProvider([use("consult")], "from the outer one's", "done")
    result = await Agent("outer", tools=[consult]).run("go", provider=given)
    assert tool_text(result.messages, 2) == ["from the outer one's"]
    own = ScriptedProvider([use("consult")], "from the outer one's own", "done")
    result = await Agent("outer", tools=[consult], provider=own).run("go")
    assert tool_text(result.messages, 2) == ["from the outer one's own"]


async def test_an_agent_inside_another_may_have_its_own_provider_for_the_run() -> None:
    inner = Agent("inner")

    @tool
    async def consult() -> str:
        """Ask the other agent."""
        return (await inner.run("and?", provider=ScriptedProvider("its own"))).text

    provider = ScriptedProvider([use("consult")], "done")
    result = await Agent("outer", tools=[consult]).run("go", provider=provider)
    assert tool_text(result.messages, 2) == ["its own"]


# --- results -----------------------------------------------------------------------------------


async def test_a_result_is_json_for_whoever_wants_it() -> None:
    agent = Agent("agent", tools=[add])
    provider = ScriptedProvider([use("add", a=1, b=2)], reply("3", usage=Usage(input_tokens=5)))
    data = json.loads(json.dumps((await agent.run("go", provider=provider)).to_json()))
    assert data["agent"] == "agent"
    assert (data["output"], data["text"], data["stop"], data["error"]) == ("3", "3", "done", None)
    assert (data["steps"], data["tool_calls"]) == (2, 1)
    assert data["usage"]["asks"] == 2
    assert len(data["messages"]) == 4


async def test_only_a_run_that_is_done_passes_raise_for_stop() -> None:
    done = await Agent("agent").run("go", provider=ScriptedProvider("yes"))
    assert done.raise_for_stop() is done
    failed = await Agent("agent").run("go", provider=ScriptedProvider(OverloadedError("later")))
    with pytest.raises(RunStopped, match=r"'failed' .*overloaded: later") as caught:
        failed.raise_for_stop()
    assert caught.value.result is failed
    assert failed.output == ""


async def test_a_failed_run_does_not_give_an_earlier_runs_words_as_its_own() -> None:
    agent = Agent("agent")
    first = await agent.run("one", provider=ScriptedProvider("the first answer"))
    failed = await agent.run(
        "two", provider=ScriptedProvider(OverloadedError("later")), history=first.messages
    )
    assert (failed.text, failed.output, failed.stop) == ("", "", Stop.FAILED)


async def test_a_prompt_may_hold_pictures() -> None:
    picture = ImageContent(data="aGk=", mime_type="image/png")
    provider = ScriptedProvider("a cat")
    await Agent("agent").run([TextContent(text="what is it"), picture], provider=provider)
    assert provider.requests[0].messages[0].content_as_list[1] == picture


async def test_what_no_model_would_take_is_refused_before_it_is_asked() -> None:
    provider = ScriptedProvider("never")
    with pytest.raises(DefinitionError, match="prompt is empty"):
        await Agent("agent").run([], provider=provider)
    assert provider.requests == []


# --- agents as tools ---------------------------------------------------------------------------


async def test_an_agent_is_a_tool_of_another_and_what_it_uses_counts_there() -> None:
    def costs(tokens: int, *content: Any) -> Any:
        return reply(*content, usage=Usage(input_tokens=tokens))

    helper = Agent("helper", tools=[add], description="Knows numbers.").as_tool()
    provider = ScriptedProvider(
        costs(1, use("helper", prompt="1+2")),
        costs(10, use("add", a=1, b=2)),
        costs(10, "three"),
        costs(1, "It is three."),
    )
    outer = Agent("outer", tools=[helper])
    assert outer.tools["helper"].description == "Knows numbers."
    result = await outer.run("go", provider=provider)
    provider.finish()
    assert tool_text(result.messages, 2) == ["three"]
    assert result.usage == Usage(asks=4, input_tokens=22)
    assert result.steps == 2


async def test_a_typed_agent_as_a_tool_gives_its_answer_as_json() -> None:
    helper = Agent("helper", output=City).as_tool(name="ask_city", description="Cities.")
    provider = ScriptedProvider([use("ask_city", prompt="?")], [use("final_answer", city="R")], "R")
    result = await Agent("outer", tools=[helper]).run("go", provider=provider)
    assert tool_text(result.messages, 2) == ['{"city":"R"}']


async def test_an_agent_that_fails_as_a_tool_is_an_error_result_and_says_how_it_ended() -> None:
    helper = Agent("helper", limits=Limits(steps=1), tools=[add]).as_tool()
    provider = ScriptedProvider(
        [use("helper", prompt="a"), use("helper", prompt="b")],
        OverloadedError("later"),
        "as far as I know",
        "done",
    )
    result = await Agent("outer", tools=[helper], limits=Limits(parallel=1)).run(
        "go", provider=provider
    )
    failed, limited = result.messages[2].content_as_list
    assert failed.type == limited.type == "tool_result"
    assert failed.is_error
    assert not limited.is_error
    first, second = tool_text(result.messages, 2)
    assert first.startswith("[agent 'helper' stopped with 'failed'")
    assert second.startswith("[agent 'helper' stopped with 'steps'")
    assert second.endswith("as far as I know")


async def test_what_agents_used_counts_though_the_tool_around_them_fails() -> None:
    inner = Agent("inner")

    @tool
    async def consult() -> None:
        """Ask, then fail."""
        await inner.run("and?")
        raise ToolError("no use")

    provider = ScriptedProvider(
        reply(use("consult"), usage=Usage(input_tokens=1)),
        reply("x", usage=Usage(input_tokens=50)),
        reply("done", usage=Usage(input_tokens=1)),
    )
    result = await Agent("outer", tools=[consult]).run("go", provider=provider)
    assert result.usage == Usage(asks=3, input_tokens=52)


async def test_what_an_agent_used_counts_though_its_tool_ran_out_of_time() -> None:
    inner = Agent("inner", tools=[add])

    @tool(timeout=0.1)
    async def consult() -> None:
        """Ask for too long."""
        await inner.run("and?")

    provider = ScriptedProvider(
        reply(use("consult"), usage=Usage(input_tokens=1)),
        reply(use("add", a=1, b=1), usage=Usage(input_tokens=50)),
        60,
    )

    async def sample(request: CreateMessageRequestParams) -> Any:
        return await provider.sample(request)

    last = reply("done", usage=Usage(input_tokens=1))

    class Then:
        name = "then"

        async def sample(self, request: CreateMessageRequestParams) -> Any:
            outer = request.tools is not None and request.tools[0].name == "consult"
            return last if outer and len(request.messages) > 1 else await sample(request)

    result = await Agent("outer", tools=[consult]).run("go", provider=Then())
    assert result.text == "done"
    assert result.usage == Usage(asks=3, input_tokens=52)


async def test_the_tokens_of_agents_inside_count_for_the_limit_outside() -> None:
    helper = Agent("helper").as_tool()
    provider = ScriptedProvider(
        reply(use("helper", prompt="?"), usage=Usage(input_tokens=10)),
        reply("x", usage=Usage(input_tokens=500)),
    )
    result = await Agent("outer", tools=[helper], limits=Limits(tokens=400)).run(
        "go", provider=provider
    )
    assert (result.stop, len(provider.requests)) == (Stop.TOKENS, 2)


async def test_agents_inside_one_another_go_so_deep_and_no_deeper() -> None:
    deepest = 0

    @tool
    async def deeper(level: int) -> str:
        """Go deeper."""
        nonlocal deepest
        deepest = max(deepest, level)
        return (await agent.run(f"{level}")).text

    def script(request: CreateMessageRequestParams) -> Any:
        if len(request.messages) == 1:
            return [use("deeper", level=int(request.messages[0].content_as_list[0].text) + 1)]  # type: ignore[union-attr]
        return "|".join(tool_text(request.messages))

    agent = Agent("agent", tools=[deeper])
    result = await agent.run("0", provider=ScriptedProvider(script, repeat=True))
    assert deepest == MAX_NESTING
    assert f"more than {MAX_NESTING} agents inside one another" in result.text


# --- several at a time -------------------------------------------------------------------------


async def test_what_runs_in_branches_of_a_tool_use_counts_for_the_run_around_them() -> None:
    inner = Agent("inner")

    @tool
    async def ask_both() -> list[str]:
        """Ask both."""
        runs = [inner.run(what, provider=ScriptedProvider("yes")) for what in "ab"]
        return [result.text for result in await gather(*runs)]

    outer = Agent("outer", tools=[ask_both])
    result = await outer.run("go", provider=ScriptedProvider(use("ask_both"), "both said yes"))
    assert result.usage.asks == 4


async def test_gather_runs_all_at_once_and_keeps_their_order() -> None:
    async def run(n: int) -> str:
        provider = ScriptedProvider(0.2 - n * 0.05, f"{n}")
        return (await Agent("agent").run("go", provider=provider)).text

    began = time.monotonic()
    assert await gather(*(run(n) for n in range(4))) == ["0", "1", "2", "3"]
    assert time.monotonic() - began < 0.45
    assert await gather() == []


async def test_gather_raises_what_was_raised_and_stops_the_others() -> None:
    stopped: list[str] = []

    async def fail() -> None:
        await anyio.sleep(0.05)
        raise KeyError("this")

    async def wait() -> None:
        try:
            await anyio.sleep(60)
        finally:
            stopped.append("wait")

    with pytest.raises(KeyError, match="this"):
        await gather(wait(), fail(), wait())
    assert stopped == ["wait", "wait"]


async def test_gather_leaves_no_coroutine_that_was_never_awaited() -> None:
    async def fail() -> None:
        raise KeyError("at once")

    async def never() -> None:
        await anyio.sleep(60)

    with pytest.raises(KeyError):
        await gather(fail(), never(), never())
    with anyio.CancelScope() as scope:
        scope.cancel()
        await gather(never(), never())
    gc.collect()  # a coroutine that nobody awaited warns when it goes, and warnings are errors


async def test_runs_that_are_gathered_have_places_of_their_own() -> None:
    seen: list[Event] = []
    inner = Agent("inner")

    @tool
    async def fan_out() -> str:
        """Ask three times."""
        results = await gather(*(inner.run(f"{n}") for n in range(3)))
        again = await inner.run("again")
        return "+".join([*(r.text for r in results), again.text])

    def script(request: CreateMessageRequestParams) -> Any:
        if request.tools is None:
            return request.messages[0].content_as_list[0].text  # type: ignore[union-attr]
        return [use("fan_out")] if len(request.messages) == 1 else "done"

    provider = ScriptedProvider(script, repeat=True)
    result = await Agent("outer", tools=[fan_out]).run(
        "go", provider=provider, on_event=seen.append
    )
    assert tool_text(result.messages, 2) == ["0+1+2+again"]
    keys = [event.key for event in seen if isinstance(event, RunEnded)]
    assert len(set(keys)) == len(keys) == 5
    assert all(key.startswith("0") for key in keys)


async def test_a_call_id_that_comes_again_is_another_place() -> None:
    seen: list[Event] = []
    helper = Agent("helper").as_tool()
    provider = ScriptedProvider(
        [use("helper", id="c", prompt="1")],
        "one",
        [use("helper", id="c", prompt="2")],
        "two",
        "done",
    )
    result = await Agent("outer", tools=[helper]).run("go", provider=provider, on_event=seen.append)
    assert [tool_text(result.messages, n) for n in (2, 4)] == [["one"], ["two"]]
    keys = [event.key for event in seen if isinstance(event, RunEnded)]
    assert len(set(keys)) == 3


async def test_each_ask_is_made_in_the_place_of_its_run() -> None:
    places: list[str] = []
    helper = Agent("helper", tools=[add]).as_tool()

    def script(request: CreateMessageRequestParams) -> Any:
        here = HERE.get()
        assert here is not None
        places.append(here.key)
        if len(request.messages) > 1:
            return "done"
        inner = request.tools is not None and request.tools[0].name == "add"
        return [use("add", a=1, b=2)] if inner else [use("helper", prompt="?")]

    agent = Agent("outer", tools=[helper])
    await agent.run("go", provider=ScriptedProvider(script, repeat=True))
    outer, inner, *_ = places
    assert places == [outer, inner, inner, outer]
    assert inner.startswith(f"{outer}/")


async def test_after_a_run_its_surroundings_are_as_before() -> None:
    assert HERE.get() is None
    await Agent("agent", tools=[add]).run(
        "go", provider=ScriptedProvider([use("add", a=1, b=1)], "2")
    )
    with pytest.raises(DefinitionError):
        await Agent("agent").run("go")
    assert HERE.get() is None


# --- once --------------------------------------------------------------------------------------


async def test_once_outside_of_a_served_function_is_a_call_whose_value_is_json() -> None:
    async def later(n: int) -> City:
        await anyio.lowlevel.checkpoint()
        return City(city="R" * n)

    assert await once("a", lambda: (1, 2)) == [1, 2]
    assert await once("b", later, n=3) == {"city": "RRR"}
    with pytest.raises(DefinitionError, match="no JSON form"):
        await once("c", object)


async def test_what_fails_in_once_fails_as_it_is() -> None:
    def fail() -> None:
        raise KeyError("this")

    with pytest.raises(KeyError, match="this"):
        await once("a", fail)


# --- what people try first ---------------------------------------------------------------------


def look(at: str) -> str:
    """Look."""
    return at


@pytest.mark.parametrize(
    ("mistaken", "said"),
    [
        ({"limits": {"steps": 3}}, "write it as limits=Limits(steps=...)"),
        ({"limits": 5}, "write it as limits=Limits(steps=...)"),
        ({"provider": "offline"}, "load_provider('offline')"),
        ({"provider": ScriptedProvider}, "is a class: give one of it, ScriptedProvider(...)"),
        ({"provider": 5}, "provider=5 has no sample(): it is no provider"),
    ],
)
async def test_words_for_the_command_are_refused_in_code_with_what_to_write(
    mistaken: Any, said: str
) -> None:
    with pytest.raises(DefinitionError, match=re.escape(said)):
        Agent("agent", **mistaken)
    with pytest.raises(DefinitionError, match=re.escape(said)):
        await Agent("agent").run("Go", **mistaken)


BLOCK = TextContent(text="Go")


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        (42, "the prompt is a text, or a list of TextContent, ImageContent and AudioContent, not"),
        (None, ", not None"),
        (BLOCK, ", not a TextContent"),
        (b"Go", ", not a bytes"),
        ([BLOCK, "Go"], "prompt[1] is a str; the prompt is a text, or a list of"),
        ([{"type": "text", "text": "Go"}], "prompt[0] is a dict"),
        ([use("look")], "prompt[0] is a ToolUseContent"),
        ([SamplingMessage(role="user", content=BLOCK)], "prompt[0] is a SamplingMessage"),
    ],
)
async def test_what_is_no_prompt_is_refused_with_what_one_is(prompt: Any, said: str) -> None:
    with pytest.raises(DefinitionError, match=re.escape(said)):
        await Agent("agent").run(prompt, provider=ScriptedProvider("gone"))


@pytest.mark.parametrize(
    ("mistaken", "said"),
    [
        ({"history": "Go"}, "history= takes a list of SamplingMessage, such as result.messages"),
        ({"history": 5}, ", not an int"),
        ({"history": [BLOCK]}, "history[0] is a TextContent"),
        ({"on_event": []}, "on_event=[] is no function"),
    ],
)
async def test_what_a_run_cannot_take_is_refused(mistaken: Any, said: str) -> None:
    with pytest.raises(DefinitionError, match=re.escape(said)):
        await Agent("agent").run("Go", provider=ScriptedProvider("gone"), **mistaken)


@pytest.mark.parametrize(
    ("mistaken", "said"),
    [
        ({"name": 5}, "an agent's name is a text, not 5"),
        ({"name": ""}, "an agent's name is a text"),
        ({"instructions": ["Be brief."]}, "agent 'agent': instructions= takes a text"),
        ({"description": 5}, "description= takes a text"),
        ({"temperature": "hot"}, "agent 'agent': temperature: "),
        ({"model_preferences": "fast"}, "model_preferences: "),
        ({"stop_sequences": "END"}, "stop_sequences= takes a list"),
        ({"stop_sequences": [5]}, "stop_sequences.0: "),
        ({"tools": 5}, "write tools=[...]"),
        ({"tools": [5]}, "tools= holds 5, which is no tool and no function"),
    ],
)
def test_what_no_agent_can_be_made_of_is_refused(mistaken: Any, said: str) -> None:
    with pytest.raises(DefinitionError, match=re.escape(said)):
        Agent(**{"name": "agent", **mistaken})


@pytest.mark.parametrize("tools", ["look", look, tool(look)])
def test_one_tool_where_a_list_is_wanted(tools: Any) -> None:
    with pytest.raises(DefinitionError, match=re.escape("write tools=[...]")):
        Agent("agent", tools=tools)


def test_what_no_model_can_write_is_refused_in_one_sentence() -> None:
    class Camera: ...

    def snap(camera: Camera) -> str:
        """Take a picture."""
        return ""

    snap.__annotations__["camera"] = Camera
    with pytest.raises(DefinitionError, match=r"tool 'snap': no JSON schema: .*Camera'>$"):
        Agent("agent", tools=[snap])
