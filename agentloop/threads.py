"""Functions that block, in threads of their own, where a stuck one does not stop the rest."""

from __future__ import annotations

import contextvars
import inspect
import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

import anyio
from anyio.lowlevel import RunVar, current_token

from agentloop.errors import ToolError
from agentloop.strays import Work, on_asyncio

MAX_THREADS = 40
MAX_STUCK = 8
"""Threads that may be left behind, still running, before new calls are refused."""
IDLE_SECONDS = 10.0
"""For how long a thread waits for its next call before it ends."""

_LIMITER: RunVar[anyio.CapacityLimiter] = RunVar("agentloop_threads")
_STUCK: set[_Call] = set()
_IDLE: deque[_Worker] = deque()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_IDLE.clear)  # threads do not survive a fork


def stuck() -> int:
    """How many threads were left behind in this process and still run."""
    return len(_STUCK)


async def in_thread(fn: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """Call ``fn`` in a thread; when cancelled, leave the thread behind to end by itself.

    The threads are daemons: a stuck one does not keep the process from ending, as a thread of
    anyio's would on asyncio. Raises
    :class:`ToolError` where too many are stuck already, and what ``fn`` raises, but
    ``RuntimeError`` for what is no ``Exception`` (``SystemExit``): that would end more than a call.
    """
    if stuck() >= MAX_STUCK:
        raise ToolError(
            f"Not run: {stuck()} earlier calls still block their threads; try again later."
        )
    async with _limiter():
        call = _Call(fn, arguments)
        try:
            _worker().calls.put(call)
            await call.over.wait()
        finally:
            if not call.ended:
                _STUCK.add(call)
                if call.ended:  # between the look and the note
                    _STUCK.discard(call)
    if call.error is not None:
        raise call.error
    return call.value


def work_of(fn: Callable[..., Any], arguments: dict[str, Any], *, is_async: bool) -> Work:
    """The work of calling ``fn``, in a thread unless it is async."""
    return partial(fn, **arguments) if is_async else partial(_threaded, fn, arguments)


async def _threaded(fn: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    value = await in_thread(fn, arguments)
    return await value if inspect.isawaitable(value) else value


class _Call:
    ended = False
    error: Exception | None = None
    value: Any = None

    def __init__(self, fn: Callable[..., Any], arguments: dict[str, Any]) -> None:
        self.over = anyio.Event()
        self._fn = fn
        self._arguments = arguments
        self._context = contextvars.copy_context()
        loop: Any = current_token().native_token
        self._soon: Callable[[Callable[[], Any]], Any] = (
            loop.call_soon_threadsafe if on_asyncio() else loop.run_sync_soon
        )

    def run(self) -> None:
        try:
            self.value = self._context.run(self._fn, **self._arguments)
        except Exception as error:  # noqa: BLE001  raised again in the event loop
            self.error = error
        except BaseException as error:  # noqa: BLE001
            self.error = RuntimeError(type(error).__name__)
            self.error.__cause__ = error
        self.ended = True
        _STUCK.discard(self)

    def tell(self) -> None:
        with suppress(RuntimeError):  # the event loop is gone, and with it whoever waited
            self._soon(self.over.set)


class _Worker:
    """A thread that waits for its next call."""

    def __init__(self) -> None:
        self.calls: SimpleQueue[_Call] = SimpleQueue()
        threading.Thread(target=self._work, name="agentloop tool", daemon=True).start()

    def _work(self) -> None:
        while (call := self._next()) is not None:
            call.run()
            _IDLE.append(self)
            call.tell()
            del call  # or what it holds would live until the next one

    def _next(self) -> _Call | None:
        try:
            return self.calls.get(timeout=IDLE_SECONDS)
        except Empty:
            try:
                _IDLE.remove(self)
            except ValueError:  # somebody has just taken it out, and brings a call
                return self.calls.get()
            return None


def _worker() -> _Worker:
    try:
        return _IDLE.pop()
    except IndexError:
        return _Worker()


def _limiter() -> anyio.CapacityLimiter:
    try:
        return _LIMITER.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(MAX_THREADS)
        _LIMITER.set(limiter)
        return limiter
