"""What happened, and when."""

from __future__ import annotations

from time import monotonic
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
    key: str
    steps: int
    """Asks that had been answered."""
    messages: int
    """Messages that the run had."""
    usage: Usage
    """What the run had used."""
    facts: tuple[Any, ...]
    """The event's other fields; of a reply only its model, its stop reason, and whether it came
    with its usage."""


class Journal:
    """An event sink that keeps what it is told, and passes it on.

    Of a run it keeps the latest state, and of each event the moment: an event holds the run as it
    was then, and all of those together would be the most of what a run takes.
    """

    __slots__ = ("_runs", "_sink", "_taken")

    def __init__(self, sink: Sink | None = None, *, above: Journal | None = None) -> None:
        """``above`` keeps the same, without passing it on."""
        self._sink = sink
        # Moments, flat and not made yet: there are many, and they are seldom asked for.
        self._taken: list[tuple[Any, ...]] = above._taken if above else []
        self._runs: dict[str, Run] = above._runs if above else {}

    def __call__(self, event: Event) -> None:
        self._taken.append(_take(event))
        self._runs[event.key] = event.run
        if self._sink is not None:
            tell(self._sink, event)

    def about(self, key: str) -> list[tuple[Moment, Run]]:
        """The moments of the run at ``key`` and of the runs inside of it, each with that run as it
        was at last."""
        inside = f"{key}/"
        moments = (_made(taken) for taken in self._taken)
        return [
            (moment, self._runs[moment.key])
            for moment in moments
            if moment.key == key or moment.key.startswith(inside)
        ]


def moment(event: Event) -> Moment:
    """The moment of ``event``, which is now."""
    return _made(_take(event))


def _take(event: Event) -> tuple[Any, ...]:
    run = event.run
    facts = event[2:] if type(event) is not AskEnded else _without_reply(event)
    moment = monotonic(), type(event), event.key, run.steps, run.messages.length, run.usage
    return moment + facts


def _without_reply(event: AskEnded) -> tuple[Any, ...]:
    reply = event.reply
    counted = bool(reply.meta) and USAGE_KEY in reply.meta
    return (reply.model, reply.stop_reason, counted, event.seconds, event.provider)


def _made(taken: tuple[Any, ...]) -> Moment:
    at, kind, key, steps, messages, usage, *facts = taken
    return Moment(at, kind, key, steps, messages, usage, tuple(facts))
