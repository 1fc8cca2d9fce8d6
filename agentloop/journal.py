"""What happened, and when."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from agentloop.events import (
    AskEnded,
    AskStarted,
    Event,
    RunEnded,
    RunStarted,
    RunSuspended,
    Sink,
    ToolEnded,
    ToolStarted,
    tell,
)
from agentloop.meta import USAGE_KEY
from agentloop.run import Run


class Moment(NamedTuple):
    """What an event told and when, but for what the run itself says for as long as it is kept."""

    at: float
    """On the clock of ``time.monotonic()``."""
    kind: str
    """What a transcript calls it, ``ask_started`` for instance."""
    key: str
    step: int
    """Asks that had been answered."""
    messages: int
    """Messages that the run had."""
    facts: tuple[Any, ...]
    """What else is told of an event of this kind."""


class Journal:
    """An event sink that keeps what it is told, and passes it on.

    Of a run it keeps the latest state, and of each event the moment: an event holds the run as it
    was then, and all of those together would be the most of what a run takes.
    """

    __slots__ = ("_above", "_moments", "_runs", "_sink")

    def __init__(self, sink: Sink | None = None, *, above: Journal | None = None) -> None:
        """``above`` keeps the same, without passing it on."""
        self._sink = sink
        self._above = above
        self._moments: list[tuple[Any, ...]] = []
        self._runs: dict[str, Run] = {}

    def __call__(self, event: Event) -> None:
        self._keep(_taken(event), event.key, event.run)
        if self._sink is not None:
            tell(self._sink, event)

    def about(self, key: str) -> list[tuple[Moment, Run]]:
        """The moments of the run at ``key`` and of the runs inside of it, each with that run as it
        was at last."""
        inside = f"{key}/"
        moments = (Moment(*taken) for taken in self._moments)
        return [
            (moment, self._runs[moment.key])
            for moment in moments
            if moment.key == key or moment.key.startswith(inside)
        ]

    def _keep(self, taken: tuple[Any, ...], key: str, run: Run) -> None:
        self._moments.append(taken)
        self._runs[key] = run
        if self._above is not None:
            self._above._keep(taken, key, run)


def moment(event: Event) -> Moment:
    """The moment of ``event``, which is now."""
    return Moment(*_taken(event))


def _taken(event: Event) -> tuple[Any, ...]:
    """The fields of a moment; to make a moment of them takes as long again."""
    kind, facts = _TOLD[type(event)]
    run = event.run
    return (time.monotonic(), kind, event.key, run.steps, len(run.messages), facts(event))


def _answer(event: AskEnded) -> tuple[Any, ...]:
    reply, meta = event.reply, event.reply.meta
    reported = meta is not None and USAGE_KEY in meta
    usage = event.run.usage
    return (event.provider, event.seconds, reply.model, reply.stop_reason, usage, reported)


_TOLD: dict[type[Event], tuple[str, Callable[[Any], tuple[Any, ...]]]] = {
    RunStarted: ("run_started", lambda event: (event.resumed, event.within, event.run.usage)),
    AskStarted: ("ask_started", lambda event: (event.provider, event.run.usage)),
    AskEnded: ("ask_ended", _answer),
    ToolStarted: ("tool_started", lambda event: (event.call.id,)),
    ToolEnded: (
        "tool_ended",
        lambda event: (event.call.id, event.seconds, bool(event.result.is_error)),
    ),
    RunSuspended: ("run_suspended", lambda event: ()),
    RunEnded: ("run_ended", lambda event: ()),
}
