"""What a run does, in lines: one for each ask and each tool call, when it has ended."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mcp_types import ToolUseContent

from agentloop.cli._terminal import one_line
from agentloop.events import AskEnded, AskStarted, Event, RunEnded, ToolEnded, ToolStarted
from agentloop.output import ANSWER_TOOL
from agentloop.run import Run, Stop

Line = list[tuple[str, str]]
"""Pieces of text, safe to print, each with its style: ``""``, or what rich calls it."""

_NAME_WIDTH = 14


@dataclass(frozen=True, slots=True)
class Running:
    """Something that has begun and not ended."""

    write: Callable[[float], Line]
    began: float

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    @property
    def line(self) -> Line:
        """What it is, and for how long by now."""
        return self.write(self.seconds)


class Progress:
    """An event sink that gives a line to ``write`` for everything that ends.

    Runs inside of the outermost one are indented and named; where several have one name, numbered.
    """

    def __init__(self, write: Callable[[Line], None]) -> None:
        self._write = write
        self._labels: dict[str, str] = {}
        self._named: Counter[str] = Counter()
        self._began: dict[str, float] = {}
        self.running: dict[tuple[str, str], Running] = {}
        """What has begun, by the run's key and the tool call's id, which is empty for asks."""
        """The outermost run as it was last heard of."""
        self.asks = self.tool_calls = self.tokens = 0
        """What all runs together did up to now."""

    @property
    def seconds(self) -> float:
        """Since the outermost run began."""
        began = next(iter(self._began.values()), None)
        return 0.0 if began is None else time.monotonic() - began

    def __call__(self, event: Event) -> None:
        head = self._head(event)
        if isinstance(event, AskStarted):
            step = event.run.steps + 1
            self._begin(event.key, "", lambda spent: [*head, *_model(step, spent)])
        elif isinstance(event, AskEnded):
            self.asks += 1
            self.tokens += event.run.last_tokens
            seconds = self._end(event.key, "", event.seconds)
            self._write([*head, *_model(event.run.steps, seconds), *_said(event)])
        elif isinstance(event, ToolStarted):
            call = event.call
            self._begin(event.key, call.id, lambda spent: [*head, *_tool(call, spent)])
        elif isinstance(event, ToolEnded):
            self.tool_calls += 1
            seconds = self._end(event.key, event.call.id, event.seconds)
            self._write([*head, *_tool(event.call, seconds)])
            if event.result.is_error:
                self._write([*head, *_failure(event)])
        elif isinstance(event, RunEnded):
            for key in [key for key in self.running if key[0] == event.key]:
                del self.running[key]
            self._write([*head, *_end(event.run, time.monotonic() - self._began[event.key])])

    def _head(self, event: Event) -> Line:
        """The beginning of a line: whose it is, where that is not the outermost run."""
        key, name = event.key, one_line(event.run.definition.name, 30)
        self._began.setdefault(key, time.monotonic())
        if key not in self._labels:
            self._named[name] += 1
            number = self._named[name]
            label = name if number == 1 else f"{name} {number}"
            self._labels[key] = f"    {label:{_NAME_WIDTH}} " if self._labels else ""
        label = self._labels[key]
        return [(label, "dim")] if label else []

    def _begin(self, key: str, call: str, write: Callable[[float], Line]) -> None:
        # Over rounds what was suspended begins again; it has gone on all the time.
        self.running.setdefault((key, call), Running(write, time.monotonic()))

    def _end(self, key: str, call: str, seconds: float) -> float:
        """How long it took as a person sees it: over rounds, with the time between two rounds."""
        running = self.running.pop((key, call), None)
        return running.seconds if running else seconds


def plain(line: Line) -> str:
    """``line`` without its styles."""
    return "".join(text for text, _ in line).rstrip()


def duration(seconds: float) -> str:
    """Seconds as a person reads them."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def count(number: int, what: str) -> str:
    """``1 step``, ``2 steps``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _model(step: int, seconds: float) -> Line:
    return [(f"{step:2}. ", "dim"), (f"{'model':{_NAME_WIDTH}}", "bold"), _took(seconds)]


def _tool(call: ToolUseContent, seconds: float) -> Line:
    given = " ".join(f"{name}={_short(value)}" for name, value in call.input.items())
    name = f"    {one_line(call.name, 40):{_NAME_WIDTH}}"
    return [(name, "cyan"), _took(seconds), (one_line(given, 90), "")]


def _took(seconds: float) -> tuple[str, str]:
    return (f" {duration(seconds):>8}  ", "dim")


def _said(event: AskEnded) -> Line:
    content = event.reply.content
    blocks = content if isinstance(content, list) else [content]
    calls = [b for b in blocks if b.type == "tool_use" and b.name != ANSWER_TOOL]
    if not calls:
        return [("answer", "")]
    words = one_line(" ".join(b.text for b in blocks if b.type == "text"), 60)
    return [(count(len(calls), "tool call"), ""), (f'  "{words}"' if words else "", "dim")]


def _short(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)[:200]
    except (ValueError, RecursionError):
        return "..."


def _failure(event: ToolEnded) -> Line:
    said = " ".join(block.text for block in event.result.content if block.type == "text")
    below_arguments = sum(len(text) for text, _ in _tool(event.call, 0.0)[:2])
    return [(" " * below_arguments, ""), (f"failed: {one_line(said, 160)}", "red")]


def _end(run: Run, seconds: float) -> Line:
    """How a run ended, and what it took."""
    usage = run.usage
    tokens = count(usage.total_tokens, "token") + (" (estimated)" if usage.estimated else "")
    facts = [count(run.steps, "step"), count(run.tool_calls, "tool call"), tokens]
    if run.stop is Stop.DONE:
        how: Line = [("done", "green")]
    elif run.stop in (Stop.FAILED, Stop.DENIED, Stop.CANCELLED):
        how = [(str(run.stop), "red")]
    else:
        how = [(f"stopped early ({run.stop})", "yellow")]
    return [*how, (f" after {', '.join([*facts, duration(seconds)])}", "dim")]
