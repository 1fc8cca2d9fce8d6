"""Work that goes on in a task of its own, and that can be left behind when it does not stop.

A task group waits for all of its tasks, so one tool that swallows its cancellation would hold its
run for ever. A stray belongs to no task group: whoever started it waits for it, tells it to stop,
and after some patience goes on without it. Nothing that is raised in it reaches the event loop.
"""

from __future__ import annotations

import asyncio
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import Context, copy_context
from functools import partial
from time import monotonic
from types import coroutine
from typing import Any

import anyio

from agentloop.alarm import Timer

Work = Callable[[], Awaitable[Any]]

MAX_STRETCH = 0.005
"""Seconds for which work that is done at once, one after the other, may hold the event loop."""

_LEFT_BEHIND: set[Stray] = set()


def left_behind() -> int:
    """How many strays were left behind in this process and still go on."""
    return len(_LEFT_BEHIND)


def stray(work: Work, *, after: float = 0.0) -> Stray:
    """Start ``work`` in a task of its own, with the context variables of the caller.

    It begins ``after`` so many seconds; one that is told to stop before that costs next to nothing.
    """
    return _AsyncioStray(work, after) if on_asyncio() else _TrioStray(work, after)


def at_once(work: Callable[..., Coroutine[Any, Any, Any]], arguments: dict[str, Any]) -> Stray:
    """Do ``work``, which never waits for anything, here and now: it has ended when this returns.

    It needs no task: nothing could stop it. On trio it gets one all the same, since only there
    Ctrl-C is kept from it.
    """
    if on_asyncio():
        return _Done(work, arguments)
    return _TrioStray(partial(work, **arguments), 0.0)


def asyncio_task() -> asyncio.Task[Any] | None:
    """The task of asyncio's in which this is called; None where the event loop is trio's."""
    try:
        return asyncio.current_task()
    except RuntimeError:  # no event loop of asyncio's runs here
        return None


def on_asyncio() -> bool:
    """Whether the event loop here is asyncio's, not trio's; called in a task."""
    return asyncio_task() is not None


def told_to_stop() -> bool:
    """Whether somebody cancels this task; on asyncio any code can raise a ``CancelledError``."""
    task = asyncio_task()
    return task is None or task.cancelling() > 0


class Stray(ABC):
    """Work in a task of its own. Once it ``ended``, it was ``cancelled``, or has an ``error``,
    which may be any exception, ``SystemExit`` included, or else a ``value``."""

    __slots__ = ("cancelled", "ended", "error", "value")

    def __init__(self) -> None:
        self.ended = False
        self.cancelled = False
        self.error: BaseException | None = None
        self.value: Any = None

    @abstractmethod
    async def wait(self, seconds: float) -> bool:
        """Wait for the end, at most ``seconds`` long; whether it came."""

    @abstractmethod
    def cancel(self) -> None:
        """Tell it to stop."""

    async def stop(self, patience: float) -> bool:
        """Tell it to stop and wait ``patience`` seconds for its end, also while cancelled.

        Gives whether the end came; if not, the stray is left behind.
        """
        self.cancel()
        if not self.ended:
            with anyio.CancelScope(shield=True):
                await self.wait(patience)
        if not self.ended:
            _LEFT_BEHIND.add(self)
        return self.ended

    def _end(self) -> None:
        self.ended = True
        _LEFT_BEHIND.discard(self)


class _AsyncioStray(Stray):
    __slots__ = ("_begun", "_loop", "_task", "_timer", "_waiter")

    def __init__(self, work: Work, after: float) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._begun = False
        self._waiter: asyncio.Future[None] | None = None
        self._timer: Timer | None = None
        self._task: asyncio.Task[None] | None = None
        if after:
            self._timer = Timer(partial(self._start, work, copy_context()))
            self._timer.set(after)
        else:
            self._task = self._loop.create_task(self._go(work))

    def _start(self, work: Work, context: Context) -> None:
        self._timer = None
        self._task = self._loop.create_task(self._go(work), context=context)

    async def _go(self, work: Work) -> None:
        self._begun = True
        try:
            self.value = await work()
        except asyncio.CancelledError:
            self.cancelled = True
        except BaseException as error:  # noqa: BLE001  the caller's to judge
            self.error = error
        self._end()
        if self._waiter is not None:
            _wake(self._waiter)

    async def wait(self, seconds: float) -> bool:
        if self.ended:
            return True
        waiter = self._waiter = self._loop.create_future()
        timer = Timer(partial(_wake, waiter))
        if seconds != math.inf:
            timer.set(seconds)
        try:
            await waiter
        finally:
            timer.unset()
        return self.ended

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.unset()
        if self._task is not None:
            self._task.cancel()
        if not self._begun:  # and never will
            self.cancelled = True
            self._end()

    def _end(self) -> None:
        super()._end()
        # With the context, in which may be who owns the stray.
        self._timer = self._task = None


@coroutine
def _one_turn() -> Generator[None]:
    yield


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class _Done(Stray):
    """Work that was done at once."""

    __slots__ = ()

    def __init__(
        self, work: Callable[..., Coroutine[Any, Any, Any]], arguments: dict[str, Any]
    ) -> None:
        super().__init__()
        try:
            copy_context().run(work(**arguments).send, None)
        except StopIteration as end:
            self.value = end.value
        except asyncio.CancelledError:
            self.cancelled = True
        except BaseException as error:  # noqa: BLE001  the caller's to judge
            self.error = error
        self.ended = True

    async def wait(self, seconds: float) -> bool:
        # Where nothing waits for anything, nobody else would ever get their turn.
        if monotonic() >= _STRETCH.ends:
            await _one_turn()
            _STRETCH.ends = monotonic() + MAX_STRETCH
        return True

    def cancel(self) -> None:
        pass


class _Stretch(threading.local):
    """For how long the event loop of this thread may still be held by work done at once."""

    ends = 0.0


_STRETCH = _Stretch()


class _TrioStray(Stray):
    def __init__(self, work: Work, after: float) -> None:
        import trio

        super().__init__()

        self._trio = trio
        self._over = trio.Event()
        self._scope = trio.CancelScope()
        self._peace = trio.CancelScope()
        # A system task is also where trio delivers no Ctrl-C, so that a tool cannot swallow it.
        trio.lowlevel.spawn_system_task(self._go, work, after, context=copy_context())

    async def _go(self, work: Work, after: float) -> None:
        try:
            with self._scope, self._peace:
                if after:
                    await self._trio.sleep(after)
                await self._trio.lowlevel.checkpoint_if_cancelled()
                self.value = await work()
        except BaseException as error:  # noqa: BLE001  the caller's to judge
            self.error = error
        self.cancelled = self._scope.cancelled_caught
        self._end()
        self._over.set()

    async def wait(self, seconds: float) -> bool:
        if not self.ended:
            with self._trio.move_on_after(seconds):
                await self._over.wait()
        return self.ended

    def cancel(self) -> None:
        self._scope.cancel()

    async def stop(self, patience: float) -> bool:
        if not await super().stop(patience):
            self._peace.shield = True  # or each of its next awaits would raise at once, for ever
        return self.ended
