"""What happened, and when."""

from __future__ import annotations

import time
from typing import NamedTuple

from agentloop.events import Event, Sink, tell


class Moment(NamedTuple):
    """An event, and the moment at which it was told."""

    at: float
    """On the clock of ``time.monotonic()``."""
    event: Event


class Journal:
    """An event sink that keeps what it is told, and passes it on."""

    __slots__ = ("_above", "_moments", "_sink")

    def __init__(self, sink: Sink | None = None, *, above: Journal | None = None) -> None:
        """``above`` keeps the same, without passing it on."""
        self._sink = sink
        self._above = above
        self._moments: list[tuple[float, Event]] = []

    def __call__(self, event: Event) -> None:
        moment = (time.monotonic(), event)
        self._moments.append(moment)
        if self._above is not None:
            self._above._keep(moment)
        if self._sink is not None:
            tell(self._sink, event)

    def about(self, key: str) -> list[Moment]:
        """The moments of the run at ``key`` and of the runs inside of it."""
        inside = f"{key}/"
        return [
            Moment(at, event)
            for at, event in self._moments
            if event.key == key or event.key.startswith(inside)
        ]

    def _keep(self, moment: tuple[float, Event]) -> None:
        self._moments.append(moment)
        if self._above is not None:
            self._above._keep(moment)
