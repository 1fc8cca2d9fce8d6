"""Whether a run goes in circles: the same calls giving the same results, again and again."""

from __future__ import annotations

from enum import Enum
from typing import Any

from mcp_types import SamplingMessage, ToolUseContent

from agentloop.meta import NOTICE_KEY
from agentloop.transcript import Transcript


class Repeats(Enum):
    """How much the latest turns of a run repeat one another."""

    NOT = 0
    ONCE = 1
    """The last turn repeats the one before."""
    STUCK = 2
    """The same turn three times (A-A-A), or two that take turns (A-B-A-B)."""


def repeats_in(transcript: Transcript, polls: frozenset[str]) -> Repeats:
    """How much the latest turns repeat one another; calls of the tools ``polls`` never do."""
    latest = transcript.latest(9)
    if len(latest) < 5:
        return Repeats.NOT
    # Almost always this first look at the arguments is the last.
    given = [_last_input(message) for message in latest[-2:-7:-2]]
    if None not in given and given[0] not in given[1:]:
        return Repeats.NOT
    if _same(latest, polls, 0, 1):
        return Repeats.STUCK if _same(latest, polls, 1, 2) else Repeats.ONCE
    stuck = _same(latest, polls, 0, 2) and _same(latest, polls, 1, 3)
    return Repeats.STUCK if stuck else Repeats.NOT


def _same(messages: list[SamplingMessage], polls: frozenset[str], one: int, other: int) -> bool:
    """Whether two turns made the same calls and got the same results, counted back from the last.

    Compared are the messages themselves, so nothing needs to be remembered.
    """
    if len(messages) < 2 * max(one, other) + 3:
        return False
    said, said_then = messages[-2 - 2 * one], messages[-2 - 2 * other]
    made, made_then = _calls(said), _calls(said_then)
    if not made or made != made_then or any(name in polls for name, _ in made):
        return False
    got, got_then = (_gist(messages[-1 - 2 * turn]) for turn in (one, other))
    return got == got_then


def _last_input(message: SamplingMessage) -> dict[str, Any] | None:
    """The arguments of the call that ends ``message``, if one does."""
    content = message.content
    last = content[-1] if isinstance(content, list) and content else None
    return last.input if isinstance(last, ToolUseContent) else None


def _calls(message: SamplingMessage) -> list[tuple[str, dict[str, Any]]]:
    return [(use.name, use.input) for use in message.content_as_list if use.type == "tool_use"]


def _gist(message: SamplingMessage) -> list[Any]:
    """What the results in ``message`` say, without the runtime's own notices."""
    return [
        (
            [part for part in result.content if not (part.meta and NOTICE_KEY in part.meta)],
            result.is_error,
        )
        for result in message.content_as_list
        if result.type == "tool_result"
    ]
