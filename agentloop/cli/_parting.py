"""Where two runs part."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import zip_longest

from agentloop.cli._progress import Line
from agentloop.cli._terminal import one_line, safe
from agentloop.page.lanes import span
from agentloop.page.words import as_json, count, duration, tokens
from agentloop.story import Story, text_of

_CONTEXT = 2
_MOST_LINES = 60


@dataclass(frozen=True, slots=True)
class Move:
    """One thing that was said or done."""

    step: int
    what: str
    """E.g. ``the model says`` or ``search gives``."""
    text: str


def moves(story: Story) -> Iterator[Move]:
    """Everything that was said and done, in order; without times, and without ids, which models
    and providers make up anew each time."""
    if story.instructions:
        yield Move(0, "the instructions are", story.instructions)
    for role, block in story.before:
        yield Move(0, f"the {role} says", text_of([block]) or as_json(block))
    for step in story.steps:
        if words := text_of(step.said):
            yield Move(step.number, "the model says", words)
        for call in step.calls:
            yield Move(step.number, f"the model calls {call.name}", as_json(call.input))
        for call in step.calls:
            how = "fails with" if call.failed else "gives"
            result = call.result or []
            words = text_of(result) or as_json(result)
            yield Move(step.number, f"{call.name} {how}", words)
    yield Move(len(story.steps), "the run ends", story.stop or "nowhere: it is unfinished")


def parting(a: Story, b: Story) -> int | None:
    """The number of moves that both runs begin with; None if they are the same to the end."""
    for number, (x, y) in enumerate(zip_longest(moves(a), moves(b))):
        if x is None or y is None or (x.what, x.text) != (y.what, y.text):
            return number
    return None


def compare(a: Story, b: Story, names: tuple[str, str]) -> Iterator[Line]:
    """How the two runs compare, and where they part."""
    yield from _table(a, b, names)
    yield []
    shared = parting(a, b)
    if shared is None:
        yield [("The same was said and done in both.", "green")]
        return
    told = list(moves(a)), list(moves(b))
    step = min(each[shared].step for each in told if shared < len(each))
    where = f"in step {step}" if step else "at the beginning"
    yield [("They part ", ""), (where, "bold"), (f", after {count(shared, 'move')}", "")]
    for move in told[0][max(shared - _CONTEXT, 0) : shared]:
        yield [(f"    {_told(move)}", "dim")]
    x, y = (each[shared] if shared < len(each) else None for each in told)
    yield from _difference(x, y)


def _difference(x: Move | None, y: Move | None) -> Iterator[Line]:
    if x is None or y is None or x.what != y.what:
        yield [("  A ", "red"), (_told(x), "")]
        yield [("  B ", "green"), (_told(y), "")]
        return
    yield [(f"    {one_line(x.what, 80)}", "")]
    lines = list(
        difflib.unified_diff(x.text.splitlines(), y.text.splitlines(), n=_CONTEXT, lineterm="")
    )[2:]
    styles = {"-": "red", "+": "green", "@": "dim"}
    for line in lines[:_MOST_LINES]:
        yield [(f"    {safe(line[:2000])}", styles.get(line[:1], ""))]
    if len(lines) > _MOST_LINES:
        yield [(f"    [{len(lines) - _MOST_LINES} more lines]", "dim")]


def _told(move: Move | None) -> str:
    if move is None:
        return "nothing more"
    return one_line(f"{move.what} {move.text}", 160)


def _table(a: Story, b: Story, names: tuple[str, str]) -> Iterator[Line]:
    for side, style, name, story in (("A", "red", names[0], a), ("B", "green", names[1], b)):
        whose = one_line(f"{story.agent}, run {story.id}", 80)
        yield [(f"{side} ", style), (one_line(name), ""), (f"  {whose}", "dim")]
    yield []
    rows = [("", "A", "B"), *((name, tell(a), tell(b)) for name, tell in _FACTS.items())]
    for name, left, right in rows:
        style = "" if left == right or not name else "bold"
        yield [(f"  {name:12}", "dim"), (f"{one_line(left, 20):>14}", style),
               (f"{one_line(right, 20):>14}", style)]  # fmt: skip


_FACTS: dict[str, Callable[[Story], str]] = {
    "stop": lambda story: story.stop or "unfinished",
    "steps": lambda story: f"{len(story.steps):,}",
    "tool calls": lambda story: f"{len(story.calls):,}",
    "failed": lambda story: f"{sum(call.failed for call in story.calls):,}",
    "tokens": lambda story: f"{tokens(story.usage):,}",
    "time": lambda story: duration(span(story)[1] - span(story)[0]),
}
