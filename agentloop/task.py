"""A task: a call that goes on without its caller, who comes back for what came of it (SEP-2663).

A :class:`Task` is a frozen value, like a run, and each thing that may happen to it is a function
that gives a new one:

    working ──parked──> input_required ──answered──> working
    working, input_required ──finished──> completed | failed
                            ──cancelled─> cancelled

A task that is working is *held* by the worker that goes on with it, for the length of a lease. When
another one takes it over the epoch rises, and what the former still says is refused.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, Protocol

from agentloop.errors import (
    DefinitionError,
    StaleOwnerError,
    StoreError,
    TaskEndedError,
    TooManyTasksError,
)

RECORD_VERSION = 1


class Status(StrEnum):
    """What a task is doing (SEP-2663, Task Status)."""

    WORKING = "working"
    INPUT_REQUIRED = "input_required"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing can happen to it any more."""
        return self in (Status.COMPLETED, Status.FAILED, Status.CANCELLED)


CONDITIONS: tuple[str, ...] = ("queued", "running", "waiting", "completed", "failed", "cancelled")
"""What tasks are counted by: a working one is running while a worker holds it, and queued before;
waiting is one that requires input."""


def condition(status: Status, *, held: bool) -> str:
    """The one of :data:`CONDITIONS` that a task is in."""
    if status is Status.WORKING:
        return "running" if held else "queued"
    return "waiting" if status is Status.INPUT_REQUIRED else status


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One call that goes on without its caller, as far as it has come.

    Everything in ``request``, ``asks``, ``answers`` and ``outcome`` is in the protocol's own JSON.
    """

    id: str
    """Unguessable: whoever knows it, and is its principal where there is one, may use the task."""
    call: str
    """Names the call in the store that the function goes on with."""
    request: Mapping[str, Any]
    """The ``params`` of the ``tools/call``, ``_meta`` with the client's capabilities included."""
    principal: str | None = None
    """Who called, where the transport authenticated somebody."""
    caller: Mapping[str, Any] | None = None
    """What is known of the principal, without the token that proved it."""
    created: float = 0.0
    updated: float = 0.0
    """In seconds since the epoch, by the store's clock, as all times here."""
    ttl: float | None = None
    """Seconds after its creation for which it is kept; None for ever."""
    status: Status = Status.WORKING
    message: str = ""
    """What it is doing, for people to read."""
    round: int = 0
    """How often the function was left, waiting for the client."""
    asks: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What is asked of the client and not answered, by its key."""
    answers: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What the client answered since the function was left, by key."""
    state: str | None = None
    """What a function that is not agentloop's wants to be brought back."""
    outcome: Mapping[str, Any] | None = None
    """The result of the call, or the error where the status is ``failed``."""
    epoch: int = 0
    """How often it was taken up."""
    attempts: int = 0
    """How often it was taken up since it last came to anything."""
    leased_until: float = 0.0

    @property
    def name(self) -> str:
        """The tool that was called."""
        return str(self.request.get("name"))

    @property
    def expires(self) -> float | None:
        """When it may be forgotten."""
        return None if self.ttl is None else self.created + self.ttl

    def to_json(self) -> dict[str, Any]:
        """The task as JSON; what is at its default is left out."""
        body: dict[str, Any] = {"v": RECORD_VERSION}
        for each in fields(self):
            if value := getattr(self, each.name):
                body[each.name] = value
        return body

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Task:
        """Read what :meth:`to_json` wrote. Raises :class:`StoreError` for anything else."""
        known = {each.name for each in fields(cls)}
        if data.get("v") != RECORD_VERSION:
            raise StoreError(f"the store holds a task that is not of version {RECORD_VERSION}")
        try:
            values = {name: value for name, value in data.items() if name in known}
            values["status"] = Status(values.get("status", Status.WORKING))
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise StoreError("the store holds a task that cannot be read") from error


# --- what may happen to a task -----------------------------------------------------------------


def taken(task: Task, now: float, *, lease: float) -> Task:
    """The task in the hands of a worker, for ``lease`` seconds."""
    return replace(task, epoch=task.epoch + 1, leased_until=now + lease, attempts=task.attempts + 1)


