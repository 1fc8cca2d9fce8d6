"""How long a run waits for a model: the time that is granted to one ask after another."""

from __future__ import annotations

import math
from contextvars import ContextVar, Token
from time import monotonic
from types import TracebackType

import anyio

from agentloop.alarm import Alarm
from agentloop.strays import on_asyncio

_HERE: ContextVar[Patience | None] = ContextVar("agentloop_patience", default=None)


class Patience:
    """A cancel scope whose time is granted anew for each thing that is waited for in it.

    What takes longer is cancelled, and with it all that is in the scope.
    """

    __slots__ = ("_alarm", "_outer", "_scope", "deadline")

    def __init__(self) -> None:
        self._scope = anyio.CancelScope()
        self._outer: Token[Patience | None] | None = None
        self._alarm = Alarm() if on_asyncio() else None
        self.deadline = math.inf
        """On the clock of ``time.monotonic()``."""

    def __enter__(self) -> Patience:
        self._scope.__enter__()
        self._outer = _HERE.set(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        assert self._outer is not None
        _HERE.reset(self._outer)
        if self._alarm is not None:
            self._alarm.unset()
        return bool(self._scope.__exit__(kind, error, traceback))

    def grant(self, seconds: float) -> None:
        """Wait so long from now on."""
        self.deadline = monotonic() + seconds
        if self._alarm is None:
            self._scope.deadline = anyio.current_time() + seconds
        else:
            self._alarm.set(seconds, self._scope.cancel)

    def lift(self) -> None:
        """Wait for as long as it takes."""
        self.deadline = math.inf
        if self._alarm is None:
            self._scope.deadline = math.inf
        else:
            self._alarm.unset()


def time_left() -> float:
    """Seconds until what is awaited here is given up: by the run whose ask this is, or by a cancel
    scope around. ``math.inf`` where it may take for ever."""
    patience = _HERE.get()
    granted = math.inf if patience is None else patience.deadline - monotonic()
    return max(0.0, min(granted, anyio.current_effective_deadline() - anyio.current_time()))
