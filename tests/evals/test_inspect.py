"""agentloop agents inside Inspect AI: with its models, its limits and its log."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from pydantic import BaseModel

from agentloop import Agent, Limits, tool
from agentloop.errors import DefinitionError, ToolError
from agentloop.provider import load_provider

pytest.importorskip("inspect_ai", reason="inspect-ai is not installed")

from inspect_ai import Task
from inspect_ai import eval as inspect_eval
from inspect_ai.agent import as_tool, react, run
from inspect_ai.approval import ApprovalPolicy, auto_approver
from inspect_ai.dataset import Sample
from inspect_ai.log import EvalLog, EvalSample, read_eval_log
from inspect_ai.model import (
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageTool,
    ChatMessageUser,
    ContentReasoning,
    ContentText,
    GenerateConfig,
    ModelOutput,
    ModelUsage,
    get_model,
)
from inspect_ai.scorer import includes
from inspect_ai.solver import Generate, TaskState, solver
from inspect_ai.tool import ToolCall

from agentloop.evals.inspect_ai import InspectProvider, as_agent, as_solver

pytestmark = pytest.mark.filterwarnings("ignore")  # what Inspect is warned of is Inspect's

Model = Callable[[list[Any], list[Any], Any, GenerateConfig], ModelOutput]


def says(*content: Any, calls: tuple[ToolCall, ...] = (), tokens: int = 15) -> ModelOutput:
    """A model's answer. It reports its tokens: counting them would take a network."""
    message = ChatMessageAssistant(
        content=[ContentText(text=c) if isinstance(c, str) else c for c in content] or "",
        tool_calls=list(calls) or None,
        model="mock",
        source="generate",
    )
    output = ModelOutput.from_message(message, stop_reason="tool_calls" if calls else "stop")
    output.usage = ModelUsage(input_tokens=tokens - 5, output_tokens=5, total_tokens=tokens)
    return output


def call(function: str, id: str = "c", **arguments: Any) -> ToolCall:
    return ToolCall(id=id, function=function, arguments=arguments)


@pytest.fixture
def backend() -> str:
    return "asyncio"


on_both = pytest.mark.parametrize("backend", ["asyncio", "trio"])


@pytest.fixture
def evaluate(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., EvalLog]:
    """Runs a task with a mock model and reads its log back from the disk."""
    monkeypatch.setenv("INSPECT_ASYNC_BACKEND", backend)
    monkeypatch.chdir(tmp_path)

    def evaluate(model: Model, *, input: Any = "How many live in Oslo?", **options: Any) -> EvalLog:
        solver = options.pop("solver")
        task = Task(
            dataset=[Sample(input=input, target="717710")], solver=solver, scorer=includes()
        )
        mock = get_model("mockllm/model", custom_outputs=model, memoize=False)
        (log,) = inspect_eval(
            task, model=mock, log_dir=str(tmp_path / "logs"), display="none", **options
        )
        return read_eval_log(log.location)

    return evaluate


def sample_of(log: EvalLog) -> EvalSample:
    assert log.samples
    return log.samples[0]


def population(city: str) -> int:
    """How many people live in a city."""
    if city not in (known := {"Oslo": 717710}):
        raise ToolError(f"{city} is not known")
    return known[city]


def expert() -> Agent[str]:
    helper = Agent("helper", "Help.", tools=[population])
    return Agent("geographer", "Look it up.", tools=[population, helper.as_tool()])


def looks_it_up(input: list[Any], tools: list[Any], choice: Any, config: Any) -> ModelOutput:
    """Two calls at once, one of them to an agent that calls a tool in vain; then the answer."""
    answered = any(message.role == "assistant" for message in input)
    if input[0].text == "Help.":
        return says("It is not.") if answered else says(calls=(call("population", city="Rome"),))
    if answered:
        return says("717710 people.")
    both = (call("population", "p", city="Oslo"), call("helper", "h", prompt="Is Rome known?"))
    return says("I look.", calls=both)


