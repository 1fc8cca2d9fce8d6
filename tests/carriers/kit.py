"""What scenarios are made of: the table's row, a record of what happened, and tools."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from mcp_types import (
    CallToolResult,
    CreateMessageRequestParams,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

from agentloop import Agent, RunResult, ToolError, tool
from agentloop.events import (
    AskEnded,
    AskStarted,
    Event,
    RunEnded,
    RunStarted,
    ToolEnded,
)
from agentloop_providers import ScriptedProvider
from agentloop_providers.scripted import Line

PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
ONCE = (RunStarted, AskStarted, AskEnded, ToolEnded, RunEnded)
"""Events that are told as often on every carrier; a call that was suspended starts again."""

SECRET = "password=hunter2"


class Record:
    """What happened on the server in one call: effects, events, and runs that ended.

    With a ``path``, it is kept in a file, where processes that come later add to it.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._lines: list[str] = []

    def effect(self, what: str) -> None:
        """Note that a tool did something."""
        self._note("effect", what)

    def __call__(self, event: Event) -> None:
        """Listen to the events of runs."""
        if isinstance(event, ONCE) and not (isinstance(event, RunStarted) and event.resumed):
            self._note("event", f"{type(event).__name__} {event.key}")
        if isinstance(event, RunEnded):
            story = RunResult[Any](event.run).to_json()
            for varies in ("seconds", "run_id"):
                del story[varies]
            story["error"] = (story["error"] or "").partition(":")[0]  # the rest is the client's
            self._note("run", [event.key, story])

    def to_json(self) -> dict[str, Any]:
        """Everything so far; what ran at the same time is in a fixed order."""
        notes = [json.loads(line) for line in self._read()]
        by_kind = {kind: [n for k, n in notes if k == kind] for kind in ("effect", "event", "run")}
        return {
            "effects": sorted(by_kind["effect"]),
            "events": dict(sorted(Counter(by_kind["event"]).items())),
            "runs": dict(sorted(by_kind["run"])),
        }

    def _note(self, kind: str, what: Any) -> None:
        line = json.dumps([kind, what])
        if self._path is None:
            self._lines.append(line)
        else:
            with self._path.open("a") as file:
                file.write(line + "\n")

    def _read(self) -> list[str]:
        return self._lines if self._path is None else self._path.read_text().splitlines()


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One row: what a served function does, what the model says, and what must come of it."""

    name: str
    play: Callable[[Kit], Awaitable[Any]]
    says: tuple[Line, ...] | Callable[[CreateMessageRequestParams], Line]
    """The lines of the only run, or a function of the request."""
    gives: Any
    stops: dict[str, str] = field(default_factory=lambda: {"0": "done"})
    """How each run ends, by its key."""
    effects: tuple[str, ...] = ()
    tells: tuple[str, ...] = ()
    """What the model is told somewhere."""
    not_on: dict[str, str] = field(default_factory=dict[str, str])
    """Where the row does not apply, and why: a carrier, or a transport."""

    def model(self) -> ScriptedProvider:
        """A fresh model; its replies depend on the request and its number alone."""
        if callable(self.says):
            return ScriptedProvider(self.says, repeat=True)
        return ScriptedProvider(*self.says)


def alone(
    name: str,
    agent: Callable[[Kit], Agent[Any]],
    *says: Line,
    gives: Any,
    stop: str = "done",
    effects: tuple[str, ...] = (),
    tells: tuple[str, ...] = (),
    not_on: dict[str, str] | None = None,
) -> Scenario:
    """A row with one run of one agent."""

    async def play(kit: Kit) -> Any:
        result = await agent(kit).run("go")
        return result.to_json()["output"]

    return Scenario(
        name=name,
        play=play,
        says=says,
        gives=gives,
        stops={"0": stop},
        effects=effects,
        tells=tells,
        not_on=not_on or {},
    )


class Kit:
    """Tools whose effects are on record."""

    def __init__(self, record: Record) -> None:
        self.record = record

    async def add(self, a: int, b: int) -> int:
        """Add two numbers."""
        self.record.effect(f"add {a} {b}")
        return a + b

    async def slow(self, label: str, seconds: float) -> str:
        """Take some time."""
        await anyio.sleep(seconds)
        self.record.effect(f"slow {label}")
        return label

    def block(self, label: str) -> str:
        """Hold a thread for a moment."""
        time.sleep(0.005)
        self.record.effect(f"block {label}")
        return label

    async def refuse(self, why: str) -> str:
        """Say no."""
        self.record.effect(f"refuse {why}")
        raise ToolError(f"No: {why}.")

    async def crash(self) -> str:
        """Fail with something that nobody may read."""
        self.record.effect("crash")
        raise ValueError(SECRET)

    async def same(self, label: str = "x") -> str:
        """Say the same each time."""
        self.record.effect(f"same {label}")
        return f"same {label}"

    async def linger(self) -> str:
        """Never return."""
        self.record.effect("linger begins")
        try:
            await anyio.sleep_forever()
        finally:
            self.record.effect("linger ends")
        return "never"

    async def garbled(self) -> str:
        """Give text that no wire takes."""
        return "a\ud800b\0c"

    async def shout(self, kibibytes: int) -> str:
        """Give much text."""
        return "head " + "x" * (kibibytes * 1024) + " tail"

    async def look(self) -> list[Any]:
        """Give a picture and its caption."""
        return [TextContent(text="a pixel"), ImageContent(data=PIXEL, mime_type="image/png")]

    async def lookup(self) -> CallToolResult:
        """Give structured content, a link and a file."""
        file = TextResourceContents(uri="file:///b.txt", text="bee", mime_type="text/plain")
        return CallToolResult(
            content=[
                TextContent(text="found"),
                ResourceLink(name="a", uri="file:///a.txt"),
                EmbeddedResource(resource=file),
            ],
            structured_content={"found": 2, "kind": {"deep": [1, None, True]}},
        )


def having(*names: str, **options: Any) -> Any:
    """Makes an agent with these tools of the kit."""
    return lambda kit: Agent("worker", tools=[getattr(kit, name) for name in names], **options)


def with_tool(name: str, **options: Any) -> Any:
    """Makes an agent with one tool of the kit, called in a special way, and ``add``."""
    return lambda kit: Agent("worker", tools=[tool(**options)(getattr(kit, name)), kit.add])
