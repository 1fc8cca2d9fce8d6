"""Agents, what their runs give, and how a function runs several of them."""

from __future__ import annotations

import inspect
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar, cast, overload

import anyio
from mcp_types import CallToolResult, ModelPreferences, SamplingMessage, TextContent
from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python

from agentloop.definition import Definition
from agentloop.errors import DefinitionError, RunStopped, StateError, ToolError
from agentloop.events import RunEnded, RunStarted, RunSuspended, Sink, tell
from agentloop.journal import Journal
from agentloop.loop import Driver
from agentloop.output import Output
from agentloop.place import HERE, MAX_NESTING, Host, Place, User
from agentloop.provider import Provider
from agentloop.run import Prompt, Run, Stop, start, stop, traced
from agentloop.tools import Tool, Toolbox, tool
from agentloop.trace import traceparent
from agentloop.transcript_file import save
from agentloop.usage import Limits, Usage

T = TypeVar("T")
OutputT = TypeVar("OutputT")


class RunResult(Generic[OutputT]):
    """What a run gave: an answer or not, and everything that happened, whatever the stop."""

    def __init__(self, run: Run, journal: Journal | None = None, key: str = "0") -> None:
        """``journal`` has seen what happened in the run, which was at ``key``."""
        self.run = run
        self._journal = journal
        self._key = key

    @property
    def output(self) -> OutputT:
        """The answer: text, or an instance of the agent's output type.

        Raises :class:`RunStopped` where the agent has an output type and the run ended without an
        answer of it. A run that answers in words always has an output, if only an empty one.
        """
        output = self.run.definition.output
        if output is None:
            return cast("OutputT", self.text)
        if self.run.answer is None:
            raise RunStopped(f"{self.story()}: there is no {_name_of(output.type)}", self)
        return output.revive(self.run.answer[0])

    @property
    def text(self) -> str:
        """The text of the model's last message."""
        return self.run.text

    @property
    def stop(self) -> Stop:
        """How the run ended."""
        assert self.run.stop is not None
        return self.run.stop

    @property
    def error(self) -> str | None:
        """What failed, where the stop is ``failed`` or ``denied``; begins with a stable code."""
        return self.run.error

    @property
    def messages(self) -> Sequence[SamplingMessage]:
        """The whole transcript; every tool use in it has its result."""
        return self.run.messages

    @property
    def usage(self) -> Usage:
        """What the run used, the runs inside of it included."""
        return self.run.usage

    @property
    def steps(self) -> int:
        """How often the model was asked."""
        return self.run.steps

    def raise_for_stop(self) -> RunResult[OutputT]:
        """This result, if the run is done. Raises :class:`RunStopped` for any other stop."""
        if self.stop is not Stop.DONE:
            raise RunStopped(self.story(), self)
        return self

    def to_json(self) -> dict[str, Any]:
        """The result as JSON, as ``agentloop run --json`` prints it."""
        run = self.run
        answer = self.text if run.definition.output is None else (run.answer or (None,))[0]
        return {
            "agent": run.definition.name,
            "output": answer,
            "text": run.text,
            "stop": str(self.stop),
            "error": run.error,
            "steps": run.steps,
            "tool_calls": run.tool_calls,
            "seconds": round(run.seconds, 3),
            "usage": {"total_tokens": run.usage.total_tokens, **run.usage.to_json()},
            "run_id": run.id,
            "messages": run.messages.to_json(),
        }

    def save(self, file: str | Path) -> None:
        """Write the transcript to ``file``, for ``agentloop show`` and programs to read.

        Messages, usage and the stop, and when each ask and tool call began and ended, runs inside
        of this one included. Of a run that was resumed, the times are those since then.
        """
        moments = self._journal.about(self._key) if self._journal else []
        save(file, self.run, moments, key=self._key)

    def story(self) -> str:
        """How the run went, in one line."""
        run = self.run
        after = f"after {_count(run.steps, 'step')} and {_count(run.tool_calls, 'tool call')}"
        error = f" ({run.error})" if run.error else ""
        return f"agent {run.definition.name!r} stopped with {str(run.stop)!r} {after}{error}"

    def __repr__(self) -> str:
        return f"RunResult({self.story()})"