@on_both
def test_the_log_has_our_steps_and_tools(evaluate: Callable[..., EvalLog]) -> None:
    log = evaluate(looks_it_up, solver=as_solver(expert()))
    assert log.status == "success", log.error
    assert log.results
    assert log.results.scores[0].metrics["accuracy"].value == 1
    sample = sample_of(log)
    assert sample.output.completion == "717710 people."
    assert [type(message) for message in sample.messages] == [
        ChatMessageSystem,
        ChatMessageUser,
        ChatMessageAssistant,
        ChatMessageTool,
        ChatMessageTool,
        ChatMessageAssistant,
    ]
    first, second = (m for m in sample.messages if isinstance(m, ChatMessageTool))
    assert (first.function, first.tool_call_id, first.text) == ("population", "p", "717710")
    assert (second.function, second.text) == ("helper", "It is not.")

    models = [event for event in sample.events if event.event == "model"]
    tools = [event for event in sample.events if event.event == "tool"]
    assert len(models) == 4
    assert [(t.function, t.arguments) for t in tools] == [
        ("population", {"city": "Oslo"}),
        ("helper", {"prompt": "Is Rome known?"}),
        ("population", {"city": "Rome"}),
    ]
    assert tools[0].result == "717710"
    assert tools[2].error
    assert tools[2].error.message == "Rome is not known"
    assert all(tool.completed and not tool.pending for tool in tools)
    assert models[-1].input[-1].id == sample.messages[-2].id, "messages are known again"
    ends = [event.data for event in sample.events if event.event == "info"]
    assert [(end["agent"], end["stop"], end["steps"]) for end in ends] == [  # type: ignore[index,call-overload]
        ("helper", "done", 2),
        ("geographer", "done", 2),
    ]


@on_both
def test_what_an_agent_inside_does_is_inside_of_its_call(evaluate: Callable[..., EvalLog]) -> None:
    sample = sample_of(evaluate(looks_it_up, solver=as_solver(expert())))
    spans = {e.id: e for e in sample.events if e.event == "span_begin"}
    ended = {e.id for e in sample.events if e.event == "span_end"}
    assert set(spans) == ended

    def path(id: str | None) -> list[str]:
        return [*path(spans[id].parent_id), spans[id].name] if id else []

    tools = [path(event.span_id) for event in sample.events if event.event == "tool"]
    assert [names[names.index("geographer") :] for names in tools] == [
        ["geographer", "geographer", "population"],
        ["geographer", "geographer", "helper"],
        ["geographer", "geographer", "helper", "helper", "population"],
    ]
    models = [path(event.span_id)[-1] for event in sample.events if event.event == "model"]
    assert models == ["geographer", "helper", "helper", "geographer"]


def test_a_conversation_is_gone_on_from_as_it_is(evaluate: Callable[..., EvalLog]) -> None:
    seen: list[list[Any]] = []

    def model(input: list[Any], tools: list[Any], choice: Any, config: Any) -> ModelOutput:
        seen.append(input)
        return says("717710")

    given = [
        ChatMessageSystem(content="Be brief."),
        ChatMessageUser(content="Hello."),
        ChatMessageAssistant(content="", tool_calls=[call("population", city="Oslo")]),
        ChatMessageTool(content="717710", tool_call_id="c", function="population"),
        ChatMessageAssistant(content="Hello to you."),
        ChatMessageUser(content="How many live in Oslo?"),
    ]
    sample = sample_of(evaluate(model, input=given, solver=as_solver(expert())))
    assert [m.text for m in seen[0]] == ["Look it up.", *(m.text for m in given)]
    assert [m.id for m in sample.messages[1:-1]] == [m.id for m in given]


class City(BaseModel):
    city: str
    people: int


def test_a_typed_answer_is_the_output_as_json(evaluate: Callable[..., EvalLog]) -> None:
    def model(input: list[Any], tools: list[Any], choice: Any, config: Any) -> ModelOutput:
        assert [tool.name for tool in tools] == ["final_answer"]
        return says(calls=(call("final_answer", city="Oslo", people=717710),))

    sample = sample_of(evaluate(model, solver=as_solver(Agent("a", output=City))))
    assert json.loads(sample.output.completion) == {"city": "Oslo", "people": 717710}


def test_reasoning_comes_back_to_the_model_as_it_was(evaluate: Callable[..., EvalLog]) -> None:
    thought = ContentReasoning(reasoning="Hm.", signature="signed")
    seen: list[list[Any]] = []

    def model(input: list[Any], tools: list[Any], choice: Any, config: Any) -> ModelOutput:
        seen.append(input)
        if len(seen) == 1:
            return says(thought, "I look.", calls=(call("population", city="Oslo"),))
        return says("717710")

    evaluate(model, solver=as_solver(expert()))
    assert seen[1][2].content == [thought, ContentText(text="I look.")]


def test_arguments_that_inspect_could_not_read_are_the_models_to_mend(
    evaluate: Callable[..., EvalLog],
) -> None:
    def model(input: list[Any], tools: list[Any], choice: Any, config: Any) -> ModelOutput:
        if len(input) > 2:
            return says(input[-1].error.message)
        broken = ToolCall("c", "population", {"city": "Oslo"}, parse_error="no JSON: {city")
        return says(calls=(broken,))

    sample = sample_of(evaluate(model, solver=as_solver(expert())))
    assert "no JSON: {city" in sample.output.completion


