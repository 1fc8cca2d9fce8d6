"""What happened, and when."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from agentloop.events import AskEnded, Event, Sink, tell
from agentloop.meta import USAGE_KEY
from agentloop.run import Run
from agentloop.usage import Usage


class Moment(NamedTuple):
    """What an event told and when, but for what the run itself says for as long as it is kept."""

    at: float
    """On the clock of ``time.monotonic()``."""
    kind: type[Event]
    steps: int
    """Asks that had been answered."""
    messages: int
    """Messages that the run had."""
    usage: Usage
    """What the run had used."""
    facts: tuple[Any, ...]
    """The event without its run; in the place of a reply stands an :class:`Answered`."""


class Answered(NamedTuple):
    """What a transcript tells of a reply besides the message that it became."""

    model: str
    stop_reason: str | None
    counted: bool
    """Whether it came with its usage."""


class Journal:
    """An event sink that keeps what it is told, and passes it on.

    Of a run it keeps the latest state, and of each event the moment: an event holds the run as it
    was then, and all of those together would be the most of what a run takes.
    """

    __slots__ = ("_moments", "_runs", "_sink")

    def __init__(self, sink: Sink | None = None, *, above: Journal | None = None) -> None:
        """``above`` keeps the same, without passing it on."""
        self._sink = sink
        # What happened, as fields of moments: to make a moment of each would take twice as long.
        self._moments: list[tuple[Any, ...]] = above._moments if above else []
        self._runs: dict[str, Run] = above._runs if above else {}

    def __call__(self, event: Event) -> None:
        self._moments.append(_moment(event))
        self._runs[event.key] = event.run
        if self._sink is not None:
            tell(self._sink, event)

    def about(self, key: str) -> list[tuple[Moment, Run]]:
        """The moments of the run at ``key`` and of the runs inside of it, each with that run as it
        was at last."""
        inside = f"{key}/"
        moments = (Moment(*moment) for moment in self._moments)
        return [
            (moment, self._runs[at])
            for moment in moments
            if (at := moment.facts[0]) == key or at.startswith(inside)
        ]


def moment(event: Event) -> Moment:
    """The moment of ``event``, which is now."""
    return Moment(*_moment(event))


def _moment(event: Event) -> tuple[Any, ...]:
    run = event.run
    facts = event[1:] if type(event) is not AskEnded else _without_reply(event)
    return (time.monotonic(), type(event), run.steps, len(run.messages), run.usage, facts)


def _without_reply(event: AskEnded) -> tuple[Any, ...]:
    reply = event.reply
    counted = bool(reply.meta) and USAGE_KEY in reply.meta
    answered = Answered(reply.model, reply.stop_reason, counted)
    return (event.key, answered, event.seconds, event.provider)
