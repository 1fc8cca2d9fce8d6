"""An agent whose runs are durable, as the engine knows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agentloop.agent import Agent
from agentloop.events import Sink
from agentloop.place import User
from agentloop.provider import Provider


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What surrounds the runs of an agent."""

    provider: Provider | None = None
    """Answers their asks; else the agent's own provider does."""
    own: Provider | None = None
    """The provider of the agents around this one, for where it has none itself."""
    on_event: Sink | None = None
    user: User | None = None
    concurrency: int | None = None


@dataclass
class Known:
    """An agent of a program, and what surrounds its runs."""

    agent: Agent[Any]
    setting: Setting
    queue: str
    """Where its runs wait for a process."""
    workflow: Callable[[dict[str, Any]], Any] | None = None
    """Its runs as the engine knows them, once that is launched."""

    @property
    def name(self) -> str:
        return self.agent.name