# --- what ends a sample --------------------------------------------------------------------------


@on_both
@pytest.mark.parametrize(
    ("limit", "kind", "messages"),
    [({"message_limit": 4}, "message", 4), ({"token_limit": 20}, "token", 5)],
)
def test_inspects_limits_end_the_sample_and_the_messages_are_kept(
    evaluate: Callable[..., EvalLog], limit: dict[str, int], kind: str, messages: int
) -> None:
    sample = sample_of(evaluate(looks_it_up, solver=as_solver(expert()), **limit))
    assert sample.limit
    assert sample.limit.type == kind
    assert sample.error is None
    assert len(sample.messages) == messages


@on_both
def test_inspects_time_limit_stops_a_tool_that_takes_too_long(
    evaluate: Callable[..., EvalLog],
) -> None:
    async def wait() -> None:
        """Wait."""
        await anyio.sleep(60)

    def model(input: list[Any], tools: list[Any], choice: Any, config: Any) -> ModelOutput:
        return says("I wait.", calls=(call("wait"),))

    agent = Agent("patient", tools=[wait])
    sample = sample_of(evaluate(model, solver=as_solver(agent), time_limit=1))
    assert sample.limit
    assert sample.limit.type == "time"
    said = [m.text for m in sample.messages if isinstance(m, ChatMessageAssistant)]
    assert said == ["I wait."]
    (tool,) = [event for event in sample.events if event.event == "tool"]
    assert not tool.pending
    assert tool.error


def test_the_agents_own_limits_hold_too(evaluate: Callable[..., EvalLog]) -> None:
    def model(input: list[Any], tools: list[Any], choice: Any, config: Any) -> ModelOutput:
        if choice == "none":
            return says("717710, I think.")
        return says(calls=(call("population", city=f"C{len(input)}"),))

    agent = Agent("a", tools=[population], limits=Limits(steps=3))
    sample = sample_of(evaluate(model, solver=as_solver(agent)))
    assert sample.output.completion == "717710, I think."
    assert sample.output.metadata
    assert sample.output.metadata["agentloop"] == {"stop": "steps", "steps": 3, "error": None}


def test_a_model_that_fails_fails_the_sample_as_with_any_agent(
    evaluate: Callable[..., EvalLog],
) -> None:
    def model(input: list[Any], tools: list[Any], choice: Any, config: Any) -> ModelOutput:
        raise ValueError("no such model")

    log = evaluate(model, solver=as_solver(expert()))
    assert log.status == "error"
    error = sample_of(log).error
    assert error
    assert "no such model" in error.message


def test_approval_policies_are_not_passed_by_in_silence(evaluate: Callable[..., EvalLog]) -> None:
    policies = [ApprovalPolicy(auto_approver("reject"), "*")]
    sample = sample_of(evaluate(looks_it_up, solver=as_solver(expert()), approval=policies))
    assert sample.error
    assert "approval policies" in sample.error.message
    assert not [event for event in sample.events if event.event == "tool"]


def test_tools_that_ask_are_answered_by_the_user_who_is_given(
    evaluate: Callable[..., EvalLog],
) -> None:
    from mcp_types import ElicitResult

    @tool(approve=True)
    def launch() -> str:
        """Launch."""
        return "717710"

    async def user(_params: Any) -> ElicitResult:
        return ElicitResult(action="decline")

    def model(input: list[Any], tools: list[Any], choice: Any, config: Any) -> ModelOutput:
        return says(
            input[-1].text if len(input) > 1 else "",
            calls=() if len(input) > 1 else (call("launch"),),
        )

    agent = Agent("a", tools=[launch])
    sample = sample_of(evaluate(model, solver=as_solver(agent, user=user)))
    assert "did not approve" in sample.output.completion


# --- as an agent of Inspect ----------------------------------------------------------------------


def test_it_is_an_agent_for_everything_that_inspect_does_with_agents(
    evaluate: Callable[..., EvalLog],
) -> None:
    def model(input: list[Any], tools: list[Any], choice: Any, config: Any) -> ModelOutput:
        names = [tool.name for tool in tools]
        answered = any(message.role == "tool" for message in input)
        if "submit" in names and not answered:
            return says(calls=(call("geographer", "g", input="Oslo?"),))
        if "submit" in names:
            return says(calls=(call("submit", "s", answer=input[-1].text),))
        return says("717710") if answered else says(calls=(call("population", city="Oslo"),))

    agent = Agent("geographer", tools=[population], description="Knows cities.")
    boss = react(prompt="Ask.", tools=[as_tool(as_agent(agent))])
    sample = sample_of(evaluate(model, solver=boss))
    assert "717710" in sample.output.completion
    tools = [event.function for event in sample.events if event.event == "tool"]
    assert tools == ["geographer", "population", "submit"]


