"""Whatever comes in gives a result or a clear error.

A handful of inputs for each fact by default. ``AGENTLOOP_FUZZ=1000000`` tries as many for each of
them, for as long as that takes: ``AGENTLOOP_FUZZ=1000000 pytest tests/faults/test_fuzz.py``.
"""

from __future__ import annotations

import json
import os
from random import Random
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcp.server.lowlevel import Server
from mcp_types import CreateMessageResultWithTools, ToolResultContent
from pydantic import BaseModel, ValidationError

from agentloop import Agent, Limits, ToolError, tool
from agentloop.errors import AgentLoopError, StateError
from agentloop.mcp import mount
from agentloop.mcp.request_limits import RequestLimits
from agentloop.mcp.state import pack, unpack
from agentloop.results import NotWritable, to_result
from agentloop.run import Ask, Run, ToolCalls, called, pending, sampled, start
from agentloop.schema import ArgumentsInvalid
from agentloop.store import MemoryStore
from agentloop_providers import ScriptedProvider
from tests.faults.kit import CARRIERS, Model, check_history
from tests.faults.strategies import arguments, broken, garbled, junk, replies, seeds, values
from tests.faults.wire import Rejected, connected

MUTANTS = 20
"""Broken inputs for each whole one; breaking is cheaper than making."""

INPUTS = int(os.environ.get("AGENTLOOP_FUZZ", "4000"))

