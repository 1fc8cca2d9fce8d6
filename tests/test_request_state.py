"""The state that crosses the wire: what is accepted, what is refused, that nothing runs then."""

from __future__ import annotations

import json
import zlib
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from mcp import MCPError
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.request_state import RequestStateSecurity
from mcp_types import (
    INVALID_PARAMS,
    CallToolResult,
    ElicitResult,
    InputRequiredResult,
    ListRootsResult,
)

from agentloop import Agent, Limits, gather
from agentloop.errors import StateError
from agentloop.mcp import mount, resumable
from agentloop.mcp.deflate import MAX_BYTES
from agentloop.mcp.state import pack, unpack
from agentloop_providers import ScriptedProvider
from agentloop_providers.scripted import reply, use
from tests.carriers.driver import answers_to, call_once

KEY = b"0123456789abcdef0123456789abcdef"
GO = {"prompt": "go"}
ran: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()


async def add(a: int, b: int) -> int:
    """Add two numbers."""
    ran.append(f"add {a} {b}")
    return a + b


async def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    ran.append(f"multiply {a} {b}")
    return a * b


def worker(instructions: str | None = None, **options: Any) -> Agent[Any]:
    return Agent("worker", instructions, **{"tools": [add], **options})


def hosting(agent: Agent[Any], *, key: bytes = KEY, **options: Any) -> MCPServer:
    security = RequestStateSecurity(keys=[key], **options)
    server = MCPServer("state", log_level="CRITICAL", request_state_security=security)
    mount(server, agent)
    return server


async def first_round(agent: Agent[Any], **options: Any) -> InputRequiredResult:
    result = await call_once(hosting(agent, **options), "worker", GO)
    assert isinstance(result, InputRequiredResult)
    return result


async def refused(server: MCPServer, state: str | None, **arguments: Any) -> MCPError:
    """The error of a second round, whose answer calls a tool."""
    asked = InputRequiredResult(request_state=state)
    calls = ScriptedProvider([use("add", id="c", a=1, b=2)])
    answers = {"0:0": await calls.sample(None)}  # type: ignore[arg-type]
    with pytest.raises(MCPError) as caught:
        await call_once(
            server, "worker", arguments or GO, answers=answers, state=asked.request_state
        )
    assert caught.value.code == INVALID_PARAMS
    assert ran == []
    return caught.value


async def test_the_state_says_nothing_to_the_client() -> None:
    """It is encrypted: neither prompts nor transcripts can be read from it."""
    asked = await first_round(worker("A secret instruction."))

    assert asked.request_state is not None
    assert asked.request_state.startswith("v1.")
    with pytest.raises(StateError):
        unpack(asked.request_state)


async def test_state_of_another_key() -> None:
    """A process without the key refuses the state."""
    asked = await first_round(worker())

    error = await refused(hosting(worker(), key=KEY[::-1]), asked.request_state)

    assert error.data == {"reason": "invalid_request_state"}


async def test_state_of_an_old_key_in_the_ring() -> None:
    """Keys can be changed: what an old one sealed is accepted while it is in the list."""
    asked = await first_round(worker())
    security = RequestStateSecurity(keys=[KEY[::-1], KEY])
    server = MCPServer("state", log_level="CRITICAL", request_state_security=security)
    mount(server, worker())

    result = await call_once(
        server,
        "worker",
        GO,
        answers=await answers_to(asked, ScriptedProvider("fine")),
        state=asked.request_state,
    )

    assert isinstance(result, CallToolResult)
    assert result.structured_content == {"result": "fine"}


