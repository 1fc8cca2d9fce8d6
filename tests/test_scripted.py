"""The provider that says what it was told to say."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from mcp_types import (
    CreateMessageRequestParams,
    CreateMessageResult,
    SamplingMessage,
    TextContent,
    ToolUseContent,
)
from pydantic import BaseModel

from agentloop import Agent, Stop, Usage
from agentloop.errors import DefinitionError, OverloadedError
from agentloop.meta import usage_of
from agentloop.provider import Provider, load_provider, provider_names
from agentloop_providers import ScriptedProvider
from agentloop_providers.scripted import ScriptError, reply, use


def request(text: str = "go") -> CreateMessageRequestParams:
    message = SamplingMessage(role="user", content=TextContent(text=text))
    return CreateMessageRequestParams(messages=[message], max_tokens=9)


async def said(*script: Any) -> Any:
    return await ScriptedProvider(*script).sample(request())


async def test_text_is_said_as_a_reply() -> None:
    got = await said("hello")
    assert (got.role, got.stop_reason, got.model) == ("assistant", "endTurn", "scripted")
    assert got.content_as_list == [TextContent(text="hello")]


async def test_blocks_are_said_with_the_stop_reason_that_follows_from_them() -> None:
    assert (await said(TextContent(text="hi"))).stop_reason == "endTurn"
    got = await said([TextContent(text="hi"), use("look", path="/")])
    assert got.stop_reason == "toolUse"
    assert got.content_as_list[1] == ToolUseContent(name="look", id="call-1-2", input={"path": "/"})
    assert (await said(use("look", id="mine"))).content_as_list[0].id == "mine"


async def test_ids_that_are_not_given_are_the_same_in_every_run_and_differ_within_one() -> None:
    async def ids() -> list[str]:
        provider = ScriptedProvider([use("a"), use("b", id="own"), use("c")], use("d"))
        replies = [await provider.sample(request()) for _ in range(2)]
        return [block.id for r in replies for block in r.content_as_list]  # type: ignore[union-attr]

    assert await ids() == await ids() == ["call-1-1", "own", "call-1-3", "call-2-1"]


async def test_a_whole_reply_is_said_as_it_is() -> None:
    single = CreateMessageResult(role="assistant", model="m", content=TextContent(text="x"))
    assert await said(single) is single
    got = await said(reply("x", stop_reason="maxTokens", usage=Usage(input_tokens=3), model="n"))
    assert (got.stop_reason, got.model) == ("maxTokens", "n")
    assert usage_of(got) == Usage(input_tokens=3)


async def test_an_exception_is_raised() -> None:
    with pytest.raises(OverloadedError, match="later"):
        await said(OverloadedError("later"))


async def test_a_number_is_a_pause_before_the_next_line() -> None:
    began = time.monotonic()
    assert (await said(0.05, 0.05, "hello")).content_as_list == [TextContent(text="hello")]
    assert 0.1 <= time.monotonic() - began < 1


async def test_a_function_of_the_request_gives_a_line() -> None:
    def echo(request: CreateMessageRequestParams) -> str:
        return str(len(request.messages))

    async def later(request: CreateMessageRequestParams) -> Any:
        await anyio.lowlevel.checkpoint()
        return echo

    assert (await said(echo)).content_as_list == [TextContent(text="1")]
    assert (await said(later)).content_as_list == [TextContent(text="1")]


async def test_requests_are_kept() -> None:
    provider = ScriptedProvider("a", "b")
    await provider.sample(request("one"))
    await provider.sample(request("two"))
    texts = [r.messages[0].content_as_list[0].text for r in provider.requests]  # type: ignore[union-attr]
    assert texts == ["one", "two"]


async def test_an_ask_beyond_the_script_fails_loudly() -> None:
    provider = ScriptedProvider("only")
    await provider.sample(request())
    with pytest.raises(ScriptError, match="1 lines, and one more"):
        await provider.sample(request())
    result = await Agent("agent").run("go", provider=ScriptedProvider())
    assert result.stop is Stop.FAILED
    assert (result.error or "").startswith("script: ")


class City(BaseModel):
    city: str
    size: int


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ([use("final_answer", city="Ulm")], "The answer does not fit: size: Field required"),
        ([use("final_answer", city=5, size=1)], "city: Input should be a valid string (got 5)"),
        (["It is Ulm."], "after: That was no answer yet. Call the tool final_answer to answer."),
        ([use("nothing")], "after: There is no tool 'nothing'."),
        (["{}", use("final_answer", city="Ulm")], "size: Field required"),
    ],
)
async def test_an_ask_beyond_the_script_says_what_was_wrong_with_its_last_line(
    script: list[Any], why: str
) -> None:
    result = await Agent("agent", output=City).run("go", provider=ScriptedProvider(*script))
    assert (result.stop, (result.error or "").partition(":")[0]) == (Stop.FAILED, "script")
    assert why in (result.error or "")


async def test_lines_that_were_never_said_fail_loudly() -> None:
    provider = ScriptedProvider("a", "b")
    await provider.sample(request())
    assert provider.remaining == 1
    with pytest.raises(ScriptError, match="1 of 2 lines were never said"):
        provider.finish()
    with pytest.raises(ScriptError), ScriptedProvider("a"):
        pass
    with pytest.raises(KeyError), ScriptedProvider("a"):
        raise KeyError  # what failed first is what is seen


async def test_a_script_may_begin_again() -> None:
    with ScriptedProvider("a", "b", repeat=True) as provider:
        got = [(await provider.sample(request())).content_as_list[0].text for _ in range(5)]  # type: ignore[union-attr]
    assert got == ["a", "b", "a", "b", "a"]


async def test_asks_at_the_same_time_get_a_line_each() -> None:
    provider = ScriptedProvider(0.02, "a", 0.01, "b")
    got: list[str] = []

    async def ask() -> None:
        got.append((await provider.sample(request())).content_as_list[0].text)  # type: ignore[union-attr]

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        group.start_soon(ask)
    assert sorted(got) == ["a", "b"]
    provider.finish()


# --- by name -----------------------------------------------------------------------------------


def test_it_is_a_provider_that_is_found_by_name(tmp_path: Path) -> None:
    assert isinstance(ScriptedProvider(), Provider)
    assert "scripted" in provider_names()
    script = tmp_path / "script.json"
    script.write_text(json.dumps(["hello"]))
    assert isinstance(load_provider(f"scripted:{script}"), ScriptedProvider)


async def test_a_script_is_read_from_a_file(tmp_path: Path) -> None:
    script = tmp_path / "script.json"
    whole = reply(use("look", id="c1"), usage=Usage(input_tokens=1))
    script.write_text(json.dumps(["hello", whole.model_dump(mode="json", by_alias=True)]))
    provider = ScriptedProvider.from_spec(str(script))
    assert (await provider.sample(request())).content_as_list == [TextContent(text="hello")]
    assert (await provider.sample(request())).content_as_list == [use("look", id="c1")]


@pytest.mark.parametrize("content", [None, "", "{", "5", "[5]", '[{"role": "x"}]', '{"a": 1}'])
def test_a_file_that_is_no_script_is_refused(tmp_path: Path, content: str | None) -> None:
    script = tmp_path / "script.json"
    if content is not None:
        script.write_text(content)
    with pytest.raises(DefinitionError, match="a JSON file with a list"):
        ScriptedProvider.from_spec(str(script))


def test_a_provider_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(DefinitionError, match=r"no provider 'nobody'; installed are: .*scripted"):
        load_provider("nobody:x")
