"""An agent whose runs are durable."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Generic, TypeVar

from mcp_types import SamplingMessage

from agentloop.agent import Agent
from agentloop.durable.executions import Executions
from agentloop.durable.handle import DurableRun
from agentloop.durable.known import Known
from agentloop.durable.records import Order, check_id
from agentloop.errors import DefinitionError
from agentloop.machine import start
from agentloop.prompt import Prompt
from agentloop.result import RunResult
from agentloop.usage import Limits

OutputT = TypeVar("OutputT")


class DurableAgent(Generic[OutputT]):
    """An agent whose runs are durable; :meth:`Durable.agent` makes one."""

    def __init__(self, agent: Agent[OutputT], known: Known, executions: Executions) -> None:
        self.agent = agent
        self._known = known
        self._executions = executions

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
        await self._executions.runs.launch(self._known, id, order)
        return DurableRun(id, self.agent, self._executions)

    def get(self, id: str) -> DurableRun[OutputT]:
        """The run ``id``, which may have been started by any other process."""
        return DurableRun(id, self.agent, self._executions)

    def __repr__(self) -> str:
        return f"DurableAgent({self.name!r})"