class Agent(Generic[OutputT]):
    """A name, instructions, tools, an output type and limits. Holds no state: run it at will."""

    @overload
    def __init__(
        self: Agent[str],
        name: str,
        instructions: str | None = None,
        *,
        tools: Sequence[Tool | Callable[..., Any]] = (),
        limits: Limits | None = None,
        provider: Provider | None = None,
        description: str | None = None,
        max_tokens: int = 4096,
        temperature: float | None = None,
        stop_sequences: Sequence[str] = (),
        model_preferences: ModelPreferences | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        name: str,
        instructions: str | None = None,
        *,
        output: type[OutputT],
        tools: Sequence[Tool | Callable[..., Any]] = (),
        limits: Limits | None = None,
        provider: Provider | None = None,
        description: str | None = None,
        max_tokens: int = 4096,
        temperature: float | None = None,
        stop_sequences: Sequence[str] = (),
        model_preferences: ModelPreferences | None = None,
    ) -> None: ...
    def __init__(
        self,
        name: str,
        instructions: str | None = None,
        *,
        output: Any = str,
        tools: Sequence[Tool | Callable[..., Any]] = (),
        limits: Limits | None = None,
        provider: Provider | None = None,
        description: str | None = None,
        max_tokens: int = 4096,
        temperature: float | None = None,
        stop_sequences: Sequence[str] = (),
        model_preferences: ModelPreferences | None = None,
    ) -> None:
        """``provider`` answers where the caller cannot; ``description`` tells other models what
        the agent is good for. Raises :class:`DefinitionError` for what cannot work."""
        self.provider = provider
        self.description = description or f"Ask the agent {name}."
        self._toolbox = Toolbox(tools)
        if type(max_tokens) is not int or max_tokens < 1:
            raise DefinitionError(f"agent {name!r}: max_tokens={max_tokens!r} is not 1 or more")
        self.definition = Definition(
            name=name,
            instructions=instructions,
            tools=tuple(item.offer() for item in self._toolbox.values()),
            polls=frozenset(item.name for item in self._toolbox.values() if item.poll),
            output=None if output is str or output is None else Output(output),
            limits=limits or Limits(),
            max_tokens=max_tokens,
            temperature=temperature,
            stop_sequences=tuple(stop_sequences),
            model_preferences=model_preferences,
        )

    @property
    def name(self) -> str:
        return self.definition.name

    @property
    def tools(self) -> Toolbox:
        """The tools, by name."""
        return self._toolbox

    async def run(
        self,
        prompt: Prompt,
        *,
        provider: Provider | None = None,
        limits: Limits | None = None,
        history: Sequence[SamplingMessage] = (),
        on_event: Sink | None = None,
        user: User | None = None,
    ) -> RunResult[OutputT]:
        """Run the agent on ``prompt``, after the messages of ``history``, to its end.

        Who answers: ``provider``; else the client of the MCP call that is being served; else the
        provider of the run that this one is inside of; else the agent's own. ``user`` answers for
        the person where tools ask for approval or for values. Raises
        :class:`DefinitionError` or :class:`CapabilityError` where that leaves nobody, and nothing
        for what happens in the run: that is in the result.
        """
        definition = self._limited(limits)
        place = _enter(provider, on_event, user)
        host = place.host
        token = HERE.set(place)
        try:
            if place.nesting > MAX_NESTING:
                raise ToolError(f"Not run: more than {MAX_NESTING} agents inside one another.")
            host.check(self._toolbox.values())
            answers = host.provider(definition, self.provider)
            run = start(
                definition,
                prompt,
                id=secrets.token_hex(8),
                history=history,
                began=time.time(),
            )
            if (kept := host.load(place.key, definition)) is not None:
                _check_same(run, kept, place)
                run = kept
            if run.stop is None:
                run = await self._drive(run, answers, place, resumed=kept is not None)
            assert place.parent is not None
            place.parent.spend(run.usage)
            return RunResult(run, host.sink, place.key)
        finally:
            HERE.reset(token)
            place.leave()

    async def _drive(self, run: Run, provider: Provider, place: Place, *, resumed: bool) -> Run:
        latest = run

        def keep(run: Run) -> None:
            nonlocal latest
            latest = run
            place.host.keep(place.key, run)

        sink = place.host.sink
        tell(sink, RunStarted(run, place.key, resumed, place.within))
        # Whoever opens spans has opened one by now: where the run goes on elsewhere, it joins it.
        if run.trace is None and (trace := traceparent()):
            run = traced(run, trace)
        keep(run)
        driver = Driver(provider, self._toolbox, place, sink, keep)
        try:
            run = await driver.drive(run, resumed=resumed)
        except BaseException:
            if place.host.suspends:
                tell(sink, RunSuspended(latest, place.key))
            else:
                tell(sink, RunEnded(stop(latest, Stop.CANCELLED), place.key))
            raise
        tell(sink, RunEnded(run, place.key))
        return run

    def as_tool(
        self,
        *,
        name: str | None = None,
        description: str | None = None,
        timeout: float | None = None,
        exclusive: bool = False,
    ) -> Tool:
        """The agent as a tool of another one. What its runs use counts for the other's limits."""

        @tool(
            name=name or self.name,
            description=description or self.description,
            timeout=timeout,
            exclusive=exclusive,
        )
        async def ask(prompt: str) -> CallToolResult:
            result = await self.run(prompt)
            answer = result.to_json()["output"]
            text = answer if isinstance(answer, str) else _write(answer)
            if result.stop is not Stop.DONE:
                text = f"[{result.story()}]\n{text if answer is not None else result.text}"
            failed = answer is None or result.stop in (Stop.FAILED, Stop.DENIED)
            return CallToolResult(content=[TextContent(text=text)], is_error=failed)

        return ask

    def _limited(self, limits: Limits | None) -> Definition:
        if limits is None or limits == self.definition.limits:
            return self.definition
        changed = object.__new__(Definition)
        changed.__dict__.update(self.definition.__dict__, limits=limits)
        return changed

    def __repr__(self) -> str:
        return f"Agent({self.name!r}, tools={list(self._toolbox)})"


