"""The machine: what a run asks, and what each answer makes of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from mcp_types import (
    CreateMessageRequestParams,
    CreateMessageResult,
    CreateMessageResultWithTools,
    ImageContent,
    ModelPreferences,
    SamplingMessage,
    TextContent,
    Tool,
    ToolResultContent,
    ToolUseContent,
)
from pydantic import BaseModel

from agentloop import Limits, Stop, Usage
from agentloop.definition import Definition
from agentloop.errors import DefinitionError, StateError
from agentloop.machine import Ask, ToolCalls, called, close, fail, pending, sampled, start, stop
from agentloop.meta import NOTICE_KEY, PROVIDER_KEY, USAGE_KEY
from agentloop.output import ANSWER_TOOL, Output
from agentloop.run import Run


class City(BaseModel):
    name: str
    people: int


SCHEMA: dict[str, Any] = {"type": "object"}


def definition(**options: Any) -> Definition:
    tools = (Tool(name="look", input_schema=SCHEMA), Tool(name="poll", input_schema=SCHEMA))
    return Definition(**{"name": "agent", "tools": tools, "polls": frozenset({"poll"}), **options})


def go(**options: Any) -> Run:
    return start(definition(**options), "go", id="1")


def use(id: str, name: str = "look", /, **input: Any) -> ToolUseContent:
    return ToolUseContent(name=name, id=id, input=input)


def answer(**input: Any) -> ToolUseContent:
    return use("answer", ANSWER_TOOL, **input)


def reply(*content: Any, stop_reason: str | None = None, **options: Any) -> Any:
    blocks = [TextContent(text=item) if isinstance(item, str) else item for item in content]
    return CreateMessageResultWithTools(
        **{
            "role": "assistant",
            "model": "m",
            "content": blocks,
            "stop_reason": stop_reason,
            **options,
        }
    )


def result(id: str, text: str = "ok", *, error: bool | None = None) -> ToolResultContent:
    return ToolResultContent(tool_use_id=id, content=[TextContent(text=text)], is_error=error)


def all_called(run: Run, text: str = "ok", *, error: bool | None = None) -> Run:
    return called(run, {c.id: result(c.id, text, error=error) for c in open_calls(run)})


def ask(run: Run) -> CreateMessageRequestParams:
    wanted = pending(run)
    assert isinstance(wanted, Ask)
    return wanted.request


def open_calls(run: Run) -> tuple[ToolUseContent, ...]:
    wanted = pending(run)
    assert isinstance(wanted, ToolCalls)
    return wanted.calls


def open_ids(run: Run) -> list[str]:
    return [call.id for call in open_calls(run)]


def results_in(run: Run, message: int = -1) -> dict[str, str]:
    """The text of each result in a message, by id."""
    return {
        block.tool_use_id: "|".join(c.text for c in block.content if c.type == "text")
        for block in run.messages[message].content_as_list
        if block.type == "tool_result"
    }


def notices(run: Run) -> list[str]:
    return [
        part.text
        for message in run.messages
        for block in message.content_as_list
        if block.type == "tool_result"
        for part in block.content
        if part.type == "text" and part.meta and NOTICE_KEY in part.meta
    ]


# --- asks --------------------------------------------------------------------------------------


def test_the_first_ask_is_the_prompt_with_the_agents_settings() -> None:
    run = go(
        instructions="Be brief.",
        max_tokens=99,
        temperature=0.5,
        stop_sequences=("END",),
        model_preferences=ModelPreferences(speed_priority=1.0),
    )
    request = ask(run)
    assert [m.role for m in request.messages] == ["user"]
    assert request.messages[0].content_as_list == [TextContent(text="go")]
    assert (request.system_prompt, request.max_tokens) == ("Be brief.", 99)
    assert (request.temperature, request.stop_sequences) == (0.5, ["END"])
    assert [tool.name for tool in request.tools or ()] == ["look", "poll"]
    assert request.tool_choice is None
    assert request.model_preferences == ModelPreferences(speed_priority=1.0)


def test_without_tools_nothing_about_tools_is_sent() -> None:
    data = ask(go(tools=(), polls=frozenset())).model_dump(exclude_none=True)
    assert set(data) == {"messages", "max_tokens"}


def test_asks_of_one_run_share_no_list_of_messages() -> None:
    run = go()
    ask(run).messages.clear()
    assert len(ask(run).messages) == 1


def test_a_prompt_may_be_blocks() -> None:
    blocks = [TextContent(text="what is this"), ImageContent(data="aGk=", mime_type="image/png")]
    run = start(definition(), blocks, id="1")
    assert ask(run).messages[0].content_as_list == blocks


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(DefinitionError, match="prompt is empty"):
        start(definition(), [], id="1")


def test_lone_surrogates_and_nuls_in_a_prompt_are_replaced() -> None:
    for prompt in ("a\ud800b\0", [TextContent(text="a\ud800b\0")]):
        run = start(definition(), prompt, id="1")
        assert ask(run).messages[0].content_as_list == [TextContent(text="a\ufffdb\ufffd")]


def test_history_comes_before_the_prompt_and_is_not_the_runs_own_text() -> None:
    earlier = sampled(go(), reply("Paris"))
    run = start(definition(), "and Rome?", id="2", history=earlier.messages)
    assert [m.role for m in ask(run).messages] == ["user", "assistant", "user"]
    assert run.text == ""
    assert fail(run, "gone").text == ""
    assert sampled(run, reply("Rome")).text == "Rome"


def test_a_history_with_an_open_tool_use_is_refused() -> None:
    history = [
        SamplingMessage(role="user", content=TextContent(text="a")),
        SamplingMessage(role="assistant", content=[use("c1")]),
    ]
    with pytest.raises(DefinitionError, match="not balanced"):
        start(definition(), "go", id="1", history=history)


# --- replies -----------------------------------------------------------------------------------


def test_words_end_a_run() -> None:
    run = sampled(go(), reply("Forty-two", stop_reason="endTurn"), seconds=1.5)
    assert (run.stop, run.text, run.steps, run.seconds) == (Stop.DONE, "Forty-two", 1, 1.5)
    assert pending(run) is None


def test_a_reply_may_be_one_block_without_tools() -> None:
    single = CreateMessageResult(role="assistant", model="m", content=TextContent(text="hi"))
    assert sampled(go(), single).text == "hi"


@pytest.mark.parametrize("stop_reason", ["toolUse", "endTurn", "stopSequence", "x-other", None])
def test_content_decides_that_tools_are_called_not_the_stop_reason(stop_reason: str | None) -> None:
    run = sampled(go(), reply("I look", use("c1"), stop_reason=stop_reason))
    assert open_ids(run) == ["c1"]
    assert run.messages[-1].content_as_list[0] == TextContent(text="I look")


def test_stop_reason_tool_use_without_a_tool_use_is_an_answer_in_words() -> None:
    run = sampled(go(), reply("that is all", stop_reason="toolUse"))
    assert (run.stop, run.text) == (Stop.DONE, "that is all")


@pytest.mark.parametrize("content", [[], [""], ["  \n"], ["", " "]])
def test_an_empty_reply_is_asked_again_once_and_then_fails(content: list[str]) -> None:
    run = sampled(go(), reply(*content, stop_reason="toolUse"))
    assert len(ask(run).messages) == 1, "nothing of the empty reply is kept"
    assert sampled(run, reply("now")).stop is Stop.DONE
    failed = sampled(run, reply(*content))
    assert failed.stop is Stop.FAILED
    assert (failed.error or "").startswith("malformed_reply: ")
    assert failed.steps == 2


def test_a_reply_of_the_users_role_fails_and_is_not_used() -> None:
    run = sampled(go(), reply("I am the user", role="user"))
    assert run.stop is Stop.FAILED
    assert (run.error or "").startswith("malformed_reply: ")
    assert run.text == ""
    assert len(run.messages) == 1


@pytest.mark.parametrize("stop_reason", ["refusal", "content_filter"])
def test_a_refusal_is_no_answer(stop_reason: str) -> None:
    assert sampled(go(), reply("I cannot", stop_reason=stop_reason)).stop is Stop.REFUSED
    assert sampled(go(), reply(stop_reason=stop_reason)).stop is Stop.REFUSED


def test_a_refusal_in_the_middle_of_calls_leaves_none_of_them_open() -> None:
    run = sampled(go(), reply(use("c1"), use("c2"), stop_reason="refusal"))
    assert run.stop is Stop.REFUSED
    assert results_in(run) == dict.fromkeys(["c1", "c2"], "Not run: the run ended (refused).")


def test_words_that_were_cut_are_an_answer_with_the_stop_truncated() -> None:
    run = sampled(go(), reply("It was a dark and", stop_reason="maxTokens"))
    assert (run.stop, run.text) == (Stop.TRUNCATED, "It was a dark and")


def test_a_call_that_was_cut_is_not_run_and_the_others_are() -> None:
    run = sampled(go(), reply(use("c1"), use("c2"), stop_reason="maxTokens"))
    assert open_ids(run) == ["c1"]
    run = all_called(run)
    assert results_in(run)["c1"] == "ok"
    assert "cut off" in results_in(run)["c2"]
    assert run.tool_calls == 1


def test_a_model_has_no_results_to_give() -> None:
    forged = ToolResultContent(tool_use_id="c1", content=[TextContent(text="forged")])
    run = sampled(go(), reply(forged, use("c1")))
    assert run.messages[-1].content_as_list == [use("c1")]
    assert sampled(go(), reply(forged)).stop is None, "as empty as a reply without content"


# --- tool uses ---------------------------------------------------------------------------------


def test_two_uses_of_one_id_are_told_apart_before_they_are_stored() -> None:
    run = sampled(go(), reply(use("a", x=1), use("a", x=2), use("a-2", x=3), use("", x=4)))
    assert open_ids(run) == ["a", "a-2", "a-2-2", "call-2"]
    assert [b.id for b in run.messages[-1].content_as_list if b.type == "tool_use"] == open_ids(run)
    run = all_called(run)
    assert list(results_in(run)) == ["a", "a-2", "a-2-2", "call-2"]


def test_an_id_may_come_again_in_a_later_step() -> None:
    run = all_called(sampled(go(), reply(use("a", x=1))), "first")
    run = sampled(run, reply(use("a", x=2)))
    assert open_ids(run) == ["a"]
    assert results_in(all_called(run, "second")) == {"a": "second"}


def test_what_a_provider_needs_back_comes_back_verbatim() -> None:
    signature = {PROVIDER_KEY: {"signature": "e" * 50, "none": None, "deep": [[{"x": 1.5}]]}}
    thinking = TextContent(text="", _meta=signature)
    signed = ToolUseContent(name="look", id="c1", input={"a": [1]}, _meta=signature)
    run = sampled(
        go(), reply(thinking, signed, _meta={**signature, USAGE_KEY: {"input_tokens": 5}})
    )
    run = Run.from_json(json.loads(json.dumps(run.to_json())), run.definition)
    message = run.messages[-1]
    assert message.content_as_list == [thinking, signed]
    assert message.meta == signature, "usage is ours, not the provider's to get back"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"a": "\ud800x\0"}, {"a": "\ufffdx\ufffd"}),
        ({"\ud800": [{"b": "\udc00"}]}, {"\ufffd": [{"b": "\ufffd"}]}),
        ({"a": float("nan"), "b": [float("-inf")]}, {"a": "nan", "b": ["-inf"]}),
        ({"a": None, "b": True, "c": 1, "d": 1.5}, {"a": None, "b": True, "c": 1, "d": 1.5}),
        ({"a": {1: (2,)}}, {"a": {"1": [2]}}),
        ({"a": {3}}, {"a": "{3}"}),
    ],
)
def test_arguments_are_kept_as_json_that_every_writer_takes(given: Any, kept: Any) -> None:
    run = sampled(go(), reply(ToolUseContent(name="look", id="c", input=given)))
    assert open_calls(run)[0].input == kept


def test_arguments_that_nest_too_deeply_are_dropped_and_the_call_is_not_run() -> None:
    deep: dict[str, Any] = {}
    for _ in range(20_000):
        deep = {"x": deep}
    run = sampled(go(), reply(use("c1", a=1), ToolUseContent(name="look", id="c2", input=deep)))
    assert open_ids(run) == ["c1"]
    assert run.messages[-1].content_as_list[1] == use("c2")
    assert "too deeply" in results_in(all_called(run))["c2"]


def test_ten_thousand_calls_in_one_reply_are_all_answered_and_sixty_four_run() -> None:
    run = sampled(go(), reply(*(use(f"c{n}") for n in range(10_000))))
    assert open_ids(run) == [f"c{n}" for n in range(64)]
    run = all_called(run)
    answered = results_in(run)
    assert list(answered) == [f"c{n}" for n in range(10_000)]
    assert answered["c64"] == "Not run: at most 64 calls are taken from one reply."
    assert run.tool_calls == 64


def test_results_stand_in_the_order_of_the_calls_whenever_they_came() -> None:
    run = sampled(go(), reply(use("a"), use("b"), use("c")))
    for id in ("c", "a"):
        run = called(run, {id: result(id)})
    assert open_ids(run) == ["b"]
    assert list(results_in(called(run, {"b": result("b")}))) == ["a", "b", "c"]


def test_a_finished_call_is_not_open_any_more_and_keeps_its_first_result() -> None:
    run = sampled(go(), reply(use("a"), use("b")))
    run = called(run, {"a": result("a", "first")})
    run = called(run, {"a": result("a", "second")})
    assert open_ids(run) == ["b"]
    assert results_in(called(run, {"b": result("b")}))["a"] == "first"


def test_results_of_nothing_are_ignored() -> None:
    run = sampled(go(), reply(use("a")))
    assert called(run, {"zzz": result("zzz")}) == run
    waiting = all_called(run)
    assert called(waiting, {"a": result("a")}) == waiting
    ended = sampled(waiting, reply("done"))
    assert called(ended, {"a": result("a")}) == ended


def test_a_result_answers_the_call_it_was_given_for() -> None:
    run = called(sampled(go(), reply(use("a"))), {"a": result("another")})
    assert list(results_in(run)) == ["a"]


def test_usage_of_agents_inside_a_call_counts_once() -> None:
    inner = result("a")
    inner.meta = {USAGE_KEY: {"asks": 2, "input_tokens": 30}}
    run = sampled(go(), reply(use("a"), use("b"), _meta={USAGE_KEY: {"input_tokens": 5}}))
    run = called(run, {"a": inner})
    run = called(run, {"a": inner, "b": result("b")})
    assert run.usage == Usage(asks=3, input_tokens=35)


def test_a_reply_while_calls_are_open_is_the_drivers_mistake() -> None:
    with pytest.raises(StateError, match="tool calls"):
        sampled(sampled(go(), reply(use("a"))), reply("late"))


def test_nothing_changes_a_run_that_has_ended() -> None:
    run = sampled(go(), reply("done"))
    assert sampled(run, reply("late")) == run
    assert stop(run, Stop.CANCELLED) == run
    assert fail(run, "late").stop is Stop.DONE


# --- ends from outside -------------------------------------------------------------------------


def test_a_run_cancelled_between_reply_and_results_goes_to_the_next_model_balanced() -> None:
    run = called(sampled(go(), reply(use("a"), use("b"))), {"b": result("b", "kept")})
    ended = stop(run, Stop.CANCELLED)
    assert results_in(ended) == {"a": "Not run: the run ended (cancelled).", "b": "kept"}
    again = start(definition(), "go on", id="2", history=ended.messages)
    assert len(ask(again).messages) == 4


def test_a_failed_run_says_why_and_keeps_its_messages() -> None:
    run = fail(all_called(sampled(go(), reply(use("a")))), "overloaded: try later", seconds=2.0)
    assert (run.stop, run.error, run.seconds) == (Stop.FAILED, "overloaded: try later", 2.0)
    assert len(run.messages) == 3


def test_an_error_is_clean_and_bounded() -> None:
    error = fail(go(), "\ud800" + "x" * 100_000).error
    assert error is not None
    assert error.startswith("\ufffd")
    assert len(error.encode()) <= 4096


def test_time_used_up_to_the_dot_ends_a_run_whose_asks_took_none_of_it() -> None:
    run = sampled(go(limits=Limits(seconds=5)), reply(use("a")))
    assert called(run, {"a": result("a")}, seconds=5).stop is Stop.SECONDS


def test_a_run_that_is_closed_tells_the_model_once_and_offers_no_tools() -> None:
    run = close(all_called(sampled(go(), reply(use("a")))), Stop.ROUNDS)
    assert close(run, Stop.STEPS) == run
    assert len(notices(run)) == 1
    choice = ask(run).tool_choice
    assert choice is not None
    assert choice.mode == "none"
    assert sampled(run, reply("as far as I know")).stop is Stop.ROUNDS


def test_a_tool_called_though_none_was_allowed_is_not_run_but_answered() -> None:
    run = close(all_called(sampled(go(), reply(use("a")))), Stop.STEPS)
    run = sampled(run, reply("but", use("b")))
    assert run.stop is Stop.STEPS
    assert results_in(run) == {"b": "Not run: no more tool calls are allowed."}
    assert (run.tool_calls, run.text) == (1, "but")


# --- typed answers -----------------------------------------------------------------------------


def test_a_typed_answer_is_a_call_of_the_answer_tool() -> None:
    run = go(output=Output(City))
    assert [tool.name for tool in ask(run).tools or ()] == ["look", "poll", ANSWER_TOOL]
    run = sampled(run, reply(answer(name="Rome", people=3)))
    assert (run.stop, run.answer) == (Stop.DONE, ({"name": "Rome", "people": 3},))
    assert results_in(run) == {"answer": "The answer is taken."}
    assert run.tool_calls == 0


def test_an_answer_that_does_not_fit_goes_back_with_what_is_wrong() -> None:
    run = sampled(go(output=Output(City)), reply(answer(name="Rome", people="many")))
    told = results_in(run)["answer"]
    assert "people: " in told
    assert '(got "many")' in told
    choice = ask(run).tool_choice
    assert choice is not None
    assert choice.mode == "required"
    assert sampled(run, reply(answer(name="Rome", people=3))).stop is Stop.DONE


@pytest.mark.parametrize("retries", [0, 1, 2])
def test_wrong_answers_are_sent_back_so_often_and_then_fail(retries: int) -> None:
    run = go(output=Output(City), limits=Limits(output_retries=retries))
    for _ in range(retries):
        run = sampled(run, reply(answer(name="Rome")))
        assert run.stop is None
    run = sampled(run, reply(answer(name="Rome")))
    assert run.stop is Stop.FAILED
    assert (run.error or "").startswith("invalid_output")
    assert run.steps == retries + 1
    assert run.messages.imbalance() is None


@pytest.mark.parametrize("retries", [0, 2])
def test_words_in_place_of_a_typed_answer_are_asked_again_so_often(retries: int) -> None:
    run = go(output=Output(City), limits=Limits(output_retries=retries))
    for _ in range(retries):
        run = sampled(run, reply("Rome, I think"))
        assert run.messages[-1].role == "user"
    run = sampled(run, reply("Rome"))
    assert run.stop is Stop.FAILED
    assert run.steps == retries + 1


def test_words_that_are_the_answer_as_json_are_taken() -> None:
    text = 'Here it is:\n```json\n{"name": "Rome", "people": 3}\n```'
    run = sampled(go(output=Output(City)), reply(text))
    assert (run.stop, run.answer) == (Stop.DONE, ({"name": "Rome", "people": 3},))


def test_the_first_answer_counts_and_the_calls_beside_it_are_run() -> None:
    run = sampled(
        go(output=Output(City)),
        reply(use("a"), answer(name="Rome", people=3), use("x", ANSWER_TOOL, name="B", people=1)),
    )
    assert open_ids(run) == ["a"]
    run = all_called(run)
    assert (run.stop, run.answer) == (Stop.DONE, ({"name": "Rome", "people": 3},))
    assert "answer was given already" in results_in(run)["x"]


def test_an_answer_that_was_cut_is_not_taken() -> None:
    run = sampled(
        go(output=Output(City)), reply(answer(name="Rome", people=3), stop_reason="maxTokens")
    )
    assert run.answer is None
    assert "cut off" in results_in(run)["answer"]


def test_a_validator_that_breaks_is_an_answer_that_does_not_fit() -> None:
    class Odd(BaseModel):
        n: int

        def model_post_init(self, context: Any) -> None:
            raise KeyError(self.n)

    run = sampled(go(output=Output(Odd)), reply(answer(n=1)))
    assert "cannot be checked: KeyError" in results_in(run)["answer"]


def test_an_answer_without_a_json_form_does_not_fit() -> None:
    run = sampled(go(output=Output(float)), reply(answer(result="nan")))
    assert run.answer is None
    assert "no JSON form" in results_in(run)["answer"]


# --- states ------------------------------------------------------------------------------------


def saved(run: Run) -> dict[str, Any]:
    return json.loads(json.dumps(run.to_json()))


def test_a_state_holds_no_definition_and_no_defaults() -> None:
    run = go(instructions="secret instructions")
    state = saved(run)
    assert set(state) == {"v", "id", "of", "messages", "weight"}
    assert "secret" not in json.dumps(state)
    assert Run.from_json(state, run.definition) == run


def test_a_state_belongs_to_the_definition_it_was_made_with() -> None:
    state = saved(go())
    for changed in (
        definition(name="other"),
        definition(instructions="Other."),
        definition(tools=()),
        definition(output=Output(City)),
    ):
        with pytest.raises(StateError, match="another definition"):
            Run.from_json(state, changed)
    assert Run.from_json(state, definition(limits=Limits(steps=3))).stop is None


@pytest.mark.parametrize(
    "damage",
    [
        {"v": 0},
        {"id": ...},
        {"messages": []},
        {"messages": ...},
        {"messages": 5},
        {"messages": [{"role": "robot", "content": []}]},
        {"results": 5},
        {"results": [5]},
        {"steps": "x"},
        {"steps": -1},
        {"steps": True},
        {"seconds": None},
        {"seconds": "1"},
        {"answer": []},
        {"answer": [1, 2]},
        {"stop": "later"},
        {"closing": 5},
        {"history": 99},
    ],
)
def test_a_damaged_state_is_a_state_error(damage: dict[str, Any]) -> None:
    run = called(sampled(go(), reply(use("a"), use("b"))), {"a": result("a")})
    state = saved(run)
    for name, value in damage.items():
        if value is ...:
            del state[name]
        else:
            state[name] = value
    with pytest.raises(StateError):
        Run.from_json(state, run.definition)


@pytest.mark.parametrize("state", [None, [], "x", 1, {}])
def test_what_is_no_state_at_all_is_a_state_error(state: object) -> None:
    with pytest.raises(StateError, match="version"):
        Run.from_json(state, definition())


def test_a_state_whose_history_is_not_balanced_is_a_state_error() -> None:
    run = all_called(sampled(go(), reply(use("a"))))
    state = saved(run)
    for messages in (state["messages"][::2], state["messages"][::-1]):
        with pytest.raises(StateError, match="damaged"):
            Run.from_json({**state, "messages": messages}, run.definition)


def test_a_state_with_results_of_nothing_is_a_state_error() -> None:
    run = called(sampled(go(), reply(use("a"), use("b"))), {"a": result("a")})
    state = saved(run)
    assert Run.from_json(state, run.definition) == run
    for id in ("c", ""):
        state["results"][0]["toolUseId"] = id
        with pytest.raises(StateError, match="answers no open call"):
            Run.from_json(state, run.definition)
    ended = saved(stop(run, Stop.CANCELLED)) | {"results": saved(run)["results"]}
    with pytest.raises(StateError, match="answers no open call"):
        Run.from_json(ended, run.definition)
