"""What happened in a run. Events are facts: a sink only listens, and never steers a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from mcp_types import ToolResultContent, ToolUseContent

from agentloop.errors import where
from agentloop.log import log
from agentloop.meta import Reply
from agentloop.run import Run


class RunStarted(NamedTuple):
    """A run begins, or goes on where it was suspended (``resumed``)."""

    run: Run
    key: str
    resumed: bool = False
    within: str | None = None
    """The id of the run in whose tool call it runs."""


class AskStarted(NamedTuple):
    """An ask leaves for the model, through the provider of that name."""

    run: Run
    key: str
    provider: str


class AskEnded(NamedTuple):
    """The model answered after ``seconds``.

    They count from when the ask left. Over rounds that may have been in another process, so there
    they are by two clocks.
    """

    run: Run
    key: str
    reply: Reply
    seconds: float
    provider: str


class ToolStarted(NamedTuple):
    """A tool call begins."""

    run: Run
    key: str
    call: ToolUseContent


class ToolEnded(NamedTuple):
    """A tool call ended after ``seconds``, well or as an error."""

    run: Run
    key: str
    call: ToolUseContent
    result: ToolResultContent
    seconds: float


class RunSuspended(NamedTuple):
    """The run waits for its caller, to be resumed elsewhere or never: this process is done with
    it. What it had begun, an ask or tool calls, does not end here."""

    run: Run
    key: str


class RunEnded(NamedTuple):
    """The run has a ``stop``."""

    run: Run
    key: str


Event = RunStarted | AskStarted | AskEnded | ToolStarted | ToolEnded | RunSuspended | RunEnded
"""``key`` tells the runs of one function apart: ``1`` is the second run, ``1/3.0/0`` the first run
inside the first tool call of its third step."""

NAMES: dict[type[Event], str] = {
    RunStarted: "run_started",
    AskStarted: "ask_started",
    AskEnded: "ask_ended",
    ToolStarted: "tool_started",
    ToolEnded: "tool_ended",
    RunSuspended: "run_suspended",
    RunEnded: "run_ended",
}
"""What logs and transcripts call them."""

Sink = Callable[[Event], None]
"""Listens to events. Called in the event loop, so it must be quick; what it raises is logged."""


def carrier(provider: str) -> str:
    """How asks travel to the provider of that name: ``push``, ``rounds``, ... or ``provider``."""
    _, _, rest = provider.partition("client (")
    return rest.partition(")")[0] or "provider"


def all_of(*sinks: Sink) -> Sink:
    """One sink that gives each event to all of ``sinks``; what one raises spares the others."""

    def sink(event: Event) -> None:
        for each in sinks:
            tell(each, event)

    return sink


def tell(sink: Sink | None, event: Event) -> None:
    """Give ``event`` to ``sink``; an error there is logged and goes no further."""
    if sink is None:
        return
    try:
        sink(event)
    except Exception as error:  # noqa: BLE001  a sink never influences a run
        log().error(
            "event_sink_failed",
            event_type=type(event).__name__,
            error_type=type(error).__name__,
            at=where(error),
        )
