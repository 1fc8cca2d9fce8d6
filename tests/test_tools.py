"""Tools: made from functions, named, collected."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import anyio
import anyio.lowlevel
import mcp_types
import pytest

from agentloop import Agent, Tool, tool
from agentloop.errors import DefinitionError
from agentloop.output import ANSWER_TOOL
from agentloop.tools import Toolbox, is_async


def add(a: int, b: int = 1) -> int:
    """Add two numbers.

    Args:
        a: The first.
    """
    return a + b


async def fetch(url: str) -> str:
    """Fetch a page."""
    return url


def test_a_plain_function_becomes_a_tool_with_its_name_and_docstring() -> None:
    made = tool(add)
    assert isinstance(made, Tool)
    assert (made.name, made.description) == ("add", "Add two numbers.")
    assert made.offer() == mcp_types.Tool(
        name="add",
        description="Add two numbers.",
        input_schema={
            "type": "object",
            "properties": {
                "a": {"type": "integer", "description": "The first."},
                "b": {"type": "integer", "default": 1},
            },
            "required": ["a"],
            "additionalProperties": False,
        },
    )


def test_a_tool_can_still_be_called_like_the_function_it_is() -> None:
    @tool(name="plus", title="Plus", exclusive=True, poll=True, timeout=None, grace=0)
    def add_up(a: int, b: int) -> int:
        return a + b

    assert add_up(1, b=2) == 3
    assert (add_up.name, add_up.title, add_up.description) == ("plus", "Plus", "")
    assert add_up.exclusive
    assert add_up.poll
    assert add_up.timeout is None


def test_a_description_that_is_given_wins_even_if_it_is_empty() -> None:
    assert tool(description="Sum.")(add).description == "Sum."
    assert tool(description="")(add).offer().description is None


@pytest.mark.parametrize("name", ["a", "A-b_c.9", "x" * 128, "search.web"])
def test_names_that_the_protocol_allows(name: str) -> None:
    assert tool(name=name)(add).name == name


@pytest.mark.parametrize("name", ["", "two words", "ü", "a/b", "x" * 129, "a\n", "a:b"])
def test_names_that_the_protocol_does_not_allow(name: str) -> None:
    with pytest.raises(DefinitionError, match="SEP-986"):
        tool(name=name)(add)


def test_a_lambda_needs_a_name() -> None:
    with pytest.raises(DefinitionError, match="no name"):
        tool(lambda x: x)
    assert tool(name="same")(lambda x: x).name == "same"


def test_a_partial_has_the_name_of_its_function() -> None:
    made = tool(functools.partial(functools.partial(add, b=2)))
    assert (made.name, made.description) == ("add", "Add two numbers.")
    assert made(a=1) == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"timeout": 0},
        {"timeout": -1.0},
        {"timeout": float("nan")},
        {"timeout": "5"},
        {"grace": -1},
        {"grace": float("inf")},
        {"grace": float("nan")},
        {"grace": None},
        {"max_bytes": 10},
        {"max_media_bytes": -1},
    ],
)
def test_options_that_make_no_sense_are_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match=next(iter(wrong))):
        tool(**wrong)(add)


def test_an_option_that_there_is_not_is_refused() -> None:
    with pytest.raises(TypeError):
        tool(tiemout=3)(add)  # type: ignore[call-overload]


def test_a_schema_is_of_an_object() -> None:
    with pytest.raises(DefinitionError, match="not of type object"):
        Tool(name="t", description="", input_schema={"type": "string"}, fn=add, check=dict)


def test_functions_that_yield_are_refused() -> None:
    def some() -> Any:
        yield 1

    async def others() -> Any:
        yield 1

    for fn in (some, others):
        with pytest.raises(DefinitionError, match="yields"):
            tool(fn)


class Sync:
    def __call__(self) -> None: ...


class Async:
    async def __call__(self) -> None: ...

    async def method(self) -> None: ...


@pytest.mark.parametrize(
    ("fn", "wanted"),
    [
        (add, False),
        (fetch, True),
        (functools.partial(fetch, "x"), True),
        (functools.partial(functools.partial(add), 1), False),
        (Sync(), False),
        (Async(), True),
        (functools.partial(Async()), True),
        (Async().method, True),
        (Async, False),
    ],
)
def test_which_functions_are_async(fn: Any, wanted: bool) -> None:
    assert is_async(fn) is wanted


async def wait_for_it() -> None:
    await anyio.lowlevel.checkpoint()


async def wait_for_each(items: Any) -> list[int]:
    return [item async for item in items]


async def define_only() -> Any:
    async def inner() -> None:
        await anyio.lowlevel.checkpoint()

    return inner


@functools.wraps(fetch)
def wrapped(url: str) -> Any:
    return wait_for_it()


@pytest.mark.parametrize(
    ("fn", "waits"),
    [
        (fetch, False),
        (functools.partial(fetch, "x"), False),
        (Async().method, False),
        (define_only, False),
        (wait_for_it, True),
        (functools.partial(wait_for_it), True),
        (wait_for_each, True),
        (Async(), True),  # what has no code of its own may wait
        (wrapped, True),
        (add, True),  # for its thread
    ],
)
def test_which_calls_may_have_to_wait(fn: Any, waits: bool) -> None:
    made = replace(tool(name="it")(fetch), fn=fn, is_async=is_async(fn))
    assert made.waits is waits


# --- toolboxes ---------------------------------------------------------------------------------


def test_a_toolbox_keeps_tools_by_name_in_their_order() -> None:
    box = Toolbox([fetch, tool(add), tool(name="more")(add)])
    assert list(box) == ["fetch", "add", "more"]
    assert len(box) == 3
    assert box["add"].fn is add
    assert "fetch" in box
    assert box.get("none") is None


def test_two_tools_of_one_name_and_the_reserved_name_are_refused() -> None:
    with pytest.raises(DefinitionError, match="two tools are called 'add'"):
        Toolbox([add, tool(add)])
    with pytest.raises(DefinitionError, match=ANSWER_TOOL):
        Agent("agent", tools=[tool(name=ANSWER_TOOL)(add)])


def test_the_nearest_names_are_named_first_and_at_most_five() -> None:
    names = ["read_file", "write_file", "list_files", "search", "delete", "move", "copy"]
    box = Toolbox([tool(name=name)(add) for name in names])
    assert box.nearest("readfile")[0] == "read_file"
    assert box.nearest("")[:2] == ["read_file", "write_file"]
    assert len(box.nearest("zzz")) == 5
    assert Toolbox([]).nearest("x") == []


def test_tools_are_offered_in_the_same_order_every_time() -> None:
    agents = [Agent("agent", tools=[fetch, add]) for _ in range(3)]
    offers = [agent.definition.request.model_dump_json() for agent in agents]
    assert len(set(offers)) == 1