def test_it_runs_where_there_is_no_question(evaluate: Callable[..., EvalLog]) -> None:
    seen: list[list[str]] = []

    def model(input: list[Any], tools: list[Any], choice: Any, config: Any) -> ModelOutput:
        seen.append([message.text for message in input])
        return says("717710")

    @solver
    def twice() -> Any:
        async def solve(state: TaskState, generate: Generate) -> TaskState:
            agent = as_agent(Agent("a"))
            after = await run(agent, state.messages)
            after = await run(agent, after.messages)
            state.messages, state.output = after.messages, after.output
            return state

        return solve

    evaluate(model, solver=twice())
    assert seen == [
        ["How many live in Oslo?"],
        ["How many live in Oslo?", "717710", "Go on."],
    ]


# --- as a provider -------------------------------------------------------------------------------

# Inspect keeps to the kind of event loop that it met first in a process.
on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])


@on_asyncio
async def test_any_model_of_inspect_is_a_provider() -> None:
    def model(input: list[Any], tools: list[Any], choice: Any, config: Any) -> ModelOutput:
        return says(f"{config.max_tokens} {config.temperature} {config.stop_seqs}")

    mock = get_model("mockllm/model", custom_outputs=model, memoize=False)
    agent = Agent("a", max_tokens=77, temperature=0.5, stop_sequences=["END"])
    result = await agent.run("?", provider=InspectProvider(mock))
    assert result.text == "77 0.5 ['END']"
    assert result.usage.input_tokens == 10


@on_asyncio
async def test_an_answer_that_failed_may_be_asked_for_again() -> None:
    lines: list[Any] = [ValueError("busy"), says("fine")]

    def model(input: list[Any], tools: list[Any], choice: Any, config: Any) -> ModelOutput:
        line = lines.pop(0)
        if isinstance(line, Exception):
            raise line
        return line

    mock = get_model("mockllm/model", custom_outputs=model, memoize=False)
    provider = InspectProvider(mock)
    failed = await Agent("a").run("?", provider=provider)
    assert failed.error
    assert failed.error.startswith("inspect: ValueError: busy")
    assert (await Agent("a").run("?", provider=provider)).text == "fine"


def test_it_is_a_provider_on_the_command_line() -> None:
    assert load_provider("inspect:mockllm/model").name == "inspect:mockllm/model"


@on_asyncio
async def test_what_is_set_in_inspect_counts_for_more() -> None:
    def model(input: list[Any], tools: list[Any], choice: Any, config: Any) -> ModelOutput:
        return says(f"{config.max_tokens} {config.temperature}")

    config = GenerateConfig(max_tokens=9, temperature=0.1)
    mock = get_model("mockllm/model", custom_outputs=model, config=config, memoize=False)
    result = await Agent("a", max_tokens=77).run("?", provider=InspectProvider(mock))
    assert result.text == "9 0.1"


class Leg(BaseModel):
    start: str
    end: str


class Trip(BaseModel):
    legs: list[Leg]
    back: Leg | None = None


@on_asyncio
async def test_nested_arguments_reach_the_model_without_references() -> None:
    def book(trip: Trip, kind: str = "train") -> str:
        """Book a trip."""
        return f"{len(trip.legs)} legs"

    seen: list[Any] = []

    def model(input: list[Any], tools: list[Any], choice: Any, config: Any) -> ModelOutput:
        seen.append(tools[0].parameters.model_dump(exclude_none=True))
        if len(seen) == 1:
            return says(calls=(call("book", trip={"legs": [{"start": "a", "end": "b"}]}),))
        return says(input[-1].text)

    mock = get_model("mockllm/model", custom_outputs=model, memoize=False)
    result = await Agent("a", tools=[book]).run("?", provider=InspectProvider(mock))
    assert result.text == "1 legs"
    leg = {"type": "string"}
    legs = seen[0]["properties"]["trip"]["properties"]["legs"]
    assert legs["items"]["properties"] == {"start": leg, "end": leg}
    assert seen[0]["properties"]["trip"]["properties"]["back"]["anyOf"][1] == {"type": "null"}


def test_a_model_that_inspect_does_not_know_is_a_mistake_in_the_definition() -> None:
    with pytest.raises(DefinitionError, match="inspect:nobody/x"):
        InspectProvider.from_spec("nobody/x")
    with pytest.raises(DefinitionError, match="needs a model"):
        InspectProvider.from_spec("")
