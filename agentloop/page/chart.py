"""The timeline: everything that took time as bars on one axis."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from agentloop.page.html import Html, tag
from agentloop.page.lanes import Bar, Level, levels, span
from agentloop.page.words import count, duration, on_one_line, tokens
from agentloop.story import Call, Step, Story

T = TypeVar("T")

HUES = 8
"""Tools are told apart by so many colours."""


class Names:
    """Ids of steps and calls on the page, and the colours of tools."""

    def __init__(self, stories: Iterable[Story]) -> None:
        self._runs: dict[int, str] = {}
        self._tools: dict[str, int] = {}
        for story in stories:
            for each in story.inside():
                self._runs[id(each)] = f"r{len(self._runs)}"
                for call in each.calls:
                    self._tools.setdefault(call.name, len(self._tools) % HUES)

    @property
    def tools(self) -> dict[str, int]:
        """The colour of each tool, in the order in which they were called first."""
        return self._tools

    def run(self, story: Story) -> str:
        return self._runs[id(story)]

    def step(self, story: Story, step: int) -> str:
        return f"{self.run(story)}s{step}"

    def call(self, story: Story, step: int, call: Call) -> str:
        return f"{self.step(story, step)}c{call.number}"


def chart(story: Story, names: Names) -> Html:
    """The timeline of one run and of the runs inside of it."""
    began, ended = span(story)
    length = max(ended - began, 1e-6)
    rows: list[Html] = []
    for depth, level in enumerate(levels(story)):
        rows += _level(level, depth, names, began, length)
    plot = tag("div", tag("div", class_="axis"), *rows, class_="plot", data_length=f"{length:.6f}")
    return tag(
        "section",
        tag(
            "header",
            tag("h2", "Timeline"),
            tag("div", _legend(names), class_="legend"),
            tag(
                "div",
                tag("button", "\u2212", class_="zoom", data_by="0.5", aria_label="zoom out"),
                tag("button", "fit", class_="zoom", data_by="0", aria_label="fit"),
                tag("button", "+", class_="zoom", data_by="2", aria_label="zoom in"),
                class_="zooms",
            ),
        ),
        tag("div", plot, class_="chart", tabindex="0", aria_label="timeline"),
        class_="timeline",
    )


def _level(level: Level, depth: int, names: Names, began: float, length: float) -> list[Html]:
    more = len(level.agents) - 3
    inside = ", ".join(level.agents[:3]) + (f" and {more} more" if more > 0 else "")
    rows = [tag("div", tag("span", inside), class_="group")] if depth else []

    def ask(bar: Bar[Step]) -> Html:
        spent = tokens(bar.item.ask.usage)
        said = f"step {bar.step}: model" + (f", {count(spent, 'token')}" if spent else "")
        target = names.step(bar.story, bar.step)
        return _bar(bar, began, length, target, said, "model", "ask")

    def call(bar: Bar[Call]) -> Html:
        name = bar.item.name
        failed = " failed" if bar.item.failed else ""
        said = f"step {bar.step}: {name}{failed} {on_one_line(bar.item.input, 120)}"
        target = names.call(bar.story, bar.step, bar.item)
        hue = f"h{names.tools[name]}{failed}"
        return _bar(bar, began, length, target, said, name, hue)

    rows += _lanes(level.asks, ask)
    rows += _lanes(level.calls, call)
    return rows


def _lanes(lanes: list[list[Bar[T]]], write: Callable[[Bar[T]], Html]) -> list[Html]:
    return [tag("div", map(write, lane), class_="lane") for lane in lanes]


def _bar(
    bar: Bar[Any], began: float, length: float, target: str, said: str, label: str, kind: str
) -> Html:
    took = bar.ended - bar.began
    left, width = (bar.began - began) / length * 100, took / length * 100
    return tag(
        "a",
        tag("span", label),
        href=f"#{target}",
        class_=f"bar {kind}",
        tabindex=-1,
        style=f"left:{left:.4f}%;width:{width:.4f}%",
        data_says=said,
        data_took=duration(took),
        data_at=f"{bar.began - began:.3f}",
    )


def _legend(names: Names) -> list[Html]:
    shown = list(names.tools.items())[:HUES]
    keys = [tag("span", "model", class_="key ask")]
    keys += [tag("span", name, class_=f"key h{hue}") for name, hue in shown]
    if more := len(names.tools) - len(shown):
        keys.append(tag("span", f"and {more} more", class_="key more"))
    return keys
