"""Agents: who runs, with which tools, towards which answer, within which limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Generic, TypeVar, overload

from mcp_types import CallToolResult, ModelPreferences, SamplingMessage, TextContent
from pydantic import TypeAdapter, ValidationError

from agentloop.definition import Definition
from agentloop.errors import DefinitionError, ToolError
from agentloop.events import Sink
from agentloop.journal import Journal
from agentloop.loop import Driver
from agentloop.machine import start
from agentloop.output import Output, explain
from agentloop.place import HERE, MAX_NESTING, Host, Place, User
from agentloop.prompt import Prompt
from agentloop.provider import Provider, check_provider
from agentloop.result import RunResult
from agentloop.run import Stop
from agentloop.tools import Tool, Toolbox, tool
from agentloop.usage import Limits

T = TypeVar("T")
OutputT = TypeVar("OutputT")


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
        check_provider(provider)
        _check_limits(limits)
        if not isinstance(name, str) or not name:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise DefinitionError(f"an agent's name is a text, not {name!r}")
        for word, text in (("instructions", instructions), ("description", description)):
            if text is not None and not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise DefinitionError(f"agent {name!r}: {word}= takes a text, not {text!r}")
        if isinstance(stop_sequences, str) or not hasattr(stop_sequences, "__iter__"):
            raise DefinitionError(f"agent {name!r}: stop_sequences= takes a list: write [...]")
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
        try:
            self.definition.request  # noqa: B018  it is made once, and checks what it is made of
        except ValidationError as error:
            raise DefinitionError(f"agent {name!r}: {explain(error, None)}") from None

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
        resume: str | None = None,
        on_event: Sink | None = None,
        user: User | None = None,
    ) -> RunResult[OutputT]:
        """Run the agent on ``prompt``, after the messages of ``history``, to its end.

        ``resume`` is the handle of an earlier run that ended on a limit (:attr:`RunResult.handle`):
        its messages come before, and this run has limits of its own.

        Who answers: ``provider``; else the client of the MCP call that is being served; else the
        provider of the run that this one is inside of; else the agent's own. ``user`` answers for
        the person where tools ask for approval or for values. Raises
        :class:`DefinitionError` or :class:`CapabilityError` where that leaves nobody, and nothing
        for what happens in the run: that is in the result.
        """
        check_provider(provider)
        _check_limits(limits)
        if on_event is not None and not callable(on_event):
            raise DefinitionError(f"on_event={on_event!r} is no function that takes an event")
        definition = self.definition.limited(limits)
        place = _enter(provider, on_event, user)
        host = place.host
        token = HERE.set(place)
        try:
            if place.nesting > MAX_NESTING:
                raise ToolError(f"Not run: more than {MAX_NESTING} agents inside one another.")
            host.check(self._toolbox.values())
            if host.suspends:
                await host.admit()
            driver, resumed = await self._begin(place, definition, prompt, history, resume)
            run = driver.latest if driver.latest.stop else await driver.drive(resumed=resumed)
            handle = None
            if run.stop is not None and run.stop.is_limit and place.nesting == 1:
                handle = await host.put_by(place.key, run)
            return RunResult(run, host.journal, place.key, handle)
        finally:
            HERE.reset(token)
            place.leave()

    async def _begin(
        self,
        place: Place,
        definition: Definition,
        prompt: Prompt,
        history: Sequence[SamplingMessage],
        resume: str | None,
    ) -> tuple[Driver, bool]:
        """What drives a run that begins or goes on at ``place``, and whether it goes on."""
        host = place.host
        place.own = place.own or self.provider
        provider = host.provider(definition, place.own)
        if resume is not None:
            history = await host.take_up(resume, self.definition)
        id, began = host.begin(place)
        run = start(definition, prompt, id=id, history=history, began=began)
        kept = host.resume(place, run) or await host.delegate(place, run)
        if kept is not None and kept.stop is not None:
            place.charge(kept.usage)
        return Driver(provider, self._toolbox, place, host.journal, kept or run), kept is not None

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

        return replace(ask, agent=self)

    def __repr__(self) -> str:
        return f"Agent({self.name!r}, tools={list(self._toolbox)})"


def _check_limits(limits: Any) -> None:
    if limits is not None and not isinstance(limits, Limits):
        raise DefinitionError(f"limits={limits!r}: write it as limits=Limits(steps=...)")


def _enter(provider: Provider | None, sink: Sink | None, user: User | None) -> Place:
    """The place of a run that begins here."""
    here = HERE.get()
    if here is None:
        return Place("0", None, Host(provider, sink, user), nesting=1)
    if provider is None and sink is None and user is None:
        return here.below(nesting=1)
    return here.below(host=_Overriding(here.host, provider, sink, user), nesting=1)


class _Overriding(Host):
    """Another host with its provider or its sink replaced."""

    def __init__(
        self, host: Host, provider: Provider | None, sink: Sink | None, user: User | None
    ) -> None:
        super().__init__(
            provider, Journal(sink, above=host.journal) if sink else host.journal, user
        )
        if user is None:
            self.ask_user = host.ask_user
        self._host = host
        self.suspends = host.suspends
        self.admit = host.admit
        self.is_left = host.is_left
        self.begin = host.begin
        self.clock = host.clock
        self.resume = host.resume
        self.keep = host.keep
        self.value = host.value
        self.keep_value = host.keep_value
        self.check = host.check
        self.call, self.wraps_calls = host.call, host.wraps_calls
        self.guard = host.guard
        self.before_ask = host.before_ask
        self.put_by = host.put_by
        self.take_up = host.take_up
        if provider is None or getattr(provider, "asks_caller", False):
            self.room = host.room

    def provider(self, definition: Definition, own: Provider | None) -> Provider:
        return self._provider or self._host.provider(definition, own)


def _write(value: Any) -> str:
    return TypeAdapter(Any).dump_json(value).decode()
