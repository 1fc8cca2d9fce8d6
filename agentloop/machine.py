"""The machine: what a run asks, and what each answer makes of it.

A :class:`Run` is a frozen value; :func:`pending` says what it waits for; one transition takes each
kind of answer and gives a new run:

    start ──> pending ──> Ask        ──sampled──>  pending ...
                     ──> ToolCalls  ──called───>  pending ...
                     ──> None        the run has ended: ``run.stop`` says how

Nothing here reads a clock, waits or does I/O. A run turns into JSON and back at any point, and
going on from the copy gives the same as never having stopped.

What always holds (SEP-1577): every ``tool_use`` is answered by exactly one ``tool_result``, in one
user message right after it that holds nothing else. Content decides what a reply is, not its stop
reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mcp_types import (
    CreateMessageRequestParams,
    SamplingMessage,
    SamplingMessageContentBlock,
    TextContent,
    ToolResultContent,
    ToolUseContent,
)

from agentloop.definition import Definition
from agentloop.errors import DefinitionError, StateError
from agentloop.intake import TooMuch, clean_text, take
from agentloop.meta import NOTICE_KEY, USAGE_KEY, Reply, usage_of
from agentloop.output import ANSWER_TOOL, OutputInvalid
from agentloop.prompt import Prompt, blocks_of, check_history
from agentloop.repeats import Repeats, repeats_in
from agentloop.run import Run, Stop
from agentloop.text import clean, cut
from agentloop.transcript import Transcript, remade
from agentloop.usage import Usage


class Ask(NamedTuple):
    """The run waits for a model: :func:`sampled` takes the reply."""

    request: CreateMessageRequestParams


class ToolCalls(NamedTuple):
    """The run waits for these calls: :func:`called` takes their results, all or one by one."""

    calls: tuple[ToolUseContent, ...]


# --- what a run waits for ----------------------------------------------------------------------


def start(
    definition: Definition,
    prompt: Prompt,
    *,
    id: str,
    history: Sequence[SamplingMessage] = (),
    began: float = 0.0,
) -> Run:
    """A new run that is asked ``prompt``, after the messages of ``history``.

    Raises :class:`DefinitionError` where the prompt is empty or holds what is no content, or the
    history is not balanced: such as no model would take.
    """
    blocks = [clean_text(block) for block in blocks_of(prompt)]
    if history != ():
        check_history(history)
        if (problem := Transcript(history).imbalance()) is not None:
            raise DefinitionError(f"the history is not balanced: {problem}")
    return _settle(
        _with(
            _BLANK,
            id=id,
            definition=definition,
            messages=Transcript([*history, remade(_USER, content=blocks)]),
            history=len(history),
            weight=_weigh(blocks),
            began=began,
        )
    )


def pending(run: Run) -> Ask | ToolCalls | None:
    """What the run waits for; None once it has ended."""
    if run.stop is not None:
        return None
    if run.messages.last.role == "assistant":
        known, uses = run.results, run.uses
        return ToolCalls(tuple([use for use in uses if use.id not in known] if known else uses))
    return Ask(_request(run))


def _request(run: Run) -> CreateMessageRequestParams:
    definition = run.definition
    if run.closing:
        template = definition.last_request
    elif definition.output and run.repairs:
        template = definition.answer_request
    else:
        template = definition.request
    # A copy of a request made once: nothing of the history is validated again at each step.
    return remade(template, messages=run.messages.to_list())


# --- answers -----------------------------------------------------------------------------------


def sampled(run: Run, reply: Reply, *, seconds: float = 0.0) -> Run:
    """The run after the model's ``reply``, which took ``seconds``.

    A reply that comes after the end changes nothing. Raises :class:`StateError` where the run waits
    for results of tool calls.
    """
    if run.stop is not None:
        return run
    if run.messages.last.role == "assistant":
        raise StateError("the run waits for the results of tool calls, not for a reply")
    content = reply.content if isinstance(reply.content, list) else [reply.content]
    weight = _weigh(content)
    usage = usage_of(reply)
    if usage is None or not usage.total_tokens:  # a report of nothing is none
        usage = _estimate(run.weight, weight)
    spent: dict[str, Any] = {
        "steps": run.steps + 1,
        "usage": run.usage + _one_ask(usage),
        "seconds": run.seconds + seconds,
        "last_tokens": usage.total_tokens,
        "last_seconds": seconds,
        "asked": 0.0,
    }
    if reply.role != "assistant":
        return fail(
            _with(run, **spent),
            f"malformed_reply: a reply has role {reply.role!r}, not 'assistant'",
        )
    try:
        taken = take(reply, run.definition.limits)
    except TooMuch as error:
        return fail(_with(run, **spent), f"malformed_reply: {error}")
    content = taken.blocks
    uses = [block for block in content if block.type == "tool_use"]
    if not uses and not any(block.type != "text" or block.text.strip() for block in content):
        run = _with(run, **spent)
        if reply.stop_reason in _REFUSALS:
            return _end(run, Stop.REFUSED)
        return _repair(run, "malformed_reply: the model's reply is empty", at_most=1)
    message = remade(_ASSISTANT, content=content, meta=taken.meta)
    spent["messages"], spent["weight"] = run.messages.append(message), run.weight + weight
    if reply.stop_reason in _REFUSALS:
        return _end(_with(run, **spent), Stop.REFUSED)
    if uses:
        return _turn(run, uses, taken.invalid, spent, cut=reply.stop_reason in _CUTS)
    return _words(run, spent, cut=taken.cut or reply.stop_reason in _CUTS)


def called(run: Run, results: Mapping[str, ToolResultContent], *, seconds: float = 0.0) -> Run:
    """The run after ``results`` of its open calls, by tool use id.

    Results may come all at once or in parts; the turn closes with the last of them. The first
    result of a call counts, and what answers no open call is ignored.
    """
    if run.stop is not None or run.messages.last.role != "assistant":
        return run
    uses = run.uses
    known, spent = dict(run.results), run.usage
    for use in uses:
        result = results.get(use.id)
        if result is None or use.id in known:
            continue
        if result.meta and USAGE_KEY in result.meta:  # what agents inside the call used
            spent = spent + Usage.from_json(result.meta[USAGE_KEY])
        known[use.id] = _for(use, result)
    seconds += run.seconds
    if len(known) < len(uses):
        return _with(run, results=known, usage=spent, seconds=seconds)
    return _close_turn(run, uses, known, usage=spent, seconds=seconds)


def asking(run: Run, *, at: float) -> Run:
    """The run, whose open ask left ``at``, in seconds since the epoch."""
    return _with(run, asked=at)


def traced(run: Run, trace: str | None) -> Run:
    """The run as part of ``trace``, a W3C ``traceparent``."""
    return _with(run, trace=trace)


def fail(run: Run, error: str, *, stop: Stop = Stop.FAILED, seconds: float = 0.0) -> Run:
    """The run ended by an error outside of it; ``error`` says which."""
    return _end(_with(run, seconds=run.seconds + seconds), stop, error=cut(clean(error), 4096))


def stop(run: Run, why: Stop) -> Run:
    """The run ended from outside: cancelled, or a limit that the driver watches struck."""
    return _end(run, why)


def close(run: Run, why: Stop) -> Run:
    """The run with its next ask being its last; the model is told, and offered no tools."""
    if run.closing or not run.definition.offered:
        return run
    ending = f"call {ANSWER_TOOL}" if run.definition.output else "answer in words"
    return _notice(
        _with(run, closing=why),
        f"{_LAST_WORDS[why]} This is the last step: {ending} with what is known, and say what "
        "is missing.",
    )


# --- a reply -----------------------------------------------------------------------------------

_REFUSALS = frozenset({"refusal", "content_filter"})
_CUTS = frozenset({"maxTokens", "model_context_window_exceeded"})

_NO_FIT = "The answer does not fit: "

_LAST_WORDS = {
    Stop.STEPS: "The limit of steps is reached.",
    Stop.ROUNDS: "The caller grants no further rounds.",
    Stop.TOOL_CALLS: "The limit of tool calls is reached.",
    Stop.TOKENS: "The limit of tokens is reached.",
    Stop.SECONDS: "The time is up.",
    Stop.ERRORS: "Every tool call has failed for several steps.",
    Stop.STUCK: "The same calls keep giving the same results.",
}


def _turn(
    run: Run,
    uses: list[ToolUseContent],
    invalid: dict[str, str],
    spent: dict[str, Any],
    *,
    cut: bool,
) -> Run:
    """The run after a reply that calls tools: some calls are let through, the rest is answered."""
    limits = run.definition.limits
    results: dict[str, ToolResultContent] = {}
    let_through = 0
    left = None if limits.tool_calls is None else limits.tool_calls - run.tool_calls
    for number, use in enumerate(uses):
        refusal = None
        if cut and number == len(uses) - 1:
            refusal = "Not run: the reply was cut off inside this call. Send it again, shorter."
        elif use.id in invalid:
            refusal = invalid[use.id]
        elif run.definition.output and use.name == ANSWER_TOOL:
            run, results[use.id] = _take_answer(run, use)
            continue
        elif run.closing:
            refusal = "Not run: no more tool calls are allowed."
        elif number >= limits.calls_per_reply:
            refusal = f"Not run: at most {limits.calls_per_reply} calls are taken from one reply."
        elif left is not None and let_through >= left:
            refusal = f"Not run: the limit of {limits.tool_calls} tool calls is reached."
        if refusal is None:
            let_through += 1
        else:
            results[use.id] = _result(use, refusal, error=True)
    run = _with(run, tool_calls=run.tool_calls + let_through, results=results, **spent)
    return run if let_through else _close_turn(run, uses, results)


def _take_answer(run: Run, use: ToolUseContent) -> tuple[Run, ToolResultContent]:
    assert run.definition.output is not None
    if run.answer is not None:
        return run, _result(use, "Ignored: an answer was given already.", error=True)
    try:
        answer = run.definition.output.check(use.input)
    except OutputInvalid as error:
        run = _with(run, repairs=run.repairs + 1)
        return run, _result(use, f"{_NO_FIT}{clean(str(error))}", error=True)
    return _with(run, answer=(answer,)), _result(use, "The answer is taken.")


def _words(run: Run, spent: dict[str, Any], *, cut: bool) -> Run:
    """The run after a reply in words."""
    output = run.definition.output
    if output is None:
        return _with(run, stop=Stop.TRUNCATED if cut else run.closing or Stop.DONE, **spent)
    run = _with(run, **spent)
    try:
        answer = output.find(run.text)
    except OutputInvalid as error:
        if cut:
            return _end(run, Stop.TRUNCATED)
        if run.closing:
            return _end(run, run.closing)
        return _repair(
            run, f"invalid_output: {error}", at_most=run.definition.limits.output_retries
        )
    return _end(_with(run, answer=(answer,)), run.closing or Stop.DONE)


def _repair(run: Run, problem: str, *, at_most: int) -> Run:
    """The run asking once more after a reply that was no use; failed after too many of them."""
    if run.repairs >= at_most:
        return fail(run, problem)
    run = _with(run, repairs=run.repairs + 1)
    if run.messages.last.role == "assistant":
        hint = f"That was no answer yet. Call the tool {ANSWER_TOOL} to answer."
        run = _say(run, [TextContent(text=hint, _meta={NOTICE_KEY: True})])
    return _settle(run)


def _close_turn(
    run: Run,
    uses: Sequence[ToolUseContent],
    results: Mapping[str, ToolResultContent],
    **changes: Any,
) -> Run:
    """The run with the ``results`` of ``uses`` as one user message; there is one for each."""
    ordered = [results[use.id] for use in uses]
    worked = [result for result in ordered if not result.is_error]
    only_bad_answers = not worked and all(use.name == ANSWER_TOOL for use in uses)
    run = _say(
        run,
        ordered,
        results={},
        errors=0 if worked or only_bad_answers else run.errors + 1,
        repairs=0 if worked else run.repairs,
        **changes,
    )
    if run.answer is not None:
        return _end(run, run.closing or Stop.DONE)
    if run.closing:
        return _end(run, run.closing)
    if run.definition.output and run.repairs > run.definition.limits.output_retries:
        return fail(
            run, f"invalid_output: no answer that fits the output type{_why(ordered, uses)}"
        )
    return _settle(run)


def _why(results: Sequence[ToolResultContent], uses: Sequence[ToolUseContent]) -> str:
    """What the model was told of its last answer, for the error that the run ends with."""
    told = [
        block.text
        for use, result in zip(uses, results, strict=True)
        if use.name == ANSWER_TOOL and result.is_error
        for block in result.content
        if block.type == "text"
    ]
    return f": {told[-1].removeprefix(_NO_FIT)}" if told else ""


# --- limits ------------------------------------------------------------------------------------


def _settle(run: Run) -> Run:
    """The run with the limits applied to the ask that comes next: stopped, closing or warned."""
    limits = run.definition.limits
    if limits.steps is not None:
        run = _bounded(run, Stop.STEPS, run.steps, limits.steps, 1)
    if limits.tokens is not None:
        used = run.usage.total_tokens
        run = _bounded(run, Stop.TOKENS, used, limits.tokens, run.last_tokens)
    if limits.seconds is not None:
        run = _bounded(run, Stop.SECONDS, run.seconds, limits.seconds, run.last_seconds)
    if run.stop is not None:
        return run
    if limits.tool_calls is not None and run.tool_calls >= limits.tool_calls and run.steps:
        run = close(run, Stop.TOOL_CALLS)
    if limits.errors is not None and run.errors >= limits.errors:
        run = close(run, Stop.ERRORS)
    repeats = repeats_in(run.messages, run.definition.polls)
    if repeats is Repeats.STUCK:
        run = close(run, Stop.STUCK)
    if run.closing:
        return run
    if limits.steps:
        run = _warned(run, "steps", run.steps, limits.steps)
    if limits.tool_calls:
        run = _warned(run, "tool calls", run.tool_calls, limits.tool_calls)
    if limits.tokens:
        run = _warned(run, "tokens", run.usage.total_tokens, limits.tokens)
    if limits.seconds:
        run = _warned(run, "seconds", run.seconds, limits.seconds)
    if repeats is Repeats.ONCE:
        run = _notice(run, "The same calls gave the same results as before: try something else.")
    return run


def _bounded(run: Run, why: Stop, used: float, limit: float, next_ask: float) -> Run:
    """The run, ended where the limit is used up, or closing where the next ask is the last."""
    if used >= limit:
        return _end(run, why)
    if used + next_ask * 2 > limit and run.stop is None:
        return close(run, why)
    return run


def _warned(run: Run, name: str, used: float, limit: float) -> Run:
    """The run with a word to the model where a limit is four fifths used, once for each."""
    if used * 5 < limit * 4 or name in run.warned:
        return run
    return _notice(
        _with(run, warned=(*run.warned, name)),
        f"{used:.0f} of {limit:.0f} {name} are used: come to an answer soon.",
    )


# --- the end, and messages ---------------------------------------------------------------------


def _end(run: Run, why: Stop, *, error: str | None = None) -> Run:
    """The run, ended; calls that are still open are answered, so that the history is balanced."""
    if run.stop is not None:
        return run
    if run.messages.last.role == "assistant" and (uses := run.uses):
        not_run = f"Not run: the run ended ({why})."
        ordered = [run.results.get(use.id) or _result(use, not_run, error=True) for use in uses]
        run = _say(run, ordered, results={})
    return _with(run, stop=why, error=error)


def _result(use: ToolUseContent, text: str, *, error: bool = False) -> ToolResultContent:
    return ToolResultContent(
        tool_use_id=use.id, content=[TextContent(text=text)], is_error=error or None
    )


def _for(use: ToolUseContent, result: ToolResultContent) -> ToolResultContent:
    if result.tool_use_id == use.id:
        return result
    return result.model_copy(update={"tool_use_id": use.id})


def _with(run: Run, **changes: Any) -> Run:
    """``dataclasses.replace`` at a tenth of its cost; every step makes a handful of runs."""
    new = object.__new__(Run)
    _put_values(new, run.__dict__ | changes)
    return new


_put_values: Any = vars(Run)["__dict__"].__set__


_BLANK = Run(id="", definition=Definition(name=""), messages=Transcript())
_USER = SamplingMessage(role="user", content=[])
_ASSISTANT = SamplingMessage(role="assistant", content=[])


def _say(run: Run, content: Sequence[SamplingMessageContentBlock], **changes: Any) -> Run:
    messages = run.messages.append(remade(_USER, content=list(content)))
    return _with(run, messages=messages, weight=run.weight + _weigh(content), **changes)


def _notice(run: Run, text: str) -> Run:
    """The run with a word to the model inside its last tool result.

    A message that holds a result may hold nothing else, so the notice is one more block of the
    last result. Where the last message is no result, there is nothing to say it in.
    """
    message = run.messages.last
    last = message.content_as_list[-1]
    if last.type != "tool_result":
        return run
    notice = TextContent(text=f"[{text}]", _meta={NOTICE_KEY: True})
    grown = last.model_copy(update={"content": [*last.content, notice]})
    content = [*message.content_as_list[:-1], grown]
    return _with(
        run,
        messages=run.messages.replace_last(message.model_copy(update={"content": content})),
        weight=run.weight + len(text),
    )


def _one_ask(usage: Usage) -> Usage:
    return usage if usage.asks == 1 else usage._replace(asks=1)


def _estimate(read: int, written: int) -> Usage:
    """Tokens by the rule of thumb of four bytes each; said to be an estimate."""
    return Usage(
        asks=1,
        input_tokens=read // 4 + 1,
        output_tokens=written // 4 + 1,
        estimated="bytes/4",
    )


_MEDIA_WEIGHT = 6000


def _weigh(content: Sequence[SamplingMessageContentBlock]) -> int:
    weight = 0
    for block in content:
        if block.type == "text":
            weight += len(block.text)
        elif block.type == "tool_use":
            weight += 40
            for value in block.input.values():
                weight += len(value) if isinstance(value, str) else 8
        elif block.type == "tool_result":
            for part in block.content:
                weight += len(part.text) if part.type == "text" else _MEDIA_WEIGHT
        else:
            weight += _MEDIA_WEIGHT
    return weight
