"""Where bars go: those that overlap in time into lanes of their own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from agentloop.story import Call, Step, Story

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Bar(Generic[T]):
    """Something that took its time."""

    item: T
    story: Story
    step: int
    began: float
    ended: float


@dataclass(slots=True)
class Level:
    """Everything that happened in runs that are equally deep inside one another."""

    agents: list[str]
    asks: list[list[Bar[Step]]]
    """Lanes of bars that do not overlap."""
    calls: list[list[Bar[Call]]]


def levels(story: Story) -> list[Level]:
    """The lanes of ``story``, then those of the runs inside of it, then of those inside these."""
    found: list[Level] = []
    stories = [story]
    while stories:
        asks = [bar for each in stories for bar in _asks(each)]
        calls = [bar for each in stories for bar in _calls(each)]
        agents = list(dict.fromkeys(each.agent for each in stories))
        found.append(Level(agents, _packed(asks), _packed(calls)))
        stories = [inner for each in stories for call in each.calls for inner in call.runs]
    return found


def span(story: Story) -> tuple[float, float]:
    """When the story begins and ends, as far as the file tells."""
    return story.began, max(story.ended or 0.0, story.last, story.began)


def window(story: Story, step: Step) -> tuple[float, float]:
    """When the step begins and ends."""
    last = span(story)[1]
    times = [step.ask.began, step.ask.ended]
    times += [time for call in step.calls for time in (call.began, call.ended)]
    known = [time for time in times if time is not None]
    if not known:
        return last, last
    open_ = [call for call in step.calls if call.began is not None and call.ended is None]
    asked = step.ask.began is not None and step.ask.ended is None
    return min(known), max([*known, last]) if open_ or asked else max(known)


def _asks(story: Story) -> Iterable[Bar[Step]]:
    last = span(story)[1]
    for step in story.steps:
        if step.ask.began is not None:
            ended = last if step.ask.ended is None else step.ask.ended
            yield Bar(step, story, step.number, step.ask.began, max(ended, step.ask.began))


def _calls(story: Story) -> Iterable[Bar[Call]]:
    last = span(story)[1]
    for step in story.steps:
        for call in step.calls:
            if call.began is not None:
                ended = last if call.ended is None else call.ended
                yield Bar(call, story, step.number, call.began, max(ended, call.began))


def _packed(bars: Iterable[Bar[T]]) -> list[list[Bar[T]]]:
    """``bars`` in as few lanes as it takes for none to overlap."""
    lanes: list[list[Bar[T]]] = []
    for bar in sorted(bars, key=lambda bar: bar.began):
        for lane in lanes:
            if lane[-1].ended <= bar.began:
                lane.append(bar)
                break
        else:
            lanes.append([bar])
    return lanes
