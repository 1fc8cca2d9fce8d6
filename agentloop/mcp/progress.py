"""Progress notifications: one for each ask and each tool call, while the call is served."""

from __future__ import annotations

import math
import time

import anyio
from mcp.server.session import ServerSession

from agentloop.events import AskEnded, Event, Sink, ToolEnded
from agentloop.strays import Stray, stray

BURST = 20
"""Notifications that may leave at once; after that, ten a second, and the latest one wins."""
_PER_SECOND = 10.0
_GATHER = 0.02
"""Seconds for which what is noted waits for company, so that a step takes one task and no more."""


class Progress:
    """An event sink that reports progress a moment later, and passes events on.

    Progress counts asks and tool calls that ended, so it only ever rises (a MUST of the protocol).
    Whoever makes one stops it.
    """

    def __init__(self, session: ServerSession, sink: Sink | None) -> None:
        self._session = session
        self._sink = sink
        self._count = 0
        self._unsent: list[tuple[int, str]] = []
        self._sender: Stray | None = None
        self._sending = anyio.Lock(fast_acquire=True)
        self._tokens = float(BURST)
        self._filled = time.monotonic()

    def __call__(self, event: Event) -> None:
        if isinstance(event, AskEnded):
            self._note(f"{event.run.definition.name}: step {event.run.steps}")
        elif isinstance(event, ToolEnded):
            how = " failed" if event.result.is_error else ""
            self._note(f"{event.run.definition.name}: {event.call.name}{how}")
        if self._sink is not None:
            self._sink(event)

    def beat(self) -> None:
        """Say that the call goes on: clients count the time since they last heard of it."""
        self._note("still working")

    async def flush(self) -> None:
        """Send what is noted now, after what is being sent already: the latest in any case."""
        async with self._sending:
            notes, self._unsent = self._unsent, []
            room = self._room()
            for count, text in notes if len(notes) <= room else [*notes[:room], notes[-1]]:
                self._tokens -= 1
                await self._session.report_progress(count, None, text)

    async def stop(self) -> None:
        """Send nothing any more."""
        if self._sender is not None and not self._sender.ended:
            await self._sender.stop(math.inf)

    def _note(self, text: str) -> None:
        self._count += 1
        self._unsent.append((self._count, text))
        if self._sender is None or self._sender.ended:
            self._sender = stray(self._send, after=_GATHER)

    async def _send(self) -> None:
        while self._unsent:
            await self.flush()
            if self._tokens < 1:
                await anyio.sleep((1 - self._tokens) / _PER_SECOND)

    def _room(self) -> int:
        """How many notifications may leave now, besides the latest, which may in any case."""
        now = time.monotonic()
        self._tokens = min(BURST, self._tokens + (now - self._filled) * _PER_SECOND)
        self._filled = now
        return max(int(self._tokens), 0)
