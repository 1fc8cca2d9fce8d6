"""What holds for a run whatever a model replies and whatever tools give."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from mcp_types import (
    CreateMessageRequestParams,
    CreateMessageResult,
    CreateMessageResultWithTools,
    ImageContent,
    TextContent,
    Tool,
    ToolResultContent,
    ToolUseContent,
)
from pydantic import BaseModel

from agentloop import Agent, Limits, Stop, ToolError, Usage, tool
from agentloop.definition import Definition
from agentloop.errors import StateError
from agentloop.machine import Ask, ToolCalls, called, pending, sampled, start
from agentloop.meta import PROVIDER_KEY, USAGE_KEY
from agentloop.output import ANSWER_TOOL, Output
from agentloop.run import Run
from agentloop_providers import ScriptedProvider
from tests.histories import assert_balanced

pytestmark = pytest.mark.timeout(300)

settings.register_profile(
    "machine",
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("machine")


class Answer(BaseModel):
    n: int
    words: str = ""


OUTPUTS = [None, Output(Answer), Output(int), Output(list[str]), Output(float)]
SCHEMA: dict[str, Any] = {"type": "object"}

# --- what comes in -----------------------------------------------------------------------------


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"x": [value]}
    return value


odd_texts = st.sampled_from(["", " \n", "\ud800", "x\udfffy", "\0", "\u2028", "\U0001f600", "é"])
any_text = odd_texts | st.text(max_size=8)
odd_numbers = st.sampled_from([float("nan"), float("inf"), -0.0, 1e308, 10**2000, -(2**63)])
scalars = st.none() | st.booleans() | odd_numbers | st.integers() | any_text
odd_values = scalars | st.sampled_from([[], {}, nested(3), nested(63), nested(300)])
json_values = odd_values | st.lists(odd_values, max_size=2) | st.dictionaries(any_text, odd_values)

ids = st.sampled_from(["a", "b", "c", "d", "e", "a", "a-2", "", "\ud800", "call", "call-2"])
names = st.sampled_from(["read"] * 6 + ["poll", "nope", "", "\ud800", ANSWER_TOOL, ANSWER_TOOL])
answers = st.sampled_from([{"n": 1}, {"n": "many"}, {"result": 7}, {"result": ["x"]}, {}])
inputs = answers | answers | st.dictionaries(any_text, json_values, max_size=2)
metas = st.none() | st.just({PROVIDER_KEY: {"signature": "abc", "none": None}})
tool_uses = st.builds(
    lambda name, id, input, meta: ToolUseContent(name=name, id=id, input=input, _meta=meta),
    names,
    ids,
    inputs,
    metas,
)
texts = st.builds(
    lambda text, meta: TextContent(text=text, _meta=meta),
    any_text | st.sampled_from(['{"n": 3}', '```json\n{"n": 4}\n```', "7", "it is 7"]),
    metas,
)
others = st.sampled_from(
    [
        ImageContent(data="aGk=", mime_type="image/png"),
        ToolResultContent(tool_use_id="a", content=[TextContent(text="forged")]),
    ]
)
stop_reasons = st.sampled_from(
    ["toolUse"] * 8
    + ["endTurn", "endTurn", "maxTokens", "refusal", "content_filter", "x-new", None]
)
usages = st.none() | st.just({}) | st.integers(0, 90).map(lambda n: {"input_tokens": n})
roles = st.sampled_from(["assistant"] * 19 + ["user"])


@st.composite
def replies(draw: st.DrawFn) -> CreateMessageResultWithTools | CreateMessageResult:
    block = tool_uses | tool_uses | tool_uses | texts | others
    content = draw(st.lists(block, max_size=4) | st.lists(tool_uses, min_size=1, max_size=6))
    usage = draw(usages)
    common: dict[str, Any] = {
        "role": draw(roles),
        "model": "m",
        "stop_reason": draw(stop_reasons),
        "_meta": None if usage is None else {USAGE_KEY: usage},
    }
    if len(content) == 1 and draw(st.booleans()):
        if content[0].type in ("text", "image"):
            return CreateMessageResult(content=content[0], **common)
        return CreateMessageResultWithTools(content=content[0], **common)
    return CreateMessageResultWithTools(content=content, **common)


limits = st.builds(
    Limits,
    steps=st.sampled_from([1, 2, 3, 6, 6, None, None]),
    tool_calls=st.sampled_from([0, 1, 2, 6, None, None]),
    tokens=st.sampled_from([1, 100, 400, None, None, None]),
    seconds=st.sampled_from([0.5, 2, 20, None, None, None]),
    errors=st.sampled_from([1, 2, None]),
    calls_per_reply=st.sampled_from([1, 2, 64]),
    output_retries=st.integers(0, 2),
)


@st.composite
def definitions(draw: st.DrawFn) -> Definition:
    tools = (Tool(name="read", input_schema=SCHEMA), Tool(name="poll", input_schema=SCHEMA))
    return Definition(
        name="agent",
        instructions=draw(st.none() | st.just("Be brief.")),
        tools=draw(st.sampled_from([tools, tools, ()])),
        polls=frozenset({"poll"}),
        output=draw(st.sampled_from(OUTPUTS)),
        limits=draw(limits),
    )


REPLY = CreateMessageResultWithTools(
    role="assistant", model="m", content=[TextContent(text="so it is")], stop_reason="endTurn"
)
scripts = st.lists(replies(), min_size=1, max_size=10)


def result_for(use: ToolUseContent) -> ToolResultContent:
    """A result that is the same for the same call: text, an error, or more than text."""
    kind = len(use.id + use.name) % 4
    if kind == 0:
        return ToolResultContent(
            tool_use_id=use.id, content=[TextContent(text="it failed")], is_error=True
        )
    if kind == 1:
        return ToolResultContent(tool_use_id=use.id, content=[])
    if kind == 2:
        return ToolResultContent(
            tool_use_id=use.id,
            content=[ImageContent(data="aGk=", mime_type="image/png"), TextContent(text="see")],
            structured_content={"none": None, "list": [1, {}]},
            _meta={USAGE_KEY: {"asks": 1, "input_tokens": 3}},
        )
    return ToolResultContent(tool_use_id=use.id, content=[TextContent(text=f"of {use.name}")])


# --- what is checked ---------------------------------------------------------------------------


def assert_writable(request: CreateMessageRequestParams) -> None:
    """The request can leave as strict JSON in UTF-8."""
    data = request.model_dump(mode="json", by_alias=True, exclude_none=True)
    json.dumps(data, ensure_ascii=False, allow_nan=False).encode()


def through_json(run: Run) -> Run:
    return Run.from_json(json.loads(json.dumps(run.to_json(), allow_nan=False)), run.definition)


def drive(run: Run, script: list[Any], *, reload: bool = False) -> list[Run]:
    """Every state of ``run`` up to its end, or to the end of the script."""
    states = [run]
    lines = iter(script)
    while (wanted := pending(states[-1])) is not None:
        run = through_json(states[-1]) if reload else states[-1]
        if isinstance(wanted, ToolCalls):
            results = {use.id: result_for(use) for use in wanted.calls}
            states.append(called(run, results, seconds=0.25))
        elif (line := next(lines, None)) is not None:
            states.append(sampled(run, line, seconds=0.5))
        else:
            break
    return states


# --- the machine -------------------------------------------------------------------------------


@given(definitions(), scripts, any_text)
def test_the_history_is_balanced_and_writable_at_every_ask_and_at_the_end(
    definition: Definition, script: list[Any], prompt: str
) -> None:
    for run in drive(start(definition, prompt, id="1"), script):
        wanted = pending(run)
        if isinstance(wanted, Ask):
            assert_balanced(wanted.request.messages)
            assert_writable(wanted.request)
        elif wanted is None:
            assert_balanced(run.messages.to_list())


@given(definitions(), scripts, any_text)
def test_suspended_at_every_point_is_never_suspended(
    definition: Definition, script: list[Any], prompt: str
) -> None:
    run = start(definition, prompt, id="1")
    straight, reloaded = drive(run, script), drive(run, script, reload=True)
    assert len(straight) == len(reloaded)
    for one, other in zip(straight, reloaded, strict=True):
        assert through_json(one) == one
        assert one == other
        assert one.to_json() == other.to_json()


@given(definitions(), scripts, st.data())
def test_results_in_parts_and_in_any_order_are_results_at_once(
    definition: Definition, script: list[Any], data: st.DataObject
) -> None:
    run = start(definition, "go", id="1")
    lines = iter(script)
    while (wanted := pending(run)) is not None:
        if isinstance(wanted, Ask):
            if (line := next(lines, None)) is None:
                break
            run = sampled(run, line)
            continue
        at_once = called(run, {use.id: result_for(use) for use in wanted.calls})
        done: set[str] = set()
        late = ToolResultContent(tool_use_id="?", content=[TextContent(text="late")])
        for use in data.draw(st.permutations(wanted.calls)):
            waits = pending(run)
            assert isinstance(waits, ToolCalls)
            assert done.isdisjoint(call.id for call in waits.calls)
            # Results that came before, and results of nothing, change nothing.
            again: dict[str, ToolResultContent] = dict.fromkeys([*done, "no such call"], late)
            run = called(through_json(run), {**again, use.id: result_for(use)})
            done.add(use.id)
        assert run == at_once


@given(definitions(), scripts)
def test_no_limit_is_overrun_by_more_than_what_was_in_flight(
    definition: Definition, script: list[Any]
) -> None:
    limits = definition.limits
    states = drive(start(definition, "go", id="1"), script)
    let_through = asks = 0
    for before, after in pairwise(states):
        wanted = pending(before)
        if isinstance(wanted, Ask):
            asks += 1
            assert limits.tokens is None or before.usage.total_tokens < limits.tokens
            assert limits.seconds is None or before.seconds < limits.seconds
            opened = pending(after)
            calls = opened.calls if isinstance(opened, ToolCalls) else ()
            assert len(calls) <= limits.calls_per_reply
            assert not (before.closing and calls)
            let_through += len(calls)
        assert limits.steps is None or asks <= limits.steps
        assert limits.tool_calls is None or let_through <= limits.tool_calls
        assert (after.steps, after.tool_calls) == (asks, let_through)


@given(definitions(), scripts)
def test_the_last_ask_leaves_the_model_no_tools(definition: Definition, script: list[Any]) -> None:
    asks_when_closing = 0
    for run in drive(start(definition, "go", id="1"), script):
        wanted = pending(run)
        if not isinstance(wanted, Ask) or not run.closing:
            continue
        asks_when_closing += 1
        choice, tools = wanted.request.tool_choice, wanted.request.tools
        assert choice is not None
        if definition.output is None:
            assert choice.mode == "none"
        else:
            assert (choice.mode, [t.name for t in tools or ()]) == ("required", [ANSWER_TOOL])
    assert asks_when_closing <= 2, "one, and one more if the reply to it was empty"


@given(definitions(), scripts)
def test_a_script_that_is_long_enough_ends_with_a_stop(
    definition: Definition, script: list[Any]
) -> None:
    assume(definition.limits.steps is not None)
    run = drive(start(definition, "go", id="1"), script * 6)[-1]
    assert run.stop is not None
    assert (run.error is not None) == (run.stop in (Stop.FAILED, Stop.DENIED))
    if run.stop is Stop.DONE and definition.output is not None:
        assert run.answer is not None
    if run.answer is not None and definition.output is not None:
        definition.output.revive(run.answer[0])


@given(definitions(), scripts)
def test_a_run_is_a_value_that_no_later_step_changes(
    definition: Definition, script: list[Any]
) -> None:
    frozen: list[tuple[Run, str]] = []
    run = start(definition, "go", id="1")
    lines = iter(script)
    while (wanted := pending(run)) is not None:
        frozen.append((run, json.dumps(run.to_json())))
        if isinstance(wanted, ToolCalls):
            run = called(run, {use.id: result_for(use) for use in wanted.calls})
        elif (line := next(lines, None)) is not None:
            sampled(run, REPLY)  # another future of the same run
            run = sampled(run, line)
        else:
            break
    for state, as_it_was in frozen:
        assert json.dumps(state.to_json()) == as_it_was


# --- damaged states ----------------------------------------------------------------------------


@given(scripts, st.data())
def test_a_damaged_state_is_refused_or_goes_on_but_never_breaks(
    script: list[Any], data: st.DataObject
) -> None:
    definition = Definition(
        name="agent", tools=(Tool(name="read", input_schema=SCHEMA),), output=OUTPUTS[1]
    )
    states = drive(start(definition, "go", id="1"), script)
    state = json.loads(json.dumps(data.draw(st.sampled_from(states)).to_json()))
    key = data.draw(st.sampled_from(["messages", *sorted(state)]))
    kinds = [json_values, st.just([]), st.just([state[key]])]
    if key == "messages":
        kinds = [st.permutations(state[key]), st.just(state[key][1:]), st.just(state[key] * 2)]
    state[key] = data.draw(st.one_of(kinds))
    try:
        damaged = Run.from_json(state, definition)
    except StateError:
        return
    for run in drive(damaged, script):
        if isinstance(wanted := pending(run), Ask):
            assert_balanced(wanted.request.messages)


# --- the whole loop ----------------------------------------------------------------------------


def test_the_whole_loop_keeps_the_same_promises() -> None:
    ran: list[str] = []

    @tool
    def read(path: str = "", n: int = 0) -> str:
        """Read."""
        ran.append(path)
        if n < 0:
            raise ToolError("no")
        return path * 3

    @tool(poll=True)
    async def poll(x: Any = None) -> Any:
        """Poll."""
        ran.append("poll")
        await anyio.lowlevel.checkpoint()
        return x

    @given(scripts, st.sampled_from(OUTPUTS), limits, st.sampled_from(["asyncio", "trio"]))
    @settings(max_examples=60)
    def check(script: list[Any], output: Output | None, limits: Limits, backend: str) -> None:
        ran.clear()
        agent: Agent[Any]
        if output is None:
            agent = Agent("agent", tools=[read, poll], limits=limits)
        else:
            agent = Agent("agent", tools=[read, poll], output=output.type, limits=limits)
        provider = ScriptedProvider(*script)
        result = anyio.run(lambda: agent.run("go", provider=provider), backend=backend)
        assert result.stop
        assert result.error is None or not result.error.startswith("provider:")
        assert_balanced(result.messages)
        for request in provider.requests:
            assert_balanced(request.messages)
            assert_writable(request)
        assert len(ran) <= result.run.tool_calls
        assert limits.tool_calls is None or len(ran) <= limits.tool_calls
        assert limits.steps is None or result.steps <= limits.steps
        json.dumps(result.to_json())

    check()


def test_the_machine_takes_no_time_from_a_clock() -> None:
    definition = Definition(name="agent", limits=Limits(seconds=5))
    run = start(definition, "go", id="1")
    assert sampled(run, REPLY, seconds=4.0).seconds == 4.0
    assert sampled(run, REPLY, seconds=4.0) == sampled(run, REPLY, seconds=4.0)
    assert replace(run) == run
    assert Usage() == run.usage
