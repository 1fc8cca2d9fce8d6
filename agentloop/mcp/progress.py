"""Progress notifications: one for each ask and each tool call, while the call is served."""

from __future__ import annotations

import time

import anyio
from mcp.server.session import ServerSession

from agentloop.events import AskEnded, Event, Sink, ToolEnded

BURST = 20
"""Notifications that may leave at once; after that, ten a second, and the latest one wins."""
_PER_SECOND = 10.0


class Progress:
    """An event sink that notes progress, for :meth:`send` to report, and passes events on.

    Progress counts asks and tool calls that ended, so it only ever rises (a MUST of the protocol).
    """

    def __init__(self, session: ServerSession, sink: Sink | None) -> None:
        self._session = session
        self._sink = sink
        self._count = 0
        self._unsent: list[tuple[int, str]] = []
        self._news = anyio.Event()
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

    async def send(self) -> None:
        """Send what is noted, for ever."""
        while True:
            await self._news.wait()
            await self.flush()
            if self._tokens < 1:
                await anyio.sleep((1 - self._tokens) / _PER_SECOND)

    async def flush(self) -> None:
        """Send what is noted now, after what is being sent already: the latest in any case."""
        async with self._sending:
            self._news = anyio.Event()
            notes, self._unsent = self._unsent, []
            room = self._room()
            for count, text in notes if len(notes) <= room else [*notes[: room - 1], notes[-1]]:
                self._tokens -= 1
                await self._session.report_progress(count, None, text)

    def _note(self, text: str) -> None:
        self._count += 1
        self._unsent.append((self._count, text))
        self._news.set()

    def _room(self) -> int:
        """How many notifications may leave now; the last one of a call may leave in any case."""
        now = time.monotonic()
        self._tokens = min(BURST, self._tokens + (now - self._filled) * _PER_SECOND)
        self._filled = now
        return max(int(self._tokens), 1)
