"""What happened in a run. Events are facts: a sink only listens, and never steers a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog
from mcp_types import ToolResultContent, ToolUseContent

from agentloop.meta import Reply
from agentloop.run import Run


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A run begins, or goes on where it was suspended (``resumed``)."""

    run: Run
    key: str
    resumed: bool = False


@dataclass(frozen=True, slots=True)
class AskStarted:
    """An ask leaves for the model."""

    run: Run
    key: str


@dataclass(frozen=True, slots=True)
class AskEnded:
    """The model answered after ``seconds``."""

    run: Run
    key: str
    reply: Reply
    seconds: float


@dataclass(frozen=True, slots=True)
class ToolStarted:
    """A tool call begins."""

    run: Run
    key: str
    call: ToolUseContent


@dataclass(frozen=True, slots=True)
class ToolEnded:
    """A tool call ended after ``seconds``, well or as an error."""

    run: Run
    key: str
    call: ToolUseContent
    result: ToolResultContent
    seconds: float


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The run has a ``stop``."""

    run: Run
    key: str


Event = RunStarted | AskStarted | AskEnded | ToolStarted | ToolEnded | RunEnded
"""``key`` tells the runs of one function apart: ``1`` is the second run, ``1/c7/0`` the first run
inside the tool call ``c7`` of it."""

Sink = Callable[[Event], None]
"""Listens to events. Called in the event loop, so it must be quick; what it raises is logged."""


def tell(sink: Sink | None, event: Event) -> None:
    """Give ``event`` to ``sink``; an error there is logged and goes no further."""
    if sink is None:
        return
    try:
        sink(event)
    except Exception:  # noqa: BLE001  a sink never influences a run
        structlog.get_logger("agentloop").exception("event_sink_failed", event_type=type(event))
