"""An agentloop agent as an agent and as a solver of Inspect."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, cast

from inspect_ai.agent import Agent as InspectAgent
from inspect_ai.agent import AgentState
from inspect_ai.agent import agent as inspect_agent
from inspect_ai.agent import as_solver as inspect_as_solver
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    ModelOutput,
    StopReason,
)
from inspect_ai.solver import Solver
from inspect_ai.util import Limit, LimitExceededError
from mcp_types import SamplingMessage, TextContent

from agentloop.agent import Agent
from agentloop.errors import DefinitionError
from agentloop.evals.inspect_ai.log import Log
from agentloop.evals.inspect_ai.messages import GO_ON, to_sampling
from agentloop.evals.inspect_ai.provider import InspectProvider
from agentloop.events import Event
from agentloop.place import User
from agentloop.prompt import Prompt
from agentloop.run import Run, Stop
from agentloop_providers._names import Fitted

_STOPS: dict[Stop | None, StopReason] = {
    Stop.TRUNCATED: "max_tokens",
    Stop.REFUSED: "content_filter",
}


def as_solver(
    agent: Agent[Any], *, limits: list[Limit] | None = None, user: User | None = None
) -> Solver:
    """``agent`` as a solver: ``Task(dataset=..., solver=as_solver(agent), scorer=...)``.

    ``limits`` are Inspect's, for this agent. See :func:`as_agent`.
    """
    return inspect_as_solver(as_agent(agent, user=user), limits=limits or [])


def as_agent(agent: Agent[Any], *, user: User | None = None) -> InspectAgent:
    """``agent`` as an agent of Inspect, for ``handoff``, ``as_tool`` and ``run`` of Inspect too.

    It runs unchanged, with the model of the task, and goes on from the task's conversation. Its
    steps, its tool calls and the agents inside of it are in the log. Inspect's limits and errors
    end the sample, as they end it with any agent; messages up to there are kept. Time is Inspect's
    to limit, as a run may wait for its turn with a model; the agent's other limits hold too. The
    output is the agent's answer; a typed one is JSON.

    Approval policies of Inspect do not reach the agent's tools: where there are some, the run
    raises :class:`DefinitionError`. Let the tools ask, ``tool(approve=True)``, and ``user`` answer.
    """

    @inspect_agent(name=agent.name, description=agent.description)
    def agentloop_agent() -> InspectAgent:
        async def execute(state: AgentState) -> AgentState:
            await _execute(agent, state, user)
            return state

        return execute

    return agentloop_agent()


async def _execute(agent: Agent[Any], state: AgentState, user: User | None) -> None:
    _check_approval(agent)
    provider, log = InspectProvider(), Log()
    conversation = to_sampling(state.messages)
    if not conversation or conversation[-1][1][-1].role != "user":
        conversation.append((SamplingMessage(role="user", content=[TextContent(text=GO_ON)]), []))
    *history, (asked, asked_chat) = conversation
    for message, chat in history:
        provider.chat.remember(message, chat)

    def sink(event: Event) -> None:
        if log.run is None and asked_chat:  # the run makes a message of its own of the prompt
            provider.chat.remember(event.run.messages[len(history)], asked_chat)
        log(event)

    try:
        await agent.run(
            cast("Prompt", asked.content_as_list),
            provider=provider,
            limits=dataclasses.replace(agent.definition.limits, seconds=None, ask_seconds=None),
            history=[message for message, _ in history],
            on_event=sink,
            user=user,
        )
    finally:
        if log.run is not None:
            _tell(state, log.run, provider)
    if provider.stopped is not None:
        raise provider.stopped


def _tell(state: AgentState, run: Run, provider: InspectProvider) -> None:
    """Bring ``state`` to where the run has come."""
    names = Fitted(names=[tool.name for tool in run.definition.offered])
    messages: list[ChatMessage] = provider.chat.of(run.messages, names)
    if run.definition.instructions:
        messages.insert(0, provider.chat.system(run.definition.instructions))
    if isinstance(provider.stopped, LimitExceededError) and provider.stopped.type == "message":
        messages = messages[: int(provider.stopped.limit)]  # Inspect would refuse all of them
    said = next((m for m in reversed(messages) if isinstance(m, ChatMessageAssistant)), None)
    state.messages = messages
    if said is not None:
        state.output = ModelOutput(
            model=said.model or "",
            choices=[ChatCompletionChoice(message=said, stop_reason=_STOPS.get(run.stop, "stop"))],
            completion=run.text if run.answer is None else json.dumps(run.answer[0]),
            metadata={"agentloop": {"stop": run.stop, "steps": run.steps, "error": run.error}},
        )


def _check_approval(agent: Agent[Any]) -> None:
    from inspect_ai.approval._apply import have_tool_approval

    if agent.tools and have_tool_approval():
        raise DefinitionError(
            f"approval policies of Inspect do not reach the tools of agent {agent.name!r}: "
            "let the tools ask, tool(approve=True), and pass as_agent(user=...)"
        )