LONG = pytest.mark.timeout(max(60, INPUTS // 50))


def fuzzed(inputs: int = INPUTS) -> Any:
    """So many inputs, ``MUTANTS`` of them for each example."""
    return settings(
        max_examples=max(inputs // MUTANTS, 1),
        deadline=None,
        derandomize="AGENTLOOP_FUZZ" not in os.environ,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


class Answer(BaseModel):
    n: int


@tool
async def add(a: int, b: list[int] | None = None) -> int:
    """Add numbers."""
    return a + sum(b or [])


DEFINITIONS = [
    Agent("plain", tools=[add], limits=Limits(steps=6)).definition,
    Agent("typed", tools=[add], output=Answer, limits=Limits(steps=6)).definition,
    Agent("tight", tools=[add], limits=Limits(steps=3, bytes_per_reply=200, depth=3)).definition,
]


def results_of(calls: ToolCalls) -> dict[str, ToolResultContent]:
    return {use.id: to_result(use.id, "done") for use in calls.calls}


def go_on(run: Run, reply: Any) -> Run:
    """``run`` after its open calls and one reply."""
    while isinstance(wanted := pending(run), ToolCalls):
        run = called(run, results_of(wanted))
    return sampled(run, reply) if isinstance(wanted, Ask) else run


def check_run(run: Run) -> None:
    """A run is balanced whenever it asks or has ended, and can be written and read at any time."""
    if not isinstance(pending(run), ToolCalls):
        check_history(list(run.messages))
    state = json.loads(json.dumps(run.to_json(), allow_nan=False, ensure_ascii=False))
    assert Run.from_json(state, run.definition).messages == run.messages


@LONG
@given(st.sampled_from(DEFINITIONS), st.lists(replies, min_size=1, max_size=3), seeds)
@fuzzed()
def test_replies(definition: Any, script: list[Any], seed: int) -> None:
    random = Random(seed)
    for _ in range(MUTANTS):
        run = start(definition, "go", id="1")
        for line in script:
            try:
                reply = CreateMessageResultWithTools.model_validate(broken(line, random))
            except (ValidationError, RecursionError):
                continue  # what the SDK lets pass is what comes in
            run = go_on(run, reply)
        check_run(run)


def state_of(definition: Any, script: list[Any]) -> Any:
    run = start(definition, "go", id="1")
    for line in script:
        try:
            run = go_on(run, CreateMessageResultWithTools.model_validate(line))
        except ValidationError:
            continue
    return json.loads(json.dumps(run.to_json()))


@LONG
@given(st.sampled_from(DEFINITIONS), st.lists(replies, max_size=3), replies, seeds)
@fuzzed()
def test_states(definition: Any, script: list[Any], reply: Any, seed: int) -> None:
    random = Random(seed)
    state = state_of(definition, script)
    more = CreateMessageResultWithTools.model_validate(reply)
    for _ in range(MUTANTS):
        try:
            run = Run.from_json(broken(state, random), definition)
        except StateError:
            continue
        check_history(list(go_on(run, more).messages)) if pending(run) else None


@LONG
@given(st.dictionaries(st.text(max_size=5), values, max_size=4), seeds)
@fuzzed()
def test_packed_states(state: Any, seed: int) -> None:
    random = Random(seed)
    packed = pack(state)
    assert unpack(packed) == state
    for _ in range(MUTANTS):
        try:
            assert isinstance(unpack(garbled(packed, random)), dict)
        except StateError:
            continue


@LONG
@given(arguments, seeds)
@fuzzed()
def test_arguments(given_: Any, seed: int) -> None:
    random = Random(seed)
    for _ in range(MUTANTS):
        wrong = broken(given_, random)
        if isinstance(wrong, dict):
            try:
                assert set(add.check(wrong)) == {"a", "b"}
            except ArgumentsInvalid as error:
                assert len(str(error)) < 4000


@LONG
@given(values, seeds)
@fuzzed()
def test_results(value: Any, seed: int) -> None:
    random = Random(seed)
    for _ in range(MUTANTS):
        try:
            result = to_result("c", broken([value], random), max_bytes=500)
        except NotWritable:
            continue
        data = result.model_dump(mode="json", by_alias=True, exclude_none=True)
        assert len(json.dumps(data, ensure_ascii=False, allow_nan=False).encode()) < 5000


# --- whole calls -------------------------------------------------------------------------------

ON_THE_WIRE = max(INPUTS // 20, MUTANTS)
"""Whole calls take longer."""

GO = {"prompt": "Go"}


@tool
async def odd(kind: int) -> Any:
    """Give junk, or raise."""
    if kind % 5 == 0:
        raise ToolError("no")
    if kind % 5 == 1:
        raise ValueError("no")
    return junk(Random(kind))


@LONG
@pytest.mark.parametrize("carrier", CARRIERS[1:])
@given(st.lists(replies, min_size=1, max_size=3), seeds)
@fuzzed(ON_THE_WIRE)
def test_calls(carrier: str, script: list[Any], seed: int) -> None:
    """A client that answers with broken replies, and brings broken states."""
    random = Random(seed)

    async def main() -> None:
        agent = Agent("worker", tools=[add, odd], limits=Limits(steps=4, ask_seconds=0.5))
        server: Server[Any] = Server("fuzz")
        mount(server, agent, store=MemoryStore() if carrier == "stored" else None)
        mount(server, Agent("other"))

        async def answers(method: str, params: Any) -> Any:
            return broken(random.choice(script), random)

        async with connected(server, answers, modern=carrier != "push") as wire:
            for _ in range(MUTANTS // 4):
                try:
                    with anyio.fail_after(5):
                        if carrier == "push" or random.random() < 0.5:
                            result = await wire.call("worker", GO)
                        else:
                            result = await one_bad_round(wire, random, script)
                    assert result.get("content") or result["resultType"] == "input_required"
                except Rejected as rejected:
                    assert rejected.code in (-32602, -32603, -32021, -32600)
                    assert rejected.message
            fine = Model("fine")
            wire.answers = fine.answer
            result = await wire.call("other", GO)  # the server lives
            assert result["content"][0]["text"] == "fine"
            for request in fine.requests:
                check_history(request.messages)

    anyio.run(main)


async def one_bad_round(wire: Any, random: Random, script: list[Any]) -> Any:
    first = await wire.round("worker", GO)
    state = first["requestState"]
    if random.random() < 0.5:
        state = garbled(state, random)
    answers = broken({"0:0": random.choice(script)}, random)
    try:
        text = json.dumps([answers, state])
        json.loads(text)
        text.encode()
    except (ValueError, RecursionError):
        answers = {}
    return await wire.round("worker", GO, answers=answers, state=state)


@LONG
@given(st.lists(replies, min_size=1, max_size=4), st.booleans(), seeds)
@fuzzed(ON_THE_WIRE)
def test_runs(script: list[Any], trio: bool, seed: int) -> None:
    """A whole run of a model that gives broken replies, on both event loops."""
    random = Random(seed)

    def say(_: Any) -> Any:
        while True:
            try:
                wrong = broken(random.choice(script), random)
                return CreateMessageResultWithTools.model_validate(wrong)
            except (ValidationError, RecursionError):
                continue

    async def main() -> None:
        agent = Agent("worker", tools=[add, odd], limits=Limits(steps=5, errors=None))
        for _ in range(MUTANTS // 4):
            provider = ScriptedProvider(say, repeat=True)
            result = await agent.run("go", provider=provider)
            assert result.stop
            check_history(result.messages)
            for request in provider.requests:
                check_history(request.messages)

    anyio.run(main, backend="trio" if trio else "asyncio")


@LONG
@given(replies, seeds)
@fuzzed()
def test_requests(reply: Any, seed: int) -> None:
    """What a server asks a client is within the client's limits or refused in words."""
    from mcp_types import CreateMessageRequestParams, SamplingMessage

    random = Random(seed)
    limits = RequestLimits(messages=3, blocks=5, bytes=300, depth=4, tools=1)
    for _ in range(MUTANTS):
        try:
            message = broken({"role": "user", "content": reply["content"]}, random)
            request = CreateMessageRequestParams(
                messages=[SamplingMessage.model_validate(message)] * random.randint(0, 4),
                max_tokens=10,
            )
        except (ValidationError, RecursionError, KeyError, TypeError):
            continue
        excess = limits.excess(request)
        assert excess is None or "client takes" in excess or "than" in excess


def test_errors_are_of_one_tree() -> None:
    assert issubclass(StateError, AgentLoopError)
