"""Calls as they were when they were suspended, for the process that they mostly come back to.

A state says everything, so that a call can go on in any process. To read it takes the more of a
round the longer its runs are, and the process that wrote it need not: it still has what it wrote.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from threading import Lock
from typing import Any, NamedTuple

from agentloop.mcp.written import Writer
from agentloop.run import Run

MOST_BYTES = 4 * 1024 * 1024
"""How many bytes of JSON what is kept may take, together; Python takes some times as much."""


class Call(NamedTuple):
    """A suspended call, which nobody may change."""

    saved: Mapping[str, Any]
    """What its state says."""
    runs: Mapping[str, Run]
    """The runs that it says it of, as far as this process has had them, by their key."""
    writer: Writer
    """Has written their messages."""


class Recent:
    """The calls of one function that were suspended last, by their state.

    One that comes back is given away: who brings the same state once more has it read.
    """

    def __init__(self) -> None:
        self._calls: OrderedDict[str, tuple[Call, int]] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()  # a server may serve from several threads

    def keep(self, state: str, call: Call, size: int) -> None:
        """Keep ``call``, whose ``state`` is ``size`` bytes of JSON; the oldest ones make room."""
        if size > MOST_BYTES:
            return
        with self._lock:
            self._drop(state)
            self._calls[state] = (call, size)
            self._bytes += size
            while self._bytes > MOST_BYTES:
                self._drop(next(iter(self._calls)))

    def take(self, state: str) -> Call | None:
        """The call with this ``state``, if it is kept."""
        with self._lock:
            return self._drop(state)

    def _drop(self, state: str) -> Call | None:
        call, size = self._calls.pop(state, (None, 0))
        self._bytes -= size
        return call
