"""What is known of a durable run: how far it is, and who works on it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from dbos import WorkflowStatus

from agentloop.durable.records import INSIDE


class RunState(StrEnum):
    """How far a durable run is."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
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
    "SUCCESS": RunState.COMPLETED,
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


async def latest(
    find: Callable[..., Awaitable[Sequence[WorkflowStatus]]], limit: int
) -> list[RunInfo]:
    """The latest of the runs that ``find`` gives, the newest first, without those inside of others.

    ``find`` takes ``limit``, ``offset`` and ``sort_desc``, as the engine does.
    """
    found: list[RunInfo] = []
    offset = 0
    while len(found) < limit:
        page = await find(limit=limit, offset=offset, sort_desc=True)
        found += [RunInfo.of(each) for each in page if INSIDE not in each.workflow_id]
        if len(page) < limit:
            break
        offset += limit
    return found[:limit]
