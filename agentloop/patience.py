"""How long a run waits for a model: the time that is granted to one ask after another."""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from contextvars import ContextVar, Token
from time import monotonic
from typing import Any

import anyio

from agentloop.alarm import Alarm
from agentloop.strays import asyncio_task

AGAIN = 5.0
"""Seconds after which what swallowed its cancellation, and waits on, is cancelled once more."""

_HERE: ContextVar[Patience | None] = ContextVar("agentloop_patience", default=None)


def granting() -> Patience:
    """A new one, for the task that calls this."""
    task = asyncio_task()
    return _TrioPatience() if task is None else _AsyncioPatience(task)


class Patience(ABC):
    """A stretch of code, entered with ``with``, whose time is granted anew for each thing that is
    waited for in it. What takes longer is cancelled, and the stretch is left with it."""

    __slots__ = ()

    deadline: float
    """On the clock of ``time.monotonic()``."""
    _outer: Token[Patience | None] | None

    def __enter__(self) -> Patience:
        self._outer = _HERE.set(self)
        return self

    def __exit__(self, *raised: Any) -> bool:
        """Whether what was ``raised`` is nothing but the end of the time that was granted."""
        assert self._outer is not None
        _HERE.reset(self._outer)
        self._outer = None  # with its context, which holds what it was set to
        return False

    @abstractmethod
    def grant(self, seconds: float) -> None:
        """Wait so long from now on."""

    @abstractmethod
    def lift(self) -> None:
        """Wait for as long as it takes."""


class _AsyncioPatience(Alarm, Patience):
    """As ``asyncio.timeout`` does it: a cancel scope for each run costs more than it bounds."""

    __slots__ = ("_cancelling", "_outer", "_over", "_rings", "_task")

    def __init__(self, task: asyncio.Task[Any]) -> None:
        super().__init__()
        self._task = task
        self._cancelling = task.cancelling()
        self._over = False
        self._rings = 0

    def __exit__(self, *raised: Any) -> bool:
        super().__exit__(*raised)
        self.lift()
        told_by_others = self._task.cancelling() > self._cancelling
        return self._over and not told_by_others and isinstance(raised[1], asyncio.CancelledError)

    def grant(self, seconds: float) -> None:
        self._over = False
        self.set(seconds)

    def lift(self) -> None:
        self.unset()
        while self._rings:
            self._rings -= 1
            self._task.uncancel()

    def ring(self) -> None:
        self._over = True
        self._rings += 1
        self._task.cancel()
        self.set(AGAIN)


class _TrioPatience(Patience):
    __slots__ = ("_outer", "_scope", "deadline")

    def __init__(self) -> None:
        self.deadline = math.inf
        self._scope = anyio.CancelScope()

    def __enter__(self) -> Patience:
        self._scope.__enter__()
        return super().__enter__()

    def __exit__(self, *raised: Any) -> bool:
        super().__exit__(*raised)
        return bool(self._scope.__exit__(*raised))

    def grant(self, seconds: float) -> None:
        self.deadline = monotonic() + seconds
        self._scope.deadline = anyio.current_time() + seconds

    def lift(self) -> None:
        self.deadline = math.inf
        self._scope.deadline = math.inf


def time_left() -> float:
    """Seconds until what is awaited here is given up: by the run whose ask this is, or by a cancel
    scope around. ``math.inf`` where it may take for ever."""
    here = _HERE.get()
    granted = math.inf if here is None else here.deadline - monotonic()
    return max(0.0, min(granted, anyio.current_effective_deadline() - anyio.current_time()))
