"""Alarms of asyncio: all of an event loop share one timer, as a timer each costs more than most of
what it bounds."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable
from contextvars import Context
from time import monotonic


class Alarm:
    """Rings once a deadline has passed, which may be set anew as often as one likes."""

    __slots__ = ("_clock", "deadline")

    def __init__(self) -> None:
        self._clock = _clock_here()
        self.deadline = math.inf
        """On the clock of ``time.monotonic()``."""

    def set(self, seconds: float) -> None:
        """Ring in ``seconds``, and no more when it was to ring before."""
        self.deadline = monotonic() + seconds
        self._clock.watch(self)

    def unset(self) -> None:
        """Do not ring."""
        self.deadline = math.inf
        self._clock.watched.discard(self)

    def ring(self) -> None:
        """What happens then; must not raise."""
        raise NotImplementedError


class Timer(Alarm):
    """An alarm that makes a call."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[[], object]) -> None:
        super().__init__()
        self._call = call

    def ring(self) -> None:
        self._call()


class _Clock:
    """The timer of one event loop: it goes off at the earliest deadline, or before.

    An alarm that is unset leaves the timer as it is: most are, and the next ones are later.
    """

    __slots__ = ("_goes_off", "_timer", "loop", "watched")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.watched: set[Alarm] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._goes_off = math.inf

    def watch(self, alarm: Alarm) -> None:
        self.watched.add(alarm)
        if alarm.deadline < self._goes_off:
            self._wind(alarm.deadline)

    def _wind(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._goes_off = deadline
        # In a context of its own: the one here would be kept for as long, with all that it holds.
        self._timer = self.loop.call_later(deadline - monotonic(), self._go_off, context=Context())

    def _go_off(self) -> None:
        self._timer, self._goes_off = None, math.inf
        now = monotonic()
        for alarm in [alarm for alarm in self.watched if alarm.deadline <= now]:
            self.watched.discard(alarm)
            alarm.ring()
        earliest = min((alarm.deadline for alarm in self.watched), default=math.inf)
        if earliest < self._goes_off:
            self._wind(earliest)


class _Local(threading.local):
    clock: _Clock | None = None


_LOCAL = _Local()


def _clock_here() -> _Clock:
    loop, clock = asyncio.get_running_loop(), _LOCAL.clock
    if clock is None or clock.loop is not loop:
        clock = _LOCAL.clock = _Clock(loop)
    return clock
