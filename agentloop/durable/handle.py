"""A durable run, as others see it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Generic, TypeVar

from dbos import WorkflowStatus

from agentloop.agent import Agent
from agentloop.durable.records import finished
from agentloop.result import RunResult

if TYPE_CHECKING:
    from agentloop.durable.engine import Durable

OutputT = TypeVar("OutputT")


class RunState(StrEnum):
    """How far a durable run is."""

    QUEUED = "queued"
    RUNNING = "running"
    ENDED = "ended"
    """There is a result; its ``stop`` says how the run ended."""
    FAILED = "failed"
    """There is no result: the agent has changed since, or it cannot be run."""
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What a list of runs says of one."""

    id: str
    agent: str
    state: RunState
    created: float
    """In seconds since the epoch."""
    replica: str | None
    """The process that works on it, or did last."""

    @classmethod
    def of(cls, status: WorkflowStatus) -> RunInfo:
        return cls(
            id=status.workflow_id,
            agent=status.name,
            state=state_of(status.status),
            created=(status.created_at or 0) / 1000,
            replica=status.executor_id,
        )


_STATES = {
    "DELAYED": RunState.QUEUED,
    "ENQUEUED": RunState.QUEUED,
    "PENDING": RunState.RUNNING,
    "SUCCESS": RunState.ENDED,
    "CANCELLED": RunState.CANCELLED,
    "ERROR": RunState.FAILED,
    "MAX_RECOVERY_ATTEMPTS_EXCEEDED": RunState.FAILED,
}


def state_of(status: str) -> RunState:
    """The state that the engine calls ``status``."""
    return _STATES.get(status, RunState.FAILED)


def statuses(state: RunState | None) -> list[str] | None:
    """What the engine calls ``state``; None for any."""
    return None if state is None else [name for name, own in _STATES.items() if own is state]


class DurableRun(Generic[OutputT]):
    """A durable run that was started, here or by any other process."""

    def __init__(self, id: str, agent: Agent[OutputT], durable: Durable) -> None:
        self.id = id
        self._agent = agent
        self._durable = durable

    async def result(self) -> RunResult[OutputT]:
        """Wait for the end and give the result, whichever process brings it.

        To stop waiting does not stop the run. Raises :class:`RunCancelled`, and :class:`StateError`
        where the agent has changed since the run began.
        """
        outcome = await self._durable.outcome(self.id)
        return RunResult(finished(outcome, self._agent.definition))

    async def info(self) -> RunInfo:
        """What is known of the run. Raises :class:`StateError` where it is forgotten."""
        return await self._durable.info(self.id)

    async def cancel(self) -> None:
        """Stop the run and all runs inside of it, wherever they are; one that ended stays so."""
        await self._durable.cancel(self.id)

    def __repr__(self) -> str:
        return f"DurableRun({self.id!r}, agent={self._agent.name!r})"
