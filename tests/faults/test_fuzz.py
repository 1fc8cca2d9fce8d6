"""Whatever comes in gives a result or a clear error.

Inputs are whole ones, drawn from the protocol's own types, that are then broken. 20,000 replies and
states are tried, the same each time; ``AGENTLOOP_FUZZ=1000000 pytest tests/faults/test_fuzz.py``
tries so many, other ones each time. Of the other inputs there are as many in proportion.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from mcp_types import CreateMessageRequestParams, CreateMessageResultWithTools, ToolResultContent
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from agentloop import Agent, Limits, ToolError, tool
from agentloop.errors import ProviderError, StateError
from agentloop.events import Event, RunEnded
from agentloop.machine import Ask, ToolCalls, called, pending, sampled, start
from agentloop.mcp.request_limits import RequestLimits
from agentloop.mcp.state import pack, packed, unpack
from agentloop.results import NotWritable, to_result
from agentloop.run import Run, Stop
from agentloop.schema import ArgumentsInvalid
from agentloop_providers import ScriptedProvider
from tests.faults.kit import CARRIERS, PROVIDER, PUSH, check_history, serving
from tests.faults.strategies import arguments, broken, garbled, junk, replies, seeds, values
from tests.faults.wire import JSON, Refuse, Rejected, Silence, Wire, connected
from tests.leaks import tasks_alive

LONG = "AGENTLOOP_FUZZ" in os.environ
INPUTS = int(os.environ.get("AGENTLOOP_FUZZ", "20000"))
"""Replies and states, half and half."""

MUTANTS = 50
"""Broken inputs for each whole one: breaking is cheaper than making."""


def fuzzed(share: float, mutants: int = MUTANTS) -> Any:
    """Play so many of all inputs, ``mutants`` of them for each example."""
    configured = settings(
        max_examples=max(round(INPUTS * share / mutants), 1),
        deadline=None,
        derandomize=not LONG,
        database=None,
        phases=[Phase.generate],  # what fails is told by the input itself: see ``telling``
        suppress_health_check=list(HealthCheck),
    )
    timeout = pytest.mark.timeout(max(60, INPUTS // 50))
    return lambda test: timeout(configured(test))


@contextmanager
def telling(what: Any) -> Iterator[None]:
    """Have an exception tell the input that it came of."""
    try:
        yield
    except Exception as error:
        error.add_note(f"the input: {what!r}"[:4000])
        raise


# --- the machine -------------------------------------------------------------------------------


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


def read(reply: JSON) -> CreateMessageResultWithTools | None:
    """A reply as the SDK lets it pass; None where it does not."""
    try:
        return CreateMessageResultWithTools.model_validate(reply)
    except (ValidationError, RecursionError):
        return None


def go_on(run: Run, reply: Any) -> Run:
    """``run`` after its open calls and one reply."""
    for _ in range(3):
        wanted = pending(run)
        if not isinstance(wanted, ToolCalls):
            return sampled(run, reply) if isinstance(wanted, Ask) else run
        results: dict[str, ToolResultContent] = {
            use.id: to_result(use.id, "done") for use in wanted.calls
        }
        run = called(run, results)
    raise AssertionError("a run that waits for calls goes on with their results")


def after(definition: Any, script: list[Any]) -> Run:
    run = start(definition, "go", id="1")
    for line in script:
        if (reply := read(line)) is not None:
            run = go_on(run, reply)
    return run


def written(state: Any) -> bytes:
    """``state`` as JSON, which has no NaN: where there is one, nothing that can be read."""
    try:
        return json.dumps(state, allow_nan=False).encode()
    except ValueError:
        return b"NaN"


def check_run(run: Run) -> None:
    """A run is balanced whenever it asks or has ended, and can be written and read at any time."""
    if not isinstance(pending(run), ToolCalls):
        check_history(list(run.messages))
    state = unpack(pack(run.to_json()))
    assert Run.from_json(state, run.definition).messages == run.messages


@fuzzed(0.5)
@given(st.sampled_from(DEFINITIONS), st.lists(replies, min_size=1, max_size=3), seeds)
def test_replies(definition: Any, script: list[Any], seed: int) -> None:
    random = Random(seed)
    for _ in range(MUTANTS):
        wrong = [broken(line, random) for line in script]
        with telling(wrong):
            check_run(after(definition, wrong))


@fuzzed(0.5)
@given(st.sampled_from(DEFINITIONS), st.lists(replies, max_size=3), replies, seeds)
def test_states(definition: Any, script: list[Any], reply: Any, seed: int) -> None:
    random = Random(seed)
    state = after(definition, script).to_json()
    for _ in range(MUTANTS):
        wrong = broken(state, random)
        with telling(wrong):
            try:
                run = Run.from_json(unpack(packed(written(wrong))), definition)
            except StateError:
                continue
            check_run(go_on(run, read(reply)))


@fuzzed(0.05)
@given(st.dictionaries(st.text(max_size=5), values, max_size=4), seeds)
def test_packed_states(state: Any, seed: int) -> None:
    random = Random(seed)
    whole = pack(state)
    assert unpack(whole) == state
    for _ in range(MUTANTS):
        wrong = garbled(whole, random)
        with telling(wrong):
            try:
                unpack(wrong)
            except StateError:
                continue


@fuzzed(0.2)
@given(arguments, seeds)
def test_arguments(whole: Any, seed: int) -> None:
    random = Random(seed)
    for _ in range(MUTANTS):
        wrong = broken(whole, random)
        with telling(wrong):
            try:
                checked = add.check(wrong) if isinstance(wrong, dict) else {"a": 1, "b": None}
            except ArgumentsInvalid as invalid:
                said = str(invalid)
            else:
                assert set(checked) == {"a", "b"}
                said = ""
            assert len(said) < 4000


@fuzzed(0.1)
@given(values, seeds)
def test_results(value: Any, seed: int) -> None:
    random = Random(seed)
    for _ in range(MUTANTS):
        wrong = broken([value], random)
        with telling(wrong):
            try:
                result = to_result("c", wrong, max_bytes=500)
            except NotWritable:
                continue
            data = result.model_dump(mode="json", by_alias=True, exclude_none=True)
            assert len(json.dumps(data, ensure_ascii=False, allow_nan=False).encode()) < 5000


@fuzzed(0.1)
@given(replies, seeds)
def test_requests(reply: Any, seed: int) -> None:
    """What a server asks a client is within the client's limits, or refused in words."""
    random = Random(seed)
    limits = RequestLimits(messages=3, blocks=5, bytes=300, depth=4, tools=1)
    for _ in range(MUTANTS):
        message = broken({"role": "user", "content": reply["content"]}, random)
        asked = {"messages": [message] * random.randint(1, 4), "maxTokens": 10}
        with telling(asked):
            try:
                request = CreateMessageRequestParams.model_validate(asked)
            except (ValidationError, RecursionError):
                continue
            excess = limits.excess(request)
            assert excess is None or "client takes" in excess or "than" in excess


