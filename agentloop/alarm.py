"""A timer that is set again and again: asyncio's own costs more than most of what it bounds."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from time import monotonic


class Alarm:
    """Rings once a deadline has passed, which may be set anew as often as one likes.

    To set it later than it was costs no more than noting so: the timer goes off at the earlier
    time, and is wound again. For asyncio.
    """

    __slots__ = ("_deadline", "_loop", "_ring", "_timer", "_winds")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._deadline = math.inf
        self._ring: Callable[[], object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._winds = math.inf
        """When the timer goes off."""

    def set(self, seconds: float, ring: Callable[[], object]) -> None:
        """Call ``ring`` in ``seconds``, and no more what was to be called before."""
        self._deadline, self._ring = monotonic() + seconds, ring
        if self._deadline < self._winds:
            self._wind()

    def unset(self) -> None:
        """Call nothing."""
        self._deadline, self._ring = math.inf, None

    def close(self) -> None:
        """Call nothing, and let go of the timer."""
        self.unset()
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._winds = None, math.inf

    def _wind(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._winds = self._deadline
        self._timer = self._loop.call_later(self._deadline - monotonic(), self._go_off)

    def _go_off(self) -> None:
        self._timer, self._winds = None, math.inf
        if self._ring is None:
            return
        if monotonic() < self._deadline:
            self._wind()
        else:
            ring = self._ring
            self.unset()
            ring()
