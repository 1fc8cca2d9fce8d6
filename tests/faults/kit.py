"""How a fault is played: an agent on every carrier, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from mcp.server.lowlevel import Server
from mcp_types import (
    CreateMessageRequestParams,
    ElicitRequestParams,
    ElicitResult,
    ErrorData,
    SamplingMessage,
)
from pydantic import TypeAdapter

from agentloop import Agent, Limits
from agentloop.events import Event, RunEnded
from agentloop.mcp import mount, seal
from agentloop.mcp.callback import sampling_callback
from agentloop.run import Run, Stop
from agentloop.store import MemoryStore
from agentloop.transcript import Transcript
from agentloop_providers import ScriptedProvider
from tests.faults.table import CARRIERS, CLIENTS, IN_ROUNDS
from tests.faults.wire import JSON, SAMPLING, Answer, Line, Refuse, Silence, Wire, connected

PROVIDER, PUSH, ROUNDS, STORED = CARRIERS
each = pytest.mark.parametrize("carrier", CARRIERS)
each_client = pytest.mark.parametrize("carrier", CLIENTS)
in_rounds = pytest.mark.parametrize("carrier", IN_ROUNDS)

GO = {"prompt": "Go"}
"""What a mounted agent is called with."""


def says(*blocks: JSON) -> JSON:
    """A sampling result as a client writes it."""
    return {"role": "assistant", "model": "m", "content": list(blocks)}


def text(words: str) -> JSON:
    return {"type": "text", "text": words}


def calls(name: str, id: str = "c", **arguments: Any) -> JSON:
    """A tool use."""
    return {"type": "tool_use", "id": id, "name": name, "input": arguments}


@dataclass(frozen=True)
class Raw:
    """A line of a script: a sampling result as a client writes it, of whatever shape."""

    result: Any


@dataclass
class Played:
    """What came of a call."""

    runs: dict[str, Run] = field(default_factory=dict)
    """The runs that ended, by their keys."""
    requests: list[CreateMessageRequestParams] = field(default_factory=list)
    result: JSON | None = None
    """What the client got of its tool call, on carriers with a client."""
    wire: Wire | None = None

    @property
    def run(self) -> Run:
        return self.runs["0"]

    @property
    def stop(self) -> Stop | None:
        return self.run.stop

    @property
    def error(self) -> str:
        """The stable code of what failed."""
        return (self.run.error or "").partition(":")[0]

    @property
    def results(self) -> list[tuple[str, bool]]:
        """Text and error flag of each tool result, in their order."""
        return [
            (
                "".join(part.text for part in block.content if part.type == "text"),
                bool(block.is_error),
            )
            for message in self.run.messages
            for block in message.content_as_list
            if block.type == "tool_result"
        ]


def check_history(messages: Sequence[SamplingMessage]) -> None:
    """SEP-1577: every tool use has one result, right after it; and all of it can be written."""
    assert Transcript(messages).imbalance() is None
    data = [m.model_dump(mode="json", by_alias=True, exclude_none=True) for m in messages]
    json.dumps(data, ensure_ascii=False, allow_nan=False).encode()


def check_played(played: Played) -> None:
    """What must hold whatever went wrong."""
    for request in played.requests:
        check_history(request.messages)
    for run in played.runs.values():
        check_history(list(run.messages))
        assert run.stop is not None


class Model:
    """A scripted model that a client or a run asks, with lines that may be :class:`Raw`."""

    name = "model"

    def __init__(self, *script: Any, repeat: bool = False) -> None:
        self.requests: list[CreateMessageRequestParams] = []
        self._script = list(script)
        self._repeat = repeat
        self._said = 0
        self._line: Any = None
        self._speaker = ScriptedProvider(lambda _: self._line, repeat=True)

    async def sample(self, request: CreateMessageRequestParams) -> Any:
        self.requests.append(request)
        self._next()
        return await self._speaker.sample(request)

    async def answer(self, method: str, params: JSON) -> Answer:
        """The answer of a client whose model this is."""
        assert method == "sampling/createMessage", method
        request = CreateMessageRequestParams.model_validate(params)
        self.requests.append(request)
        self._next()
        if isinstance(self._line, Raw):
            return self._line.result
        if isinstance(self._line, Refuse | Line) or self._line is Silence:
            return self._line
        said = await sampling_callback(self._speaker)(None, request)  # type: ignore[arg-type]
        if isinstance(said, ErrorData):
            return Refuse(said.code, said.message)
        return said.model_dump(mode="json", by_alias=True, exclude_none=True)

    def _next(self) -> None:
        if not self._repeat:
            assert self._said < len(self._script), "one more ask than there are lines"
        self._line = self._script[self._said % len(self._script)]
        self._said += 1


async def play(
    carrier: str,
    agent: Agent[Any],
    *script: Any,
    repeat: bool = False,
    prompt: str = "Go",
    limits: Limits | None = None,
    capabilities: JSON = SAMPLING,
    on_event: Callable[[Event], None] | None = None,
    user: Any = None,
    rounds: int = 10,
) -> Played:
    """Run ``agent`` on ``carrier`` with a model that says ``script``; what came of it.

    Every history that was sent, and every one that was kept, has been checked.
    """
    model = Model(*script, repeat=repeat)
    played = Played(requests=model.requests)

    def note(event: Event) -> None:
        if isinstance(event, RunEnded):
            played.runs[event.key] = event.run
        if on_event:
            on_event(event)

    if limits is not None:
        agent = limited(agent, limits)
    if carrier == PROVIDER:
        await agent.run(prompt, provider=model, on_event=note, user=user)
    else:
        server = serving(agent, carrier, on_event=note)

        async def answers(method: str, params: JSON) -> Answer:
            if method == "elicitation/create":
                return await asked_user(user, params)
            return await model.answer(method, params)

        modern = carrier != PUSH
        async with connected(
            server, answers, modern=modern, capabilities=capabilities
        ) as played.wire:
            played.result = await played.wire.call(agent.name, {"prompt": prompt}, rounds=rounds)
    check_played(played)
    return played


async def asked_user(user: Any, params: JSON) -> Answer:
    """What a client answers whose user is ``user``; who gives :class:`Raw` answers like that."""
    parsed: Any = TypeAdapter(ElicitRequestParams).validate_python(params, by_name=False)
    said = await user(parsed)
    if isinstance(said, ElicitResult):
        return said.model_dump(mode="json", by_alias=True, exclude_none=True)
    return said.result if isinstance(said, Raw) else said


def limited(agent: Agent[Any], limits: Limits) -> Agent[Any]:
    """``agent`` with other limits."""
    definition = agent.definition
    return Agent(
        agent.name,
        definition.instructions,
        output=definition.output.type if definition.output else str,
        tools=list(agent.tools.values()),
        limits=limits,
        provider=agent.provider,
    )


def serving(agent: Agent[Any], carrier: str, **options: Any) -> Server[Any]:
    """A server that offers ``agent``; with a store for the carrier that is called so."""
    server: Server[Any] = Server("faults")
    if security := options.pop("security", None):
        seal(server, security)
    if carrier == STORED:
        options.setdefault("store", MemoryStore())
    mount(server, agent, **options)
    return server
