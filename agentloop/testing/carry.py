"""One run of an agent, over a carrier of choice."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from mcp_types import CreateMessageRequestParams

from agentloop.agent import Agent
from agentloop.errors import AgentLoopError, DefinitionError, DeniedError, ProviderError
from agentloop.events import Event, RunEnded, Sink, all_of, tell
from agentloop.machine import fail
from agentloop.meta import Reply
from agentloop.place import User
from agentloop.prompt import Prompt
from agentloop.provider import Provider
from agentloop.result import RunResult
from agentloop.run import Run, Stop

Carrier = Literal["direct", "push", "rounds", "task"]
"""How asks travel: straight to the provider, or through a real MCP server and client."""


async def carry(
    agent: Agent[Any],
    prompt: Prompt,
    *,
    provider: Provider,
    carrier: Carrier = "direct",
    on_event: Sink | None = None,
    user: User | None = None,
) -> RunResult[Any]:
    """Run ``agent`` on ``prompt``.

    Over the others than ``direct`` the agent is a tool of a real MCP server, and ``provider`` the
    model of a real MCP client, both in this process. Raises :class:`DefinitionError` there for a
    prompt that is more than a text, and what ``Agent.run`` raises.
    """
    if carrier == "direct":
        return await agent.run(prompt, provider=provider, on_event=on_event, user=user)
    if not isinstance(prompt, str):
        raise DefinitionError(f"over {carrier!r} a prompt is a text")
    outermost = _Outermost()
    listener = all_of(outermost, on_event) if on_event else outermost
    model = _Model(provider)
    problem, stop = await _call(agent, prompt, model, carrier, listener, user)
    run = outermost.run
    if run is None:
        raise AgentLoopError(f"the call never came to a run: {problem}")
    if run.stop is None:
        # A client that gives up tells nobody: the run is where the server saw it last.
        run = fail(run, problem, stop=stop)
        tell(listener, RunEnded(run, outermost.key))
    if model.error and run.stop in (Stop.FAILED, Stop.DENIED):
        run = dataclasses.replace(run, error=f"{model.error.code}: {model.error}")
    return RunResult(run)


class _Outermost:
    """An event sink that knows the outermost run as it was last heard of."""

    key = ""
    run: Run | None = None

    def __call__(self, event: Event) -> None:
        self.key = self.key or event.key
        if event.key == self.key:
            self.run = event.run


class _Model:
    """A provider whose last error is kept: servers are told little of it, people want it all."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self.name = provider.name
        self.error: ProviderError | None = None

    async def sample(self, request: CreateMessageRequestParams) -> Reply:
        self.error = None
        try:
            return await self._provider.sample(request)
        except ProviderError as error:
            self.error = error
            raise


async def _call(
    agent: Agent[Any],
    prompt: str,
    model: _Model,
    carrier: Literal["push", "rounds", "task"],
    listener: Sink,
    user: User | None,
) -> tuple[str, Stop]:
    """Serve the agent and call it; what this says is of use only where the run did not end."""
    from mcp import InputRequiredRoundsExceededError, MCPError
    from mcp.server import MCPServer

    from agentloop.mcp import Tasks, mount
    from agentloop.mcp.push import refusal
    from agentloop.store import MemoryStore
    from agentloop.testing.client import MockClient

    tasks = Tasks(MemoryStore())
    server: MCPServer[Any] = MCPServer(
        "agentloop", log_level="ERROR", extensions=[tasks], lifespan=tasks.lifespan()
    )
    mount(server, agent, on_event=listener, task="always")
    async with MockClient(server, model, carrier=carrier, user=user) as client:
        try:
            result = await client.call_tool(agent.name, {"prompt": prompt})
        except MCPError as error:
            denied = isinstance(refusal(error), DeniedError)
            return error.message, Stop.DENIED if denied else Stop.FAILED
        except InputRequiredRoundsExceededError as error:
            return f"the client gave up after {error.max_rounds} rounds", Stop.ROUNDS
    said = [block.text for block in result.content if block.type == "text"]
    return " ".join(said), Stop.FAILED