def _enter(provider: Provider | None, sink: Sink | None, user: User | None) -> Place:
    """The place of a run that begins here."""
    here = HERE.get()
    if here is None:
        return Place("", None, Host(provider, sink, user)).below(nesting=1)
    if provider is None and sink is None and user is None:
        return here.below(nesting=1)
    return here.below(host=_Overriding(here.host, provider, sink, user), nesting=1)


def _check_same(asked: Run, kept: Run, place: Place) -> None:
    """Raises :class:`StateError` where ``kept`` was asked something else than ``asked`` is."""
    beginning = kept.messages[: len(asked.messages)]
    if any(a.content != b.content for a, b in zip(asked.messages, beginning, strict=True)):
        raise StateError(
            f"run {place.key} of agent {asked.definition.name!r} was asked something else when it "
            "was suspended: the code has changed, or what it does between runs is not the same "
            "each time (use once() for it); start the call again"
        )


class _Overriding(Host):
    """Another host with its provider or its sink replaced."""

    def __init__(
        self, host: Host, provider: Provider | None, sink: Sink | None, user: User | None
    ) -> None:
        super().__init__(provider, Journal(sink, above=host.sink) if sink else host.sink, user)
        if user is None:
            self.ask_user = host.ask_user
        self._host = host
        self.suspends = host.suspends
        self.load = host.load
        self.keep = host.keep
        self.value = host.value
        self.keep_value = host.keep_value
        self.check = host.check
        self.guard = host.guard
        self.before_ask = host.before_ask
        if provider is None or getattr(provider, "asks_caller", False):
            self.room = host.room

    def provider(self, definition: Definition, own: Provider | None) -> Provider:
        return self._provider or self._host.provider(definition, own)


async def gather(*runs: Awaitable[T]) -> list[T]:
    """Await ``runs`` at the same time and give their results in order.

    Inside a served function, the asks of all of them leave in the same round. If one raises, the
    others are cancelled and its exception is raised as it is.
    """
    results: list[Any] = [None] * len(runs)
    here = HERE.get()
    branches = [here.below() if here else None for _ in runs]

    async def branch(number: int, run: Awaitable[T]) -> None:
        place = branches[number]
        HERE.set(place)
        try:
            results[number] = await run
        finally:
            if place:
                place.leave()

    try:
        async with anyio.create_task_group() as group:
            for number, run in enumerate(runs):
                group.start_soon(branch, number, run)
    except BaseExceptionGroup as errors:
        raise _first(errors) from None
    return results


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error  # pyright: ignore[reportUnknownArgumentType]


async def once(name: str, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call ``fn`` once in a served function, however often the function is entered again.

    Gives the JSON form of what ``fn`` (sync or async) returned, the first time and every time.
    ``name`` must be unique within its branch of the function. Raises :class:`DefinitionError`
    where it is not, or where the value has no JSON form. Where ``fn`` runs agents, it is entered
    again, too, until it has given its value. Outside of served functions it is a plain call.
    """
    here = HERE.get()
    if here is None:
        return _as_json(name, await _result_of(fn, args, kwargs))
    here.name(name)
    key = f"{here.key}#{name}"
    if (kept := here.host.value(key)) is not None:
        return kept[0]
    place = here.below(f"#{name}")
    token = HERE.set(place)
    try:
        value = _as_json(name, await _result_of(fn, args, kwargs))
        here.host.keep_value(key, value)
        return value
    finally:
        HERE.reset(token)
        place.leave()


async def _result_of(fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    value = fn(*args, **kwargs)
    return await value if inspect.isawaitable(value) else value


def _as_json(name: str, value: Any) -> Any:
    try:
        return to_jsonable_python(value, inf_nan_mode="constants")
    except (ValueError, TypeError) as error:
        raise DefinitionError(
            f"once({name!r}): a {type(value).__name__} has no JSON form, so it cannot be kept"
        ) from error


def _write(value: Any) -> str:
    return TypeAdapter(Any).dump_json(value).decode()


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _name_of(type_: Any) -> str:
    return getattr(type_, "__name__", str(type_))


__all__ = ["Agent", "RunResult", "gather", "once"]
