"""One run of an agent, over the carrier that was asked for."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

from mcp_types import CreateMessageRequestParams

from agentloop.agent import Agent
from agentloop.cli._progress import Progress
from agentloop.errors import AgentLoopError, DeniedError, ProviderError
from agentloop.events import Sink, all_of
from agentloop.meta import Reply
from agentloop.provider import Provider
from agentloop.result import RunResult
from agentloop.run import Stop, fail

if TYPE_CHECKING:
    from agentloop.testing import MockClient

Carrier = Literal["direct", "push", "rounds"]


async def carry(
    agent: Agent[Any],
    prompt: str,
    *,
    provider: Provider,
    carrier: Carrier,
    progress: Progress,
    sink: Sink | None = None,
) -> RunResult[Any]:
    """Run ``agent`` on ``prompt``; ``sink`` listens beside ``progress``.

    Over ``push`` and ``rounds`` the agent is a tool of a real MCP server, and ``provider`` the
    model of a real MCP client, both in this process.
    """
    listener = all_of(progress, sink) if sink else progress
    if carrier == "direct":
        return await agent.run(prompt, provider=provider, on_event=listener)

    from mcp.server import MCPServer

    from agentloop.mcp import mount
    from agentloop.testing import MockClient

    server: MCPServer[Any] = MCPServer("agentloop", log_level="ERROR")
    mount(server, agent, on_event=listener)
    model = _Model(provider)
    async with MockClient(server, model, carrier=carrier) as client:
        problem, stop = await _call(client, agent.name, prompt)
    run = progress.latest
    if run is None:
        raise AgentLoopError(f"the call never came to a run: {problem}")
    if run.stop is None:
        # A client that gives up tells nobody: the run is where the server saw it last.
        run = fail(run, problem, stop=stop)
    if model.error and run.stop in (Stop.FAILED, Stop.DENIED):
        run = dataclasses.replace(run, error=f"{model.error.code}: {model.error}")
    return RunResult(run)


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


async def _call(client: MockClient, name: str, prompt: str) -> tuple[str, Stop]:
    """Call the agent's tool; what it says is of use only where the run did not end."""
    from mcp import InputRequiredRoundsExceededError, MCPError

    from agentloop.mcp.push import refusal

    try:
        result = await client.call_tool(name, {"prompt": prompt})
    except MCPError as error:
        denied = isinstance(refusal(error), DeniedError)
        return error.message, Stop.DENIED if denied else Stop.FAILED
    except InputRequiredRoundsExceededError as error:
        return f"the client gave up after {error.max_rounds} rounds", Stop.ROUNDS
    said = [block.text for block in result.content if block.type == "text"]
    return " ".join(said), Stop.FAILED
