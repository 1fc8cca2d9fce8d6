"""Transcripts as files: what happened in runs and when, written as it happens or afterwards.

A transcript is a text file of JSON lines. The first one is a header that says what the file is::

    {"agentloop": "transcript", "version": 1, "at": 1767225600.0, "by": "0.1.0"}

Each line after it is one event, ``t`` seconds (of a clock that never jumps) after ``at``, which is
in seconds since the epoch. ``run`` says in which run, ``key`` at which place of which other run:

    run_started    agent, began, resumed, within, instructions, tools, trace
    message        n, message: the run's message number n, in the protocol's own JSON
    ask_started    step, provider
    ask_ended      step, provider, seconds, model, stop_reason, usage
    tool_started   step, number, call, name: the call of that id, the number-th of its step
    tool_ended     step, number, call, name, seconds, failed
    run_suspended
    run_ended      stop, error, steps, tool_calls, seconds, usage, answer

Every message stands in the file once, when it can no longer change. Files of the same run that
several processes wrote can be put one after another. A reader skips what it does not know, so
later versions can say more; what an earlier reader would misread makes a new ``version``.
:mod:`agentloop.timeline` reads it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, TextIO

from agentloop._version import __version__
from agentloop.events import (
    AskEnded,
    AskStarted,
    Event,
    RunEnded,
    RunStarted,
    RunSuspended,
    ToolEnded,
    ToolStarted,
)
from agentloop.journal import Moment
from agentloop.meta import USAGE_KEY
from agentloop.run import Run
from agentloop.usage import Usage

VERSION = 1
KIND = "transcript"

_LINE_ENDS = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}
"""What some readers take for the end of a line."""
_MOST_RUNS = 10_000
"""Runs of which it is remembered what was written; a suspended one may never come back."""


def save(file: str | Path, run: Run, moments: Iterable[Moment], *, key: str) -> None:
    """Write the transcript of ``run``, which was at ``key``, and of what ``moments`` tell."""
    moments = list(moments)
    now = time.monotonic()
    first = moments[0].at if moments else now
    entries = Entries()
    with Path(file).open("w", encoding="utf-8", errors="replace", newline="\n") as out:
        _write(out, _header(time.time() - (now - first)))
        for at, event in moments:
            _write(out, *entries.of(event, at - first))
        if not entries.ended(run):  # it ended before this process came to it
            _write(out, *entries.of(RunStarted(run, key, resumed=bool(run.steps)), now - first))
            _write(out, *entries.of(RunEnded(run, key), now - first))


class TranscriptFile:
    """An event sink that writes what happens to a file, line by line, as it happens.

    Whatever befalls the process, the file holds what had happened by then. One file takes the runs
    of a whole server if need be. Use it as a context manager, or call :meth:`close`.
    """

    def __init__(self, file: str | Path, *, append: bool = False) -> None:
        """``append`` goes on with a file that is there. Raises ``OSError``."""
        mode = "a" if append else "w"
        self._out = Path(file).open(  # noqa: SIM115  closed in close()
            mode, encoding="utf-8", errors="replace", newline="\n"
        )
        self._entries = Entries()
        self._lock = Lock()
        self._began = time.monotonic()
        _write(self._out, _header(time.time()))

    def __call__(self, event: Event) -> None:
        with self._lock:
            _write(self._out, *self._entries.of(event, time.monotonic() - self._began))
            self._out.flush()

    def close(self) -> None:
        """Nothing more is written."""
        self._out.close()

    def __enter__(self) -> TranscriptFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Entries:
    """Makes the entries of a file of events; knows what the file says already."""

    def __init__(self) -> None:
        self._written: dict[str, int] = {}
        self._usage: dict[str, Usage] = {}
        self._ended: set[str] = set()

    def ended(self, run: Run) -> bool:
        """Whether the end of ``run`` was written."""
        return run.id in self._ended

    def of(self, event: Event, t: float) -> Iterator[dict[str, Any]]:
        """The entries that ``event``, which happened at ``t``, adds to the file."""
        run = event.run
        where: dict[str, Any] = {"t": round(t, 6), "run": run.id, "key": event.key}
        if isinstance(event, RunStarted):
            yield {"event": "run_started", **where, **_beginning(event)}
            yield from self._messages(run, where)
            self._usage[run.id] = run.usage
        elif isinstance(event, AskStarted):
            yield from self._messages(run, where)
            self._usage[run.id] = run.usage
            step = run.steps + 1
            yield {"event": "ask_started", **where, "step": step, "provider": event.provider}
        elif isinstance(event, AskEnded):
            yield {"event": "ask_ended", **where, **self._answer(event)}
            yield from self._messages(run, where, most=self._written.get(run.id, 0) + 1)
        elif isinstance(event, ToolStarted):
            yield {"event": "tool_started", **where, **_call(event)}
        elif isinstance(event, ToolEnded):
            how = {"seconds": round(event.seconds, 6), "failed": bool(event.result.is_error)}
            yield {"event": "tool_ended", **where, **_call(event), **how}
        elif isinstance(event, RunSuspended):
            yield {"event": "run_suspended", **where}
        else:
            yield from self._messages(run, where)
            yield {"event": "run_ended", **where, **_ending(run)}
            self._forget(run)

    def _messages(
        self, run: Run, where: dict[str, Any], *, most: int | None = None
    ) -> Iterator[dict[str, Any]]:
        """The messages of ``run`` that are not in the file yet.

        At most ``most`` in all: results may still get a notice until the next ask leaves.
        """
        first = self._written.get(run.id, 0)
        last = len(run.messages) if most is None else min(most, len(run.messages))
        for n in range(first, last):
            message = run.messages[n].model_dump(mode="json", by_alias=True, exclude_none=True)
            yield {"event": "message", **where, "n": n, "message": message}
        self._written[run.id] = max(first, last)
        while len(self._written) > _MOST_RUNS:
            oldest = next(iter(self._written))
            del self._written[oldest]
            self._usage.pop(oldest, None)

    def _answer(self, event: AskEnded) -> dict[str, Any]:
        reply = event.reply
        usage = _difference(event.run.usage, self._usage.get(event.run.id, Usage()))
        self._usage[event.run.id] = event.run.usage
        if not reply.meta or USAGE_KEY not in reply.meta:
            usage["estimated"] = event.run.usage.estimated
        return {
            "step": event.run.steps,
            "provider": event.provider,
            "seconds": round(event.seconds, 6),
            "model": reply.model,
            "stop_reason": reply.stop_reason,
            "usage": usage,
        }

    def _forget(self, run: Run) -> None:
        self._written.pop(run.id, None)
        self._usage.pop(run.id, None)
        self._ended.add(run.id)
        if len(self._ended) > _MOST_RUNS:
            self._ended.clear()


def _header(at: float) -> dict[str, Any]:
    return {"agentloop": KIND, "version": VERSION, "at": round(at, 6), "by": __version__}


def _beginning(event: RunStarted) -> dict[str, Any]:
    run, definition = event.run, event.run.definition
    return {
        "agent": definition.name,
        "began": round(run.began, 6),
        "resumed": event.resumed,
        "within": event.within,
        "instructions": definition.instructions,
        "tools": [tool.name for tool in definition.offered],
        "trace": run.trace,
    }


def _call(event: ToolStarted | ToolEnded) -> dict[str, Any]:
    uses = (b for b in event.run.messages[-1].content_as_list if b.type == "tool_use")
    number = next((n for n, use in enumerate(uses) if use.id == event.call.id), None)
    return {
        "step": event.run.steps,
        "number": number,
        "call": event.call.id,
        "name": event.call.name,
    }


def _ending(run: Run) -> dict[str, Any]:
    return {
        "stop": run.stop,
        "error": run.error,
        "steps": run.steps,
        "tool_calls": run.tool_calls,
        "seconds": round(run.seconds, 6),
        "usage": run.usage.to_json(),
        "answer": run.answer[0] if run.answer else None,
    }


def _difference(after: Usage, before: Usage) -> dict[str, Any]:
    counts = [f.name for f in fields(Usage) if f.name not in ("asks", "estimated")]
    return {name: getattr(after, name) - getattr(before, name) for name in counts}


def _write(out: TextIO, *entries: dict[str, Any]) -> None:
    for entry in entries:
        told = {name: value for name, value in entry.items() if value is not None}
        line = json.dumps(told, ensure_ascii=False, separators=(",", ":"))
        out.write(line.translate(_LINE_ENDS) + "\n")