def held(task: Task, epoch: int) -> Task:
    """The task, if ``epoch`` still holds it. Raises :class:`StaleOwnerError` where it does not."""
    if task.epoch != epoch or task.status is not Status.WORKING:
        raise StaleOwnerError("the task was taken over or has ended; nothing was written")
    return task


def renewed(task: Task, now: float, *, lease: float, message: str = "") -> Task:
    """The held task, for another ``lease`` seconds; ``message`` says what it is doing now."""
    if message and message != task.message:
        task = replace(task, message=message, updated=now)
    return replace(task, leased_until=now + lease)


def released(task: Task) -> Task:
    """The held task, for another worker to take up at once."""
    return replace(task, leased_until=0.0, attempts=max(task.attempts - 1, 0))


def excused(task: Task, now: float) -> Task:
    """The held task, which could not come to anything now: this attempt does not count."""
    return replace(task, attempts=max(task.attempts - 1, 0))


def handed_on(task: Task, now: float) -> Task:
    """The task, for another worker to take up at once, whatever becomes of the one that has it.

    Raises :class:`TaskEndedError` where it has ended.
    """
    if task.status.final:
        raise TaskEndedError(f"the task has ended already: it is {task.status}")
    return replace(task, updated=now, epoch=task.epoch + 1, leased_until=0.0)


def parked(task: Task, now: float, *, asks: Mapping[str, Any], state: str | None) -> Task:
    """The held task, whose function was left until the client has answered ``asks``."""
    waits = Status.INPUT_REQUIRED if asks else Status.WORKING
    return replace(
        task,
        status=waits,
        updated=now,
        round=task.round + 1,
        asks=asks,
        answers={},
        state=state,
        leased_until=0.0,
        attempts=0,
    )


def answered(task: Task, now: float, answers: Mapping[str, Any]) -> Task:
    """The task after ``answers``; once there is one to each ask, it can go on.

    Answers to what is not asked, or not any more, are ignored. So the first answer counts.
    """
    if task.status is not Status.INPUT_REQUIRED:
        return task
    new = {key: answer for key, answer in answers.items() if key in task.asks}
    if not new:
        return task
    asks = {key: ask for key, ask in task.asks.items() if key not in new}
    return replace(
        task,
        updated=now,
        asks=asks,
        answers={**task.answers, **new},
        status=Status.INPUT_REQUIRED if asks else Status.WORKING,
    )


def finished(
    task: Task, now: float, *, outcome: Mapping[str, Any], failed: bool = False, message: str = ""
) -> Task:
    """The held task, of which ``outcome`` came: a result, or the error where it ``failed``."""
    return replace(
        task,
        status=Status.FAILED if failed else Status.COMPLETED,
        updated=now,
        message=message,
        outcome=outcome,
        asks={},
        answers={},
        state=None,
        leased_until=0.0,
    )


def cancelled(task: Task, now: float, *, message: str = "") -> Task:
    """The task after somebody does not want it any more.

    Raises :class:`TaskEndedError` where it has ended before.
    """
    if task.status.final:
        raise TaskEndedError(f"the task has ended already: it is {task.status}")
    return replace(
        task,
        status=Status.CANCELLED,
        updated=now,
        message=message,
        asks={},
        answers={},
        state=None,
        epoch=task.epoch + 1,
        leased_until=0.0,
    )


# --- where tasks are kept ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLimits:
    """How many tasks may be open, which is to say not at their end; None for any number."""

    most_open: int | None = None
    most_open_per_principal: int | None = None
    """For tasks with a principal; where nobody is authenticated, nobody can be told apart."""

    def __post_init__(self) -> None:
        for each in fields(self):
            if (most := getattr(self, each.name)) is not None and most < 1:
                raise DefinitionError(f"{each.name}={most!r} is not 1 or more")

    def check(self, *, open: int, of_principal: int) -> None:
        """Raises :class:`TooManyTasksError` where so many open tasks leave no room for another."""
        most, of_one = self.most_open, self.most_open_per_principal
        if of_one is not None and of_principal >= of_one:
            raise TooManyTasksError(
                f"the caller has as many open tasks as one may have: {of_principal}"
            )
        if most is not None and open >= most:
            raise TooManyTasksError(f"as many tasks are open as there may be: {open}")


class Change(Protocol):
    """What is to become of a task; ``now`` is the time by the store's clock."""

    def __call__(self, task: Task, now: float) -> Task: ...


