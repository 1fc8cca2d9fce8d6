"""What happens in a run, in Inspect's transcript: its tool calls, and the agents inside of it.

Model calls Inspect records itself. Events of calls and agents that run inside of one another are
in one another there too.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from uuid import uuid4

from inspect_ai.event import SpanBeginEvent, SpanEndEvent, ToolEvent
from inspect_ai.log import transcript
from inspect_ai.tool import ToolCallError
from inspect_ai.util import current_span_id
from inspect_ai.util._span import (
    _current_span_id as SPAN,  # pyright: ignore[reportPrivateUsage]
)
from mcp_types import ToolResultContent

from agentloop.events import Event, RunEnded, RunStarted, ToolEnded, ToolStarted
from agentloop.run import Run


class Log:
    """An event sink that tells Inspect."""

    def __init__(self) -> None:
        self.run: Run | None = None
        """The outermost run, as it was last heard of."""
        self._top: str | None = None
        self._spans: dict[tuple[str, str], _Span] = {}
        self._calls: dict[tuple[str, str], ToolEvent] = {}

    def __call__(self, event: Event) -> None:
        self._top = self._top or event.key
        if event.key == self._top:
            self.run = event.run
        where = (event.key, "")
        if isinstance(event, RunStarted) and event.key != self._top:
            self._spans[where] = _Span(event.run.definition.name, "agent")
        elif isinstance(event, RunEnded):
            self._ended(event)
        elif isinstance(event, ToolStarted):
            self._started(event)
        elif isinstance(event, ToolEnded):
            self._finished(event)

    def _ended(self, event: RunEnded) -> None:
        for key in [key for key in self._calls if key[0] == event.key]:  # it was cancelled
            self._end_call(key, "Stopped.", failed=True, seconds=None)
        run = event.run
        told = {"agent": run.definition.name, "stop": str(run.stop), "error": run.error}
        counts = {"steps": run.steps, "tool_calls": run.tool_calls, "seconds": run.seconds}
        transcript().info({**told, **counts}, source="agentloop")
        if span := self._spans.pop((event.key, ""), None):
            span.end()

    def _started(self, event: ToolStarted) -> None:
        call = event.call
        key = (event.key, call.id)
        self._spans[key] = _Span(call.name, "tool")
        told = ToolEvent(id=call.id, function=call.name, arguments=call.input, pending=True)
        self._calls[key] = told
        transcript()._event(told)  # pyright: ignore[reportPrivateUsage]

    def _finished(self, event: ToolEnded) -> None:
        failed = bool(event.result.is_error)
        key = (event.key, event.call.id)
        self._end_call(key, _text(event.result), failed=failed, seconds=event.seconds)

    def _end_call(
        self, key: tuple[str, str], text: str, *, failed: bool, seconds: float | None
    ) -> None:
        told = self._calls.pop(key)
        told.result = text
        told.error = ToolCallError("unknown", text) if failed else None
        told.pending = None
        told.completed = datetime.now(UTC)
        told.working_time = seconds
        transcript()._event_updated(told)  # pyright: ignore[reportPrivateUsage]
        self._spans.pop(key).end()


class _Span:
    """A span of Inspect that begins and ends in sinks, which are no place to wait."""

    def __init__(self, name: str, type: str) -> None:
        self._id = uuid4().hex
        parent = current_span_id()
        self._before = SPAN.set(self._id)
        begin = SpanBeginEvent(id=self._id, parent_id=parent, type=type, name=name)
        transcript()._event(begin)  # pyright: ignore[reportPrivateUsage]

    def end(self) -> None:
        transcript()._event(SpanEndEvent(id=self._id))  # pyright: ignore[reportPrivateUsage]
        with suppress(ValueError):  # it ends in another task than it began
            SPAN.reset(self._before)


def _text(result: ToolResultContent) -> str:
    parts = (block.text if block.type == "text" else f"[{block.type}]" for block in result.content)
    return "\n".join(parts)
