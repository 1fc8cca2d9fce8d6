"""A durable run, as others see it."""

from __future__ import annotations

from typing import Generic, TypeVar

from agentloop.agent import Agent
from agentloop.durable.executions import Executions
from agentloop.durable.info import RunInfo
from agentloop.durable.records import finished
from agentloop.result import RunResult

OutputT = TypeVar("OutputT")


class DurableRun(Generic[OutputT]):
    """A durable run that was started, here or by any other process."""

    def __init__(self, id: str, agent: Agent[OutputT], executions: Executions) -> None:
        self.id = id
        self._agent = agent
        self._executions = executions

    async def result(self) -> RunResult[OutputT]:
        """Wait for the end and give the result, whichever process brings it.

        To stop waiting does not stop the run. Raises :class:`RunCancelled`, and :class:`StateError`
        where the agent has changed since the run began.
        """
        outcome = await self._executions.outcome(self.id)
        return RunResult(finished(outcome, self._agent.definition))

    async def info(self) -> RunInfo:
        """What is known of the run. Raises :class:`StateError` where it is forgotten."""
        return await self._executions.runs.info(self.id)

    async def cancel(self) -> None:
        """Stop the run and all runs inside of it, wherever they are; one that ended stays so."""
        await self._executions.runs.cancel(self.id)

    def __repr__(self) -> str:
        return f"DurableRun({self.id!r}, agent={self._agent.name!r})"
