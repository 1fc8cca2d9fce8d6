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
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, TextIO

from mcp_types import ToolUseContent

from agentloop._version import __version__
from agentloop.events import (
    NAMES,
    AskEnded,
    AskStarted,
    Event,
    RunEnded,
    RunStarted,
    ToolEnded,
    ToolStarted,
)
from agentloop.journal import Moment, moment
from agentloop.run import Run
from agentloop.usage import Usage

VERSION = 1
KIND = "transcript"

_LINE_ENDS = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}
"""What some readers take for the end of a line."""
_MOST_RUNS = 10_000
"""Runs of which it is remembered what was written; a suspended one may never come back."""


def save(file: str | Path, run: Run, moments: Iterable[tuple[Moment, Run]], *, key: str) -> None:
    """Write the transcript of ``run``, which was at ``key``, and of what ``moments`` tell, each
    with the run that it is about."""
    told = list(moments)
    if not any(it.kind is RunEnded for it, about in told if about.id == run.id):
        # It ended before this process came to it.
        ends = RunStarted(run, key, resumed=bool(run.steps)), RunEnded(run, key)
        told += [(moment(event), run) for event in ends]
    first = told[0][0].at
    entries = Entries()
    with Path(file).open("w", encoding="utf-8", errors="replace", newline="\n") as out:
        _write(out, _header(time.time() - (time.monotonic() - first)))
        for it, about in told:
            _write(out, *entries.of(it, about, it.at - first))


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
            now = moment(event)
            _write(self._out, *self._entries.of(now, event.run, now.at - self._began))
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
    """Makes the entries of a file of what happened; knows what the file says already."""

    def __init__(self) -> None:
        self._written: dict[str, int] = {}
        self._usage: dict[str, Usage] = {}

    def of(self, moment: Moment, run: Run, t: float) -> Iterator[dict[str, Any]]:
        """The entries that a moment of ``run``, which was at ``t``, adds to the file.

        ``run`` may have gone on since.
        """
        kind, facts = moment.kind, moment.facts
        where: dict[str, Any] = {"t": round(t, 6), "run": run.id, "key": moment.key}
        entry: dict[str, Any] = {"event": NAMES[kind], **where}
        if kind is RunStarted:
            resumed, within = facts
            yield entry | _beginning(run) | {"resumed": resumed, "within": within}
            yield from self._messages(run, where, moment.messages)
            self._usage[run.id] = moment.usage
        elif kind is AskStarted:
            yield from self._messages(run, where, moment.messages)
            self._usage[run.id] = moment.usage
            yield entry | {"step": moment.steps + 1, "provider": facts[0]}
        elif kind is AskEnded:
            yield entry | self._answer(moment, run)
            # No more than the reply: results may still get a notice until the next ask leaves.
            one_more = self._written.get(run.id, 0) + 1
            yield from self._messages(run, where, min(one_more, moment.messages))
        elif kind is ToolStarted:
            yield entry | _call(moment, run, facts[0])
        elif kind is ToolEnded:
            call, result, seconds = facts
            how = {"seconds": round(seconds, 6), "failed": bool(result.is_error)}
            yield entry | _call(moment, run, call) | how
        elif kind is RunEnded:
            yield from self._messages(run, where, moment.messages)
            yield entry | _ending(run)
            self._written.pop(run.id, None)
            self._usage.pop(run.id, None)
        else:
            yield entry

    def _messages(self, run: Run, where: dict[str, Any], most: int) -> Iterator[dict[str, Any]]:
        """The messages of ``run`` that are not in the file yet, up to ``most`` in all."""
        first = self._written.get(run.id, 0)
        most = min(most, len(run.messages))
        for n in range(first, most):
            message = run.messages[n].model_dump(mode="json", by_alias=True, exclude_none=True)
            yield {"event": "message", **where, "n": n, "message": message}
        self._written[run.id] = max(first, most)
        while len(self._written) > _MOST_RUNS:
            oldest = next(iter(self._written))
            del self._written[oldest]
            self._usage.pop(oldest, None)

    def _answer(self, moment: Moment, run: Run) -> dict[str, Any]:
        model, stop_reason, counted, seconds, provider = moment.facts
        usage = _difference(moment.usage, self._usage.get(run.id, Usage()))
        self._usage[run.id] = moment.usage
        if not counted:
            usage["estimated"] = moment.usage.estimated
        return {
            "step": moment.steps,
            "provider": provider,
            "seconds": round(seconds, 6),
            "model": model,
            "stop_reason": stop_reason,
            "usage": usage,
        }


def _header(at: float) -> dict[str, Any]:
    return {"agentloop": KIND, "version": VERSION, "at": round(at, 6), "by": __version__}


def _beginning(run: Run) -> dict[str, Any]:
    definition = run.definition
    return {
        "agent": definition.name,
        "began": round(run.began, 6),
        "instructions": definition.instructions,
        "tools": [tool.name for tool in definition.offered],
        "trace": run.trace,
    }


def _call(moment: Moment, run: Run, call: ToolUseContent) -> dict[str, Any]:
    content = run.messages[moment.messages - 1].content_as_list
    uses = (block for block in content if block.type == "tool_use")
    number = next((n for n, use in enumerate(uses) if use.id == call.id), None)
    return {"step": moment.steps, "number": number, "call": call.id, "name": call.name}


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
    counts = [name for name in Usage._fields if name not in ("asks", "estimated")]
    return {name: getattr(after, name) - getattr(before, name) for name in counts}


def _write(out: TextIO, *entries: dict[str, Any]) -> None:
    for entry in entries:
        told = {name: value for name, value in entry.items() if value is not None}
        line = json.dumps(told, ensure_ascii=False, separators=(",", ":"))
        out.write(line.translate(_LINE_ENDS) + "\n")
