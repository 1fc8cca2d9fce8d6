"""What is left behind: tasks, threads, work that would not stop."""

from __future__ import annotations

import asyncio
import gc
import threading
import time

import anyio

from agentloop import threads
from agentloop.strays import left_behind, on_asyncio

POOLED = ("agentloop tool", "AnyIO worker", "Trio thread", "asyncio_")
"""Threads that are kept for the next call."""


class Leaks:
    """Looks for what there is now and was not when this was made."""

    def __init__(self) -> None:
        self._tasks, self._running = tasks_alive(), _threads()

    async def none_within(self, seconds: float) -> None:
        """Wait until nothing is left. Raises ``AssertionError`` where something still is."""
        give_up = time.monotonic() + seconds
        while (left := self._left()) and time.monotonic() < give_up:
            gc.collect()
            await anyio.sleep(0.01)
        assert not left, left

    def _left(self) -> list[str]:
        left = [f"thread {thread.name}" for thread in _threads() - self._running]
        if (more := tasks_alive() - self._tasks) > 0:
            left.append(f"{more} tasks")
        if strays := left_behind():
            left.append(f"{strays} strays")
        if stuck := threads.stuck():
            left.append(f"{stuck} stuck calls")
        return left


def tasks_alive() -> int:
    """How many tasks there are, on either event loop."""
    if on_asyncio():
        return len(asyncio.all_tasks())
    import trio

    return trio.lowlevel.current_statistics().tasks_living


def _threads() -> set[threading.Thread]:
    return {t for t in threading.enumerate() if not t.name.startswith(POOLED)}