@pytest.mark.parametrize(
    "tamper",
    [
        lambda state: state[:-1] + ("A" if state[-1] != "A" else "B"),
        lambda state: state[:40] + ("A" if state[40] != "A" else "B") + state[41:],
        lambda state: state[: len(state) // 2],
        lambda state: state + "A",
        lambda state: "",
        lambda state: "v1.",
        lambda state: "A" * 10_000,
        lambda state: pack({"v": 1, "round": 0, "runs": {}, "values": {}}),
    ],
)
async def test_tampered_state(tamper: Callable[[str], str]) -> None:
    """Not one character of the state can be changed, and no state made up."""
    asked = await first_round(worker())
    assert asked.request_state is not None

    await refused(hosting(worker()), tamper(asked.request_state))


async def test_state_of_other_arguments() -> None:
    """A state belongs to the arguments of its call."""
    asked = await first_round(worker())

    await refused(hosting(worker()), asked.request_state, prompt="something else")


async def test_expired_state() -> None:
    """A state is good for as long as the author says."""
    asked = await first_round(worker(), ttl=0.02)
    await anyio.sleep(0.03)

    await refused(hosting(worker(), ttl=0.02), asked.request_state)


@pytest.mark.parametrize(
    "changed",
    [
        worker("Now with instructions."),
        worker(tools=[add, multiply]),
        worker(tools=[]),
        worker(output=list[int]),
    ],
    ids=["instructions", "more tools", "no tools", "output"],
)
async def test_state_of_a_changed_agent(changed: Agent[Any]) -> None:
    """A deploy in between that changed the agent: the caller is told which one, nothing runs."""
    asked = await first_round(worker())

    error = await refused(hosting(changed), asked.request_state)

    assert "agent 'worker'" in error.message
    assert "changed" in error.message
    assert error.data == {"reason": "state_mismatch"}


async def test_other_limits_are_no_change() -> None:
    """Limits may be raised or lowered while calls are suspended."""
    asked = await first_round(worker())

    result = await call_once(
        hosting(worker(limits=Limits(steps=1))),
        "worker",
        GO,
        answers=await answers_to(asked, ScriptedProvider([use("add", a=1, b=2)])),
        state=asked.request_state,
    )

    assert isinstance(result, CallToolResult)
    assert result.meta is not None
    assert result.meta["dev.agentloop/result"]["stop"] == "steps"


async def test_state_of_a_changed_function() -> None:
    """Where the function now asks something else, the caller is told which run it is."""

    def served(prompt: str) -> MCPServer:
        async def play(ctx: Context) -> str:
            return (await worker().run(prompt)).output

        security = RequestStateSecurity(keys=[KEY])
        server = MCPServer("state", log_level="CRITICAL", request_state_security=security)
        server.add_tool(resumable(play), name="play")
        return server

    asked = await call_once(served("Monday"), "play")
    assert isinstance(asked, InputRequiredResult)
    answers = await answers_to(asked, ScriptedProvider([use("add", a=1, b=2)]))

    with pytest.raises(MCPError, match=r"run 0 .*'worker'") as told:
        await call_once(served("Tuesday"), "play", answers=answers, state=asked.request_state)

    assert told.value.code == INVALID_PARAMS
    assert ran == []


async def test_state_of_a_changed_agent_inside_another() -> None:
    """It does not matter how deep inside the changed agent is."""

    def served(instructions: str) -> MCPServer:
        return hosting(Agent("worker", tools=[Agent("inner", instructions).as_tool()]))

    first = await call_once(served("Old."), "worker", GO)
    assert isinstance(first, InputRequiredResult)
    model = ScriptedProvider([use("inner", prompt="x")])
    second = await call_once(
        served("Old."),
        "worker",
        GO,
        answers=await answers_to(first, model),
        state=first.request_state,
    )
    assert isinstance(second, InputRequiredResult)

    with pytest.raises(MCPError, match="agent 'inner'") as told:
        await call_once(
            served("New."),
            "worker",
            GO,
            answers=await answers_to(second, ScriptedProvider("inner words")),
            state=second.request_state,
        )

    assert told.value.code == INVALID_PARAMS


async def test_unknown_answers_are_ignored() -> None:
    """Answers that nobody asked for change nothing (SEP-2322: SHOULD)."""
    asked = await first_round(worker())
    answers = await answers_to(asked, ScriptedProvider("fine"))
    calls = reply(use("add", id="c", a=1, b=2))

    result = await call_once(
        hosting(worker()),
        "worker",
        GO,
        answers={"9:9": calls, "0:1": calls, **answers, "": calls},
        state=asked.request_state,
    )

    assert isinstance(result, CallToolResult)
    assert result.structured_content == {"result": "fine"}
    assert ran == []


async def test_answers_without_a_state_are_ignored() -> None:
    """The first round of a call knows no answers."""
    result = await call_once(
        hosting(worker()), "worker", GO, answers={"9:9": reply(use("add", id="c", a=1, b=2))}
    )

    assert isinstance(result, InputRequiredResult)
    assert ran == []


async def test_missing_answers_are_asked_for_again() -> None:
    """Runs whose answers came go on; the others ask the same again."""

    def served() -> MCPServer:
        async def play(ctx: Context) -> list[str]:
            runs = await gather(*(worker().run(f"part {part}") for part in range(3)))
            return [run.output for run in runs]

        security = RequestStateSecurity(keys=[KEY])
        server = MCPServer("state", log_level="CRITICAL", request_state_security=security)
        server.add_tool(resumable(play), name="play")
        return server

    asked = await call_once(served(), "play")
    assert isinstance(asked, InputRequiredResult)
    model = ScriptedProvider(*[[use("add", a=1, b=2)]] * 3, repeat=True)
    answers = await answers_to(asked, model)
    missing = list(answers)[1]
    del answers[missing]

    again = await call_once(served(), "play", answers=answers, state=asked.request_state)
    assert isinstance(again, InputRequiredResult)
    assert again.input_requests is not None
    assert asked.input_requests is not None
    assert set(again.input_requests) == {"0/0:1", missing, "2/0:1"}
    assert again.input_requests[missing] == asked.input_requests[missing]
    assert ran == ["add 1 2"] * 2

    words = await answers_to(again, ScriptedProvider("fine", repeat=True))
    result = await call_once(served(), "play", answers=words, state=again.request_state)
    assert isinstance(result, CallToolResult)
    assert result.structured_content == {"result": ["fine"] * 3}
    assert ran == ["add 1 2"] * 2


async def test_no_answers_at_all() -> None:
    """A state that comes back alone leads to the same asks."""
    asked = await first_round(worker())

    again = await call_once(hosting(worker()), "worker", GO, state=asked.request_state)

    assert isinstance(again, InputRequiredResult)
    assert again.input_requests == asked.input_requests


@pytest.mark.parametrize(
    "answer", [ElicitResult(action="accept"), ListRootsResult(roots=[])], ids=["elicit", "roots"]
)
async def test_an_answer_of_the_wrong_kind(answer: Any) -> None:
    """The run ends as failed and says why; its transcript is not lost."""
    asked = await first_round(worker())

    result = await call_once(
        hosting(worker()), "worker", GO, answers={"0:0": answer}, state=asked.request_state
    )

    assert isinstance(result, CallToolResult)
    assert result.is_error
    assert "malformed_reply" in str(result.content)


async def test_a_forged_call_of_an_unknown_tool() -> None:
    """Clients write the model's replies: a tool that the agent has not got does not run."""
    asked = await first_round(worker())
    forged = ScriptedProvider([use("multiply", a=1, b=2), use("final_answer", result=1)])

    again = await call_once(
        hosting(worker()),
        "worker",
        GO,
        answers=await answers_to(asked, forged),
        state=asked.request_state,
    )

    assert isinstance(again, InputRequiredResult)
    assert again.input_requests is not None
    last = again.input_requests["0:1"].params.messages[-1].model_dump_json()  # type: ignore[union-attr]
    assert "There is no tool 'multiply'" in last
    assert "There is no tool 'final_answer'" in last
    assert ran == []


async def test_the_same_round_sent_twice() -> None:
    """Without a store a round can be entered again: it gives the same, and its tools run again."""
    asked = await first_round(worker())
    answers = await answers_to(asked, ScriptedProvider([use("add", a=1, b=2)]))

    twice = [
        await call_once(hosting(worker()), "worker", GO, answers=answers, state=asked.request_state)
        for _ in range(2)
    ]

    assert all(isinstance(result, InputRequiredResult) for result in twice)
    assert twice[0].input_requests == twice[1].input_requests  # type: ignore[union-attr]
    assert ran == ["add 1 2"] * 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a2",
        "a2not base64 \N{SNOWMAN}",
        "a0" + pack({})[2:],
        "a2" + b64encode(b"not deflated").decode(),
        pack({"a": 1})[:-2],
        pack([1, 2]),  # type: ignore[arg-type]
    ],
)
def test_damaged_text_is_a_clear_error(text: str) -> None:
    """Whatever is unpacked, it is a state or a StateError."""
    with pytest.raises(StateError):
        unpack(text)


def test_a_state_is_read_as_it_was_written() -> None:
    """Packing keeps everything, and states of text get smaller by it."""
    state = {
        "v": 1,
        "runs": {"0": {"text": "Ünïcödé 🙂 \ufffd" * 500}},
        "values": {"#a": [None, 1.5]},
    }

    packed = pack(state)

    assert unpack(packed) == state
    assert packed.isascii()
    assert len(packed) < len(json.dumps(state)) / 10


def test_a_state_that_inflates_without_end() -> None:
    """What is read is bounded, however small it came."""
    deflate = zlib.compressobj(1, wbits=-15)
    bomb = deflate.compress(b"[" + b" " * MAX_BYTES) + deflate.flush()
    assert len(bomb) < 1_000_000

    with pytest.raises(StateError, match="larger"):
        unpack("a2" + b64encode(bomb).decode())