# --- whole calls -------------------------------------------------------------------------------

CALLS = 10
"""Calls on one connection: a new one for each takes longer than the call."""

GO = {"prompt": "Go"}
CODES = {-32602, -32603, -32021, -32600, -1}
"""The codes with which a call may be refused."""


@tool
async def odd(kind: int) -> Any:
    """Give junk, raise, or take long."""
    if kind % 6 == 0:
        raise ToolError("no")
    if kind % 6 == 1:
        raise ValueError("no")
    if kind % 6 == 2:
        await anyio.sleep(0.02 * (kind % 5))
    return junk(Random(kind))


class Story:
    """Random calls of one agent, which are answered, refused, cancelled and forged at random."""

    def __init__(self, carrier: str, script: list[Any], seed: int) -> None:
        self.carrier = carrier
        self._random = Random(seed)
        self._script = script
        self._events = 0
        self._cancel_at: int | None = None
        self._cancel = anyio.Event()
        self._provider = ScriptedProvider(self._say, repeat=True)
        self.agent = Agent(
            "worker",
            tools=[add, odd],
            limits=Limits(steps=4, errors=None, ask_seconds=0.1, parallel=4),
        )

    async def play(self) -> None:
        tasks = tasks_alive()
        if self.carrier == PROVIDER:
            for _ in range(CALLS):
                await self._until_cancelled(self._run)
        else:
            server = serving(self.agent, self.carrier, on_event=self._note)
            async with connected(server, self._answer, modern=self.carrier != PUSH) as wire:
                for _ in range(CALLS):
                    await self._until_cancelled(self._call, wire)
                wire.answers = self._fine
                self._cancel_at = None
                last = await wire.call("worker", GO)
                assert last["content"][0]["text"] == "fine", "the server lives"
        for request in self._provider.requests:
            check_history(request.messages)
        with anyio.fail_after(1):
            while tasks_alive() > tasks:  # noqa: ASYNC110
                await anyio.sleep(0.005)

    async def _until_cancelled(self, work: Any, *args: Any) -> None:
        """Do ``work`` to its end, or cancel it after some of its events."""
        self._events = 0
        self._cancel_at = self._random.randint(1, 12) if self._random.random() < 0.2 else None
        self._cancel = anyio.Event()

        async def cancel() -> None:
            await self._cancel.wait()
            group.cancel_scope.cancel()

        with anyio.fail_after(5):
            async with anyio.create_task_group() as group:
                group.start_soon(cancel)
                await work(*args)
                group.cancel_scope.cancel()

    async def _run(self) -> None:
        result = await self.agent.run("go", provider=self._provider, on_event=self._note)
        assert isinstance(result.stop, Stop)
        check_history(result.messages)

    async def _call(self, wire: Wire) -> None:
        try:
            if self.carrier == PUSH or self._random.random() < 0.5:
                result = await self._seen_through(wire)
            else:
                result = await self._forged(wire)
        except Rejected as rejected:
            if rejected.code not in CODES or not rejected.message:
                raise
        else:
            assert result.get("content") or result["resultType"] == "input_required"

    async def _seen_through(self, wire: Wire) -> JSON:
        """A call that is seen through; the server is told where it is cancelled in its midst."""
        if self.carrier != PUSH:
            return await wire.call("worker", GO)
        id = await wire.begin("tools/call", {"name": "worker", "arguments": GO})
        try:
            return await wire.answer_to(id)
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await wire.cancel(id)
            raise

    async def _forged(self, wire: Wire) -> JSON:
        """A round with a state and answers of which any part may be wrong."""
        random = self._random
        state = (await wire.round("worker", GO))["requestState"]
        if random.random() < 0.5:
            state = garbled(state, random)
        answers = broken({"0:0": random.choice(self._script)}, random)
        return await wire.round("worker", GO, answers=_on_a_wire(answers, {}), state=_plain(state))

    def _note(self, event: Event) -> None:
        self._events += 1
        if self._events == self._cancel_at:
            self._cancel.set()
        if isinstance(event, RunEnded):
            assert event.run.stop is not None
            check_history(list(event.run.messages))

    def _say(self, _: Any) -> Any:
        if self._random.random() < 0.05:
            raise ProviderError("no")
        while (reply := read(self._broken())) is None:
            pass
        return reply

    def _broken(self) -> Any:
        line = self._random.choice(self._script)
        return broken(line, self._random) if self._random.random() < 0.7 else line

    async def _answer(self, method: str, params: JSON) -> Any:
        self._note_asked(params)
        chance = self._random.random()
        if chance < 0.05:
            return Refuse()
        if chance < 0.1 and self.carrier == PUSH:
            return Silence
        return _on_a_wire(self._broken(), {})

    async def _fine(self, method: str, params: JSON) -> Any:
        self._note_asked(params)
        return {"role": "assistant", "model": "m", "content": {"type": "text", "text": "fine"}}

    def _note_asked(self, params: JSON) -> None:
        check_history(CreateMessageRequestParams.model_validate(params).messages)


def _on_a_wire(value: Any, instead: Any) -> Any:
    """``value``, if it can be written, and be read as a part of a message."""
    try:
        from_json(f"[[[[{json.dumps(value, allow_nan=False)}]]]]")
    except ValueError:
        return instead
    return value


def _plain(text: str) -> str:
    return text.encode(errors="replace").decode()


@fuzzed(0.01, CALLS)
@pytest.mark.parametrize("carrier", CARRIERS)
@given(st.lists(replies, min_size=1, max_size=3), st.booleans(), seeds)
def test_calls(carrier: str, script: list[Any], trio: bool, seed: int) -> None:
    async def main() -> None:
        await Story(carrier, script, seed).play()

    with telling([script, seed]):
        anyio.run(main, backend="trio" if trio else "asyncio")
