"""What happened, and when."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from time import monotonic
from typing import Any, Concatenate, NamedTuple, ParamSpec

from agentloop.events import NAMES, AskEnded, Event, Sink, tell
from agentloop.meta import USAGE_KEY
from agentloop.run import Run
from agentloop.usage import Usage

Facts = ParamSpec("Facts")


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
        # What moments are made of, one after the other: there are many, they are seldom asked for,
        # and the garbage collector would look at each.
        self._taken: list[Any] = above._taken if above else []
        self._runs: dict[str, Run] = above._runs if above else {}

    def __call__(self, event: Event) -> None:
        self.note(type(event), *event)  # pyright: ignore[reportArgumentType]

    def note(
        self,
        kind: Callable[Concatenate[Run, str, Facts], Event],
        run: Run,
        key: str,
        *facts: Facts.args,
        **_: Facts.kwargs,
    ) -> None:
        """Take the event ``kind(run, key, *facts)``, which is made only where somebody listens."""
        kept = _kept(facts) if kind is AskEnded else facts
        length = run.messages.length
        self._taken += (monotonic(), kind, key, run.steps, length, run.usage, *kept)
        self._runs[key] = run
        if self._sink is not None:
            tell(self._sink, kind(run, key, *facts))  # pyright: ignore[reportCallIssue]

    def about(self, key: str) -> list[tuple[Moment, Run]]:
        """The moments of the run at ``key`` and of the runs inside of it, each with that run as it
        was at last."""
        inside = f"{key}/"
        return [
            (moment, self._runs[moment.key])
            for moment in _moments(self._taken)
            if moment.key == key or moment.key.startswith(inside)
        ]


def moment(event: Event) -> Moment:
    """The moment of ``event``, which is now."""
    journal = Journal()
    journal(event)
    ((now, _),) = journal.about(event.key)
    return now


def _kept(facts: tuple[Any, ...]) -> tuple[Any, ...]:
    """What is kept of the ``facts`` of an :class:`AskEnded`."""
    reply, seconds, provider = facts
    counted = bool(reply.meta) and USAGE_KEY in reply.meta
    return (reply.model, reply.stop_reason, counted, seconds, provider)


def _moments(taken: Sequence[Any]) -> Iterator[Moment]:
    begin = 0
    while begin < len(taken):
        end = begin + 6 + _FACTS[taken[begin + 1]]
        yield Moment(*taken[begin : begin + 6], facts=tuple(taken[begin + 6 : end]))
        begin = end


_FACTS = {kind: len(kind._fields) - 2 for kind in NAMES} | {AskEnded: 5}
"""How many facts an event of each kind leaves."""
