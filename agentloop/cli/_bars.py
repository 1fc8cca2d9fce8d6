"""A run as lines: a bar for everything that took time, on one axis."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from agentloop.cli._progress import Line
from agentloop.cli._terminal import one_line, safe
from agentloop.page.lanes import span, window
from agentloop.page.steps import mood
from agentloop.page.words import as_json, count, duration, moment, on_one_line, tokens
from agentloop.story import Call, Step, Story, text_of

_NAME = 18
_TOOK = 10
_COLOURS = ("cyan", "yellow", "magenta", "green", "bright_blue", "bright_magenta")
_MOODS = {"good": "green", "bad": "red", "early": "yellow", "open": "dim"}
_MOST_WORDS = 4000
"""Characters of one text that are shown."""
_MOST_LINES = 10
"""Of the answer, where it is no more than the end of the timeline."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A stretch of time, so many columns wide."""

    began: float
    length: float
    columns: int
    marks: str
    """For a whole column, its left half and its right half."""

    def bar(self, since: float, until: float) -> str:
        """A bar from ``since`` to ``until``, to half a column."""
        halves = self.columns * 2
        first = min(max(round((since - self.began) / self.length * halves), 0), halves - 1)
        last = max(min(round((until - self.began) / self.length * halves), halves), first + 1)
        whole, left, right = self.marks
        filled = [first <= half < last for half in range(halves)]
        pairs = zip(filled[::2], filled[1::2], strict=True)
        return "".join(whole if a and b else left if a else right if b else " " for a, b in pairs)


class Bars:
    """Writes runs, ``width`` columns wide."""

    def __init__(self, width: int, *, ascii_only: bool = False, full: bool = False) -> None:
        """``full`` has what was said under every bar."""
        self._width = max(width, 60)
        self._columns = max(min(self._width - _NAME - _TOOK - 56, 64), 16)
        self._marks = "===" if ascii_only else "━╸╺"
        self._full = full
        self._colours: dict[str, str] = {}

    def of(self, story: Story, first: int = 1, last: int = 10**9) -> Iterator[Line]:
        """The story from step ``first`` to step ``last``, with its head and its end."""
        yield from head(story)
        asked = [text_of([block]) for role, block in story.before if role == "user"]
        if asked:
            yield [("  > ", "dim"), (one_line(asked[-1], self._width - 4), "")]
        yield []
        steps = [step for step in story.steps if first <= step.number <= last]
        if steps:
            times = [window(story, step) for step in steps]
            began, ended = min(t[0] for t in times), max(t[1] for t in times)
            axis = Axis(began, max(ended - began, 1e-6), self._columns, self._marks)
            left = duration(began - story.began) if steps[0].number > 1 else "0"
            right = f"{duration(ended - story.began):>{self._columns - len(left)}}"
            yield [(f"{'':{_NAME + _TOOK + 5}}{left}{right}", "dim")]
            for step in steps:
                yield from self._step(axis, story, step, 0)
            yield []
        yield from self._end(story)

    def _step(self, axis: Axis, story: Story, step: Step, depth: int) -> Iterator[Line]:
        ask = step.ask
        facts = [count(len(step.calls), "call")] if step.calls else []
        if spent := tokens(ask.usage):
            facts.append(count(spent, "token"))
        words = "" if self._full else " ".join(text_of(step.said).split())
        what = ", ".join(facts) + (f'  "{words}"' if words else "")
        number = f"{step.number:>3} " if depth == 0 else "    "
        took = self._took(axis, story, ask.began, ask.ended)
        style = "red" if ask.began and not ask.ended else "bold"
        yield [(number, "dim"), *self._row("model", style, took, what, depth)]
        if self._full:
            yield from self._words(text_of(step.said), depth)
        for call in step.calls:
            yield from self._call(axis, story, call, depth)
            for inner in call.runs:
                for inner_step in inner.steps:
                    yield from self._step(axis, inner, inner_step, depth + 1)

    def _call(self, axis: Axis, story: Story, call: Call, depth: int) -> Iterator[Line]:
        said = text_of(call.result or ())
        what = on_one_line(call.input, 120)
        if call.failed and not self._full:
            what = f"{one_line(what, 24)} failed: {' '.join(said.split())}".strip()
        colour = "red" if call.failed else self._colour(call.name)
        took = self._took(axis, story, call.began, call.ended)
        yield [("    ", ""), *self._row(call.name, colour, took, what, depth)]
        if self._full:
            yield from self._words(as_json(call.input), depth, "< ")
            yield from self._words(said, depth, "> ")

    def _took(
        self, axis: Axis, story: Story, began: float | None, ended: float | None
    ) -> tuple[str, str]:
        """How long it took, and its bar."""
        if began is None:
            return "not run", " " * self._columns
        bar = axis.bar(began, span(story)[1] if ended is None else ended)
        return ("unfinished" if ended is None else duration(ended - began)), bar

    def _row(self, name: str, style: str, took: tuple[str, str], what: str, depth: int) -> Line:
        name = "  " * depth + one_line(name, _NAME - 2 * depth)
        room = self._width - _NAME - _TOOK - self._columns - 8
        return [
            (f"{name:{_NAME}}", style),
            (f"{took[0]:>{_TOOK}} ", "dim"),
            (took[1], "blue" if style == "bold" else style),
            (f"  {one_line(what, max(room, 12))}" if what else "", ""),
        ]

    def _words(self, text: str, depth: int, mark: str = "") -> Iterator[Line]:
        margin = "      " + "  " * depth + mark
        for line in safe(text[:_MOST_WORDS]).splitlines():
            yield [(margin, "dim"), (line, "dim" if mark else "")]
        if (more := len(text) - _MOST_WORDS) > 0:
            yield [(f"{margin}[{count(more, 'more character')}]", "dim")]

    def _end(self, story: Story) -> Iterator[Line]:
        if story.error:
            yield [(f"  {one_line(story.error, self._width - 2)}", "red")]
        answer = story.text if story.answer is None else as_json(story.answer)
        if self._full and story.answer is None:
            return
        lines: list[str] = []
        for line in safe(answer[:_MOST_WORDS]).splitlines():
            lines += textwrap.wrap(line, self._width - 4) or [""]
        for line in lines[:_MOST_LINES]:
            yield [(f"  {line}", "")]
        if (more := len(lines) - _MOST_LINES) > 0:
            yield [(f"  [{count(more, 'more line')}]", "dim")]

    def _colour(self, tool: str) -> str:
        return self._colours.setdefault(tool, _COLOURS[len(self._colours) % len(_COLOURS)])


def head(story: Story) -> Iterable[Line]:
    """Whose run it was, how it ended, and what it took."""
    began, ended = span(story)
    facts = [count(len(story.steps), "step"), count(len(story.calls), "tool call")]
    if story.usage:
        about = " (estimated)" if story.estimated else ""
        facts.append(count(tokens(story.usage), "token") + about)
    facts.append(duration(ended - began))
    models = dict.fromkeys(step.ask.model for step in story.steps if step.ask.model)
    origin = [moment(story.began), f"run {one_line(story.id, 40)}", one_line(", ".join(models), 60)]
    stop = one_line(story.stop, 20) or "unfinished"
    how = [(one_line(story.agent, 60), "bold"), (f"  {stop}", _MOODS[mood(story)])]
    return [
        [*how, (f"  {', '.join(facts)}", "")],
        [(f"  {', '.join(filter(None, origin))}", "dim")],
    ]
