"""Functions that block, in threads of their own, where a stuck one does not stop the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

from agentloop.errors import ToolError

MAX_THREADS = 40
MAX_STUCK = 8
"""Threads that may be abandoned, still running, before new calls are refused."""

_LIMITER: RunVar[anyio.CapacityLimiter] = RunVar("agentloop_threads")
_STUCK: set[object] = set()


async def in_thread(fn: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """Call ``fn`` in a worker thread; when cancelled, leave the thread behind to end by itself.

    Raises :class:`ToolError` where too many threads are stuck already.
    """
    if len(_STUCK) >= MAX_STUCK:
        raise ToolError(
            f"Not run: {len(_STUCK)} earlier calls still block their threads; try again later."
        )
    try:
        limiter = _LIMITER.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(MAX_THREADS)
        _LIMITER.set(limiter)
    ticket = object()
    ended = False

    def work() -> Any:
        nonlocal ended
        try:
            return fn(**arguments)
        except (SystemExit, KeyboardInterrupt, GeneratorExit) as error:
            # These would end the worker thread or the event loop, not just the call.
            raise RuntimeError(type(error).__name__) from error
        finally:
            ended = True
            _STUCK.discard(ticket)

    try:
        return await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=limiter)
    finally:
        if not ended:
            _STUCK.add(ticket)
            if ended:  # it ended between the look and the note
                _STUCK.discard(ticket)
