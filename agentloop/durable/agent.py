"""An agent whose runs are durable."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from mcp_types import SamplingMessage

from agentloop.agent import Agent
from agentloop.durable.handle import DurableRun
from agentloop.durable.records import Order, check_id
from agentloop.errors import DefinitionError
from agentloop.events import Sink
from agentloop.place import User
from agentloop.provider import Provider
from agentloop.result import RunResult
from agentloop.run import Prompt, start
from agentloop.usage import Limits

if TYPE_CHECKING:
    from agentloop.durable.engine import Durable

OutputT = TypeVar("OutputT")


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


class DurableAgent(Generic[OutputT]):
    """An agent whose runs are durable; :meth:`Durable.agent` makes one."""

    def __init__(self, agent: Agent[OutputT], setting: Setting, durable: Durable) -> None:
        self.agent = agent
        self.setting = setting
        self._durable = durable
        self.workflow: Callable[[dict[str, Any]], Any] | None = None
        """Its runs as the engine knows them, once there is one."""

    @property
    def name(self) -> str:
        return self.agent.name

    async def run(
        self,
        prompt: Prompt,
        *,
        id: str | None = None,
        limits: Limits | None = None,
        history: Sequence[SamplingMessage] = (),
        deadline: float | None = None,
    ) -> RunResult[OutputT]:
        """Start a run, see :meth:`start`, and wait for its result."""
        handle = await self.start(prompt, id=id, limits=limits, history=history, deadline=deadline)
        return await handle.result()

    async def start(
        self,
        prompt: Prompt,
        *,
        id: str | None = None,
        limits: Limits | None = None,
        history: Sequence[SamplingMessage] = (),
        deadline: float | None = None,
    ) -> DurableRun[OutputT]:
        """Start the run ``id``; when this returns, the run will be brought to its end.

        The same ``id`` is the same run, however often and wherever it is started: what it was
        asked the first time counts. ``deadline`` is in seconds from now, whatever happens
        meanwhile; an ask that is open then ends the run. Raises :class:`DefinitionError` outside
        of ``async with durable``, and :class:`StateError` where ``id`` is a run of another agent.
        """
        id = secrets.token_hex(12) if id is None else check_id(id)
        if deadline is not None and not deadline > 0:
            raise DefinitionError(f"deadline={deadline!r} is not a number of seconds above 0")
        now = time.time()
        order = Order(
            run=start(
                self.agent.definition.limited(limits),
                prompt,
                id=secrets.token_hex(8),
                history=history,
                began=now,
            ),
            until=None if deadline is None else now + deadline,
        )
        await self._durable.launch(self, id, order)
        return DurableRun(id, self.agent, self._durable)

    def get(self, id: str) -> DurableRun[OutputT]:
        """The run ``id``, which may have been started by any other process."""
        return DurableRun(id, self.agent, self._durable)

    def __repr__(self) -> str:
        return f"DurableAgent({self.name!r})"
