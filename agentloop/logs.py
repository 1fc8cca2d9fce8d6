"""Runs as structlog lines.

::

    from agentloop.logs import StructLog

    await agent.run("...", on_event=StructLog())

One line when something ends (``run_ended``, ``ask_ended``, ``tool_ended``; a run's beginning and
suspension too), at level info, or warning for what went wrong; and at level debug one when an ask
or a tool call begins. Each has ``run_id``, ``run_key``, ``agent`` and ``step``, asks their
``provider`` and ``carrier``, and what ends its ``seconds``.

While a tool runs, and a run, the same names are bound in ``structlog.contextvars``, so what tools
log themselves can be told apart by them (with the processor ``merge_contextvars``, which
structlog's default configuration has).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import Token
from typing import Any

import structlog
from structlog.contextvars import bind_contextvars, reset_contextvars

from agentloop.events import (
    NAMES,
    AskEnded,
    AskStarted,
    Event,
    RunEnded,
    RunStarted,
    RunSuspended,
    ToolEnded,
    ToolStarted,
    carrier,
)
from agentloop.run import Stop
from agentloop.secret import hidden
from agentloop.text import cut

Redact = Callable[[dict[str, Any]], dict[str, Any] | None]
"""Takes the fields of a line and gives those to log instead, or None for no line."""

MOST_CONTENT = 2000
"""Bytes of one text in a line."""
_LONGEST_NAME = 128


class StructLog:
    """An event sink that logs. One serves all agents.

    What people and models said is left out, unless ``content`` is set: then there are the texts,
    arguments and results too, and what exactly an error said; but for the secrets that are known
    (:func:`agentloop.keep_secret`).
    """

    def __init__(
        self, logger: Any = None, *, content: bool = False, redact: Redact | None = None
    ) -> None:
        """``logger`` is structlog's ``agentloop`` by default; ``redact`` sees each line first."""
        self._logger = structlog.get_logger("agentloop") if logger is None else logger
        self._content = content
        self._redact = redact
        self._bound: dict[str, _Bound] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            self._bound[event.run.id] = _Bound(event)
            self._say("info", event, resumed=event.resumed)
        elif isinstance(event, AskStarted):
            self._say("debug", event, **_asked(event, event.run.steps + 1))
        elif isinstance(event, AskEnded):
            self._answered(event)
        elif isinstance(event, ToolStarted):
            self._bind(event)
            self._say("debug", event, **_called(event))
        elif isinstance(event, ToolEnded):
            self._tool_ended(event)
        elif isinstance(event, RunSuspended):
            self._say("info", event, steps=event.run.steps)
            self._unbind(event)
        else:
            self._ended(event)
            self._unbind(event)

    def _answered(self, event: AskEnded) -> None:
        reply = event.reply
        blocks = reply.content if isinstance(reply.content, list) else [reply.content]
        said: dict[str, Any] = {}
        if self._content:
            said["text"] = _shown("\n".join(b.text for b in blocks if b.type == "text"))
        self._say(
            "info",
            event,
            **_asked(event, event.run.steps),
            seconds=round(event.seconds, 6),
            model=_name(reply.model),
            stop_reason=_name(reply.stop_reason or ""),
            tokens=event.run.last_tokens,
            calls=sum(block.type == "tool_use" for block in blocks),
            **said,
        )

    def _tool_ended(self, event: ToolEnded) -> None:
        failed = bool(event.result.is_error)
        said: dict[str, Any] = {}
        if self._content:
            texts = [block.text for block in event.result.content if block.type == "text"]
            said = {"arguments": _shown(str(event.call.input)), "result": _shown("\n".join(texts))}
        self._say(
            "warning" if failed else "info",
            event,
            **_called(event),
            seconds=round(event.seconds, 6),
            failed=failed,
            **said,
        )
        if bound := self._bound.get(event.run.id):
            bound.leave(event.call.id)

    def _ended(self, event: RunEnded) -> None:
        run = event.run
        more: dict[str, Any] = {}
        if run.error:
            more["error"] = _name(run.error.partition(":")[0])
            if self._content:
                more["message"] = _shown(run.error)
        self._say(
            "info" if run.stop is Stop.DONE else "warning",
            event,
            stop=str(run.stop),
            steps=run.steps,
            tool_calls=run.tool_calls,
            tokens=run.usage.total_tokens,
            seconds=round(run.seconds, 6),
            **more,
        )

    def _say(self, level: str, event: Event, **fields: Any) -> None:
        line: dict[str, Any] | None = {"event": NAMES[type(event)], **_where(event), **fields}
        if self._redact:
            line = self._redact(line)
        if line is not None:
            line = hidden(line)
            getattr(self._logger, level)(line.pop("event", "event"), **line)

    def _bind(self, event: ToolStarted) -> None:
        if bound := self._bound.get(event.run.id):
            bound.enter(event)

    def _unbind(self, event: Event) -> None:
        if bound := self._bound.pop(event.run.id, None):
            reset_contextvars(**bound.run)


class _Bound:
    """What is bound for a run and for its calls, to be taken back when they end."""

    def __init__(self, event: RunStarted) -> None:
        self.run: Mapping[str, Token[Any]] = bind_contextvars(**_where(event))
        self._calls: dict[str, Mapping[str, Token[Any]]] = {}

    def enter(self, event: ToolStarted) -> None:
        self._calls[event.call.id] = bind_contextvars(**_called(event))

    def leave(self, call: str) -> None:
        if tokens := self._calls.pop(call, None):
            reset_contextvars(**tokens)


def _where(event: Event) -> dict[str, Any]:
    return {"run_id": event.run.id, "run_key": event.key, "agent": event.run.definition.name}


def _asked(event: AskStarted | AskEnded, step: int) -> dict[str, Any]:
    return {"step": step, "provider": event.provider, "carrier": carrier(event.provider)}


def _called(event: ToolStarted | ToolEnded) -> dict[str, Any]:
    call = event.call
    return {"step": event.run.steps, "tool": _name(call.name), "call_id": _name(call.id)}


def _name(text: str) -> str:
    """A name that somebody else chose: short, and nothing in it steers a terminal."""
    return _plain(text[:_LONGEST_NAME])


def _shown(text: str) -> str:
    return _plain(cut(hidden(text), MOST_CONTENT))  # before it is cut, as half a secret tells too


def _plain(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
