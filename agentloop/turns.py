"""Turns of the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import anyio.lowlevel

from agentloop.strays import on_asyncio


def after_turns(number: int, call: Callable[[], None]) -> None:
    """Make ``call``, which must not raise, once the event loop has taken so many turns.

    It is made outside of the caller's task, which may be cancelled or over by then.
    """
    if on_asyncio():
        _after_turns(asyncio.get_running_loop(), number, call)
        return
    import trio

    async def wait() -> None:
        for _ in range(number):
            await anyio.lowlevel.checkpoint()
        call()

    trio.lowlevel.spawn_system_task(wait)


def _after_turns(loop: asyncio.AbstractEventLoop, number: int, call: Callable[[], None]) -> None:
    if number:
        loop.call_soon(_after_turns, loop, number - 1, call)
    else:
        call()
