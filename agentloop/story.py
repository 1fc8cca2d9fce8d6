"""A run as it is told afterwards: its steps, the calls of each, and the runs inside of them.

Times are in seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

Block = dict[str, Any]
"""A content block, in the protocol's JSON."""


@dataclass(slots=True)
class Ask:
    """One ask, from when it left until it was answered."""

    began: float | None = None
    ended: float | None = None
    provider: str = ""
    model: str = ""
    stop_reason: str = ""
    usage: dict[str, int] = field(default_factory=dict[str, int])
    estimated: bool = False


@dataclass(slots=True)
class Call:
    """One tool call. Without a beginning it was never let through to its tool."""

    id: str
    name: str
    input: Any = None
    number: int = 10**6
    """Which one of its step it is, from 0."""
    began: float | None = None
    ended: float | None = None
    failed: bool = False
    result: list[Block] | None = None
    runs: list[Story] = field(default_factory=list["Story"])


@dataclass(slots=True)
class Step:
    """One ask, what came of it, and what the model was told after it."""

    number: int
    ask: Ask = field(default_factory=Ask)
    said: list[Block] = field(default_factory=list[Block])
    """Everything in the reply but its tool uses."""
    calls: list[Call] = field(default_factory=list[Call])
    told: list[Block] = field(default_factory=list[Block])
    """Words from the runtime to the model, where they are no tool results."""


@dataclass(slots=True)
class Story:
    """One run."""

    id: str
    key: str
    agent: str = "agent"
    began: float = 0.0
    ended: float | None = None
    parts: int = 0
    """How often it was entered: once, and once more for each time that it was resumed."""
    instructions: str = ""
    within: str = ""
    """The id of the run in whose tool call it ran; empty for an outermost one."""
    tools: list[str] = field(default_factory=list[str])
    trace: str = ""
    before: list[tuple[str, Block]] = field(default_factory=list[tuple[str, Block]])
    """What the run began with, the prompt last: roles and blocks."""
    steps: list[Step] = field(default_factory=list[Step])
    stop: str = ""
    """Empty for a run whose end the file does not have."""
    error: str = ""
    usage: dict[str, int] = field(default_factory=dict[str, int])
    estimated: bool = False
    answer: Any = None
    last: float = 0.0
    """The time of the last thing that the file says of it."""

    @property
    def text(self) -> str:
        """The model's last words."""
        for step in reversed(self.steps):
            if words := text_of(step.said):
                return words
        return ""

    @property
    def calls(self) -> list[Call]:
        return [call for step in self.steps for call in step.calls]

    def inside(self) -> Iterator[Story]:
        """This run and all runs inside of it, outermost first."""
        yield self
        for call in self.calls:
            for story in call.runs:
                yield from story.inside()


def text_of(blocks: Iterable[Block]) -> str:
    """The texts among ``blocks``."""
    return "\n".join(
        text
        for block in blocks
        if block.get("type") == "text" and isinstance(text := block.get("text"), str)
    )