class TaskStore(Protocol):
    """Remembers tasks.

    Every method may raise :class:`StoreError`, and then did nothing.
    """

    async def create(self, task: Task, *, limits: TaskLimits | None = None) -> Task:
        """Keep a new task; gives it with its times.

        Where a task of the same ``call`` is kept already, gives that one. Raises
        :class:`TooManyTasksError` for a new one that there is no room for.
        """
        ...

    async def read(self, id: str) -> Task | None:
        """The task, unless there is none or its time is over."""
        ...

    async def change(self, id: str, change: Change) -> Task | None:
        """Make of the task what ``change`` says, alone: nobody else changes it meanwhile.

        Gives the new task; None where there is none. What ``change`` raises is raised.
        """
        ...

    async def take(self, *, lease: float, per_principal: int | None = None) -> Task | None:
        """Take up the task that has waited longest of those that can go on and nobody holds.

        None where there is none. ``per_principal`` bounds how many of one principal's are held.
        """
        ...

    async def list(
        self,
        *,
        status: Status | None = None,
        principal: str | None = None,
        before: tuple[float, str] | None = None,
        limit: int = 100,
    ) -> Sequence[Task]:
        """Tasks, the newest first; ``before`` is the time and the id of the one they follow."""
        ...

    async def count(self) -> Mapping[str, int]:
        """How many tasks there are in each of :data:`CONDITIONS`."""
        ...

    async def sweep(self) -> int:
        """Forget tasks whose time is over; how many they were."""
        ...


class MemoryTasks:
    """Tasks of one process; they end with it."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task] = {}
        self._of_call: dict[str, str] = {}

    async def create(self, task: Task, *, limits: TaskLimits | None = None) -> Task:
        await self.sweep()
        if (known := self._of_call.get(task.call)) is not None:
            return self._tasks[known]
        if limits is not None:
            theirs = [each.principal for each in self._tasks.values() if not each.status.final]
            mine = 0 if task.principal is None else theirs.count(task.principal)
            limits.check(open=len(theirs), of_principal=mine)
        now = _now()
        task = self._tasks[task.id] = replace(task, created=now, updated=now)
        self._of_call[task.call] = task.id
        return task

    async def read(self, id: str) -> Task | None:
        task = self._tasks.get(id)
        return None if task is None or expired(task, _now()) else task

    async def change(self, id: str, change: Change) -> Task | None:
        task = await self.read(id)
        if task is not None:
            task = self._tasks[id] = change(task, _now())
        return task

    async def take(self, *, lease: float, per_principal: int | None = None) -> Task | None:
        now = _now()
        waiting = sorted(self._tasks.values(), key=lambda task: task.updated)
        for task in waiting:
            free = task.status is Status.WORKING and task.leased_until <= now
            if not free or expired(task, now):
                continue
            if per_principal is not None and self._held_by(task.principal, now) >= per_principal:
                continue
            return await self.change(task.id, lambda task, now: taken(task, now, lease=lease))
        return None

    def _held_by(self, principal: str | None, now: float) -> int:
        return sum(
            task.principal == principal and task.leased_until > now
            for task in self._tasks.values()
            if task.status is Status.WORKING
        )

    async def list(
        self,
        *,
        status: Status | None = None,
        principal: str | None = None,
        before: tuple[float, str] | None = None,
        limit: int = 100,
    ) -> Sequence[Task]:
        now = _now()
        found = [
            task
            for task in self._tasks.values()
            if not expired(task, now)
            and (status is None or task.status is status)
            and (principal is None or task.principal == principal)
            and (before is None or (task.created, task.id) < before)
        ]
        return sorted(found, key=lambda task: (task.created, task.id), reverse=True)[:limit]

    async def count(self) -> Mapping[str, int]:
        now = _now()
        counts = dict.fromkeys(CONDITIONS, 0)
        for task in await self.list(limit=len(self._tasks)):
            counts[condition(task.status, held=task.leased_until > now)] += 1
        return counts

    async def sweep(self) -> int:
        now = _now()
        old = [task for task in self._tasks.values() if expired(task, now)]
        for task in old:
            del self._tasks[task.id], self._of_call[task.call]
        return len(old)


def expired(task: Task, now: float) -> bool:
    """Whether the task's time is over."""
    return task.expires is not None and task.expires < now


def _now() -> float:
    return time.time()
