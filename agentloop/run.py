"""The run: one execution of an agent as a frozen value, as far as it has come.

It turns into JSON and back at any point. What moves it on is :mod:`agentloop.machine`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, cast

from mcp_types import (
    SamplingMessage,
    ToolResultContent,
    ToolUseContent,
)

from agentloop.definition import Definition
from agentloop.errors import StateError
from agentloop.transcript import Transcript, written
from agentloop.usage import Usage

STATE_VERSION = 1


class Stop(StrEnum):
    """How a run ended."""

    DONE = "done"
    STEPS = "steps"
    ROUNDS = "rounds"
    TOOL_CALLS = "tool_calls"
    TOKENS = "tokens"
    SECONDS = "seconds"
    ERRORS = "errors"
    STUCK = "stuck"
    TRUNCATED = "truncated"
    REFUSED = "refused"
    DENIED = "denied"
    CANCELLED = "cancelled"
    FAILED = "failed"

    @property
    def is_limit(self) -> bool:
        """Whether the run could have gone on with more to spend."""
        return self in (Stop.STEPS, Stop.ROUNDS, Stop.TOOL_CALLS, Stop.TOKENS, Stop.SECONDS)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One execution of an agent, as far as it has come."""

    id: str
    definition: Definition
    messages: Transcript
    history: int = 0
    """How many messages came before the prompt."""
    usage: Usage = field(default_factory=Usage)
    steps: int = 0
    """Asks that were answered."""
    tool_calls: int = 0
    """Calls that were let through to the tools."""
    seconds: float = 0.0
    errors: int = 0
    """Steps in a row in which every call failed."""
    repairs: int = 0
    """Replies in a row that were no use and went back to the model."""
    results: Mapping[str, ToolResultContent] = field(default_factory=dict[str, ToolResultContent])
    """Results of the open turn, by tool use id."""
    warned: tuple[str, ...] = ()
    last_tokens: int = 0
    last_seconds: float = 0.0
    weight: int = 0
    """Bytes of text in the messages, about; the estimate of tokens where none are reported."""
    answer: tuple[Any] | None = None
    """The typed answer as JSON, once one was accepted."""
    closing: Stop | None = None
    """Set when the next ask is the last one that a limit leaves room for."""
    stop: Stop | None = None
    error: str | None = None
    """What failed, where ``stop`` is ``failed`` or ``denied``."""
    began: float = 0.0
    """When the run began, in seconds since the epoch."""
    asked: float = 0.0
    """When the open ask left, in seconds since the epoch: it may be answered elsewhere."""
    trace: str | None = None
    """The trace that the run is part of, as a W3C ``traceparent``, for others to join."""

    @property
    def uses(self) -> list[ToolUseContent]:
        """The tool uses of the last message, whether they have a result yet or not."""
        return [block for block in self.messages.last.content_as_list if block.type == "tool_use"]

    @property
    def text(self) -> str:
        """The text of the last message that the model gave in this run."""
        for message in reversed(self.messages[self.history + 1 :]):
            if message.role == "assistant":
                return "\n".join(b.text for b in message.content_as_list if b.type == "text")
        return ""

    def of(self, definition: Definition) -> Run:
        """The same run of an equal ``definition``, whose limits may be others."""
        return self if definition is self.definition else replace(self, definition=definition)

    def to_json(
        self, write: Callable[[SamplingMessage], dict[str, Any]] = written, *, since: int = 0
    ) -> dict[str, Any]:
        """Everything but the definition, as JSON; what is at its default is left out.

        ``write`` writes a message, for those who know how some are written already; the first
        ``since`` messages are left out.
        """
        state: dict[str, Any] = {"v": STATE_VERSION, "id": self.id, "of": self.definition.digest}
        state["messages"] = self.messages.to_json(write, since=since)
        if self.results:
            state["results"] = [
                result.model_dump(mode="json", by_alias=True, exclude_none=True)
                for result in self.results.values()
            ]
        if usage := self.usage.to_json():
            state["usage"] = usage
        for name in _PLAIN_FIELDS:
            value = getattr(self, name)
            if value:
                state[name] = value
        return state

    @classmethod
    def from_json(cls, data: Any, definition: Definition) -> Run:
        """Read what :meth:`to_json` wrote.

        Raises :class:`StateError` where ``data`` is damaged, of another version, or of another
        agent than ``definition`` (its prompt, tools or output type changed in between).
        """
        if not isinstance(data, dict) or data.get("v") != STATE_VERSION:  # pyright: ignore[reportUnknownMemberType]
            raise StateError(f"the saved run is not of version {STATE_VERSION}")
        if data.get("of") != definition.digest:  # pyright: ignore[reportUnknownMemberType]
            raise StateError(
                f"the saved run belongs to another definition of agent {definition.name!r}: its "
                "instructions, tools or output type have changed since; start the run again"
            )
        state = cast("dict[str, Any]", data)
        try:
            results = [ToolResultContent.model_validate(r) for r in state.get("results", [])]
            run = cls(
                id=state["id"],
                definition=definition,
                messages=Transcript.from_json(state["messages"]),
                usage=Usage.from_json(state.get("usage")),
                results={result.tool_use_id: result for result in results},
                **{
                    name: read(state[name]) for name, read in _PLAIN_FIELDS.items() if name in state
                },
            )
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise StateError(f"the saved run is damaged: {type(error).__name__}") from error
        if len(run.messages) <= run.history:
            raise StateError("the saved run is damaged: messages are missing")
        problem = run.messages.imbalance(open=run.stop is None)
        if problem is None and not run.results.keys() <= {use.id for use in run.uses}:
            problem = "a result answers no open call"
        if problem is None and not run.messages.last.content_as_list:
            problem = "the last message is empty"
        if problem is None and run.stop is None and run.messages.last.role == "assistant":
            problem = None if run.uses else "it has not ended, and waits for nothing"
        if problem is not None:
            raise StateError(f"the saved run is damaged: {problem}")
        return run


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(value)
    return value


def _seconds(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value < math.inf:
        raise ValueError(value)
    return value


def _words_in(value: Any) -> tuple[str, ...]:
    return tuple(str(item) for item in list(value))


def _one(value: Any) -> tuple[Any]:
    (item,) = value
    return (item,)


_PLAIN_FIELDS: dict[str, Callable[[Any], Any]] = {
    "history": _count,
    "steps": _count,
    "tool_calls": _count,
    "seconds": _seconds,
    "errors": _count,
    "repairs": _count,
    "warned": _words_in,
    "last_tokens": _count,
    "last_seconds": _seconds,
    "weight": _count,
    "answer": _one,
    "closing": lambda value: Stop(value),
    "stop": lambda value: Stop(value),
    "error": str,
    "began": _seconds,
    "asked": _seconds,
    "trace": str,
}
