"""One entry of a served function, which is left at the end of its round.

The function is cancelled to leave it, and cancellation may be kept from it: by a shield, in a
thread, or because it is caught. So the function runs in a task of its own, what is parked in it
is woken where it did not hear that it is cancelled, and one that does not end is left behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Never

import anyio

from agentloop.errors import AgentLoopError, DefinitionError, where
from agentloop.log import log
from agentloop.place import Left
from agentloop.strays import Stray, asyncio_task, stray, told_to_stop

_HEAR_SECONDS = 0.01
"""For how long a function is expected to hear that it is cancelled."""

_STUBBORN = 1000
"""How often a function may try to begin something while it is left, before it is slowed down."""


class SelfCancelled(RuntimeError):
    """A function raised asyncio's ``CancelledError`` though nobody cancels its call: it waited for
    a cancelled task perhaps. Let through, it would end the session of the client."""

    def __init__(self) -> None:
        super().__init__("the function raised CancelledError, though nobody cancelled it")


async def not_cancelling_itself(function: Callable[[], Awaitable[Any]]) -> Any:
    """What ``function`` gives. Raises :class:`SelfCancelled` where it does that."""
    try:
        return await function()
    except asyncio.CancelledError as error:
        if told_to_stop():
            raise
        raise SelfCancelled from error


class Visit:
    """A function that is entered once, to its end or until it is left."""

    def __init__(self, seconds: float) -> None:
        """Once it is cancelled, the function may take so many ``seconds`` to end."""
        self.left = False
        """Whether the function is left, so that what it gives counts for nothing."""
        self._seconds = seconds
        self._scope = anyio.CancelScope()
        self._over = False
        self._turn = anyio.Event()
        """Set once the function has ended, or is to be left."""
        self._unheard = anyio.Event()
        """Set for what is parked, and has not heard that it is cancelled."""
        self._parked: set[asyncio.Task[Any]] = set()
        """The tasks of asyncio's in which something is parked."""
        self._refusals = 0

    async def run(self, function: Callable[[], Awaitable[Any]]) -> Any:
        """What ``function`` gives; nothing where it was left.

        Raises what ``function`` raises, and :class:`DefinitionError` where it does not end.
        """
        running = function()
        errand = stray(partial(self._go, running))
        try:
            await self._turn.wait()
            stuck_at = await self._end(errand, running)
        except anyio.get_cancelled_exc_class():
            self._scope.cancel()
            with anyio.CancelScope(shield=True):
                await self._end(errand, running)
            raise
        if stuck_at is not None:
            raise DefinitionError(
                f"the function did not end within {self._seconds:g} s of being cancelled, as it is "
                f"at the end of each round (it was at {stuck_at}): let cancellation pass, "
                "so do not catch BaseException, and keep what is done after it short, or give it "
                "longer with resumable(leave_seconds=...)"
            )
        if errand.cancelled:
            raise SelfCancelled
        if errand.error is not None:
            raise errand.error
        return errand.value

    def leave(self) -> None:
        """Leave the function, unless it has ended."""
        if not self._over:
            self.left = True
            self._scope.cancel()
            self._turn.set()

    async def park(self) -> Never:
        """Wait until the function is left."""
        task = asyncio_task()
        if task is not None:
            self._parked.add(task)
        try:
            await self._unheard.wait()
        finally:
            self._parked.discard(task)  # pyright: ignore[reportArgumentType]
        raise Left

    async def admit(self) -> None:
        """Return if something may begin: nothing may once the function is cancelled, or over.

        One that tries again and again while it is left, for ever perhaps, keeps nobody from work.
        """
        if not self._over and not self._scope.cancel_called:
            return
        self._refusals += 1
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.1 if self._refusals > _STUBBORN else 0)
        if self._scope.cancel_called:
            raise Left
        raise DefinitionError(
            "the call is over: no agent can run in a task that its function does not wait for"
        )

    async def _go(self, running: Awaitable[Any]) -> Any:
        try:
            with self._scope:
                return await running
        except BaseException as error:
            if not self.left or _counts(error):
                raise
            if not isinstance(error, Left | BaseExceptionGroup):
                log().warning("error_while_left", error_type=type(error).__name__, at=where(error))
        finally:
            self._over = True
            self._turn.set()
            for task in self._parked:  # which the author started, and nobody told to stop
                task.cancel()
            self._unheard.set()

    async def _end(self, errand: Stray, running: Awaitable[Any]) -> str | None:
        """Wait for the end of the function. Where that does not come in time, the function is left
        behind, and this gives the place at which it was."""
        if await errand.wait(_HEAR_SECONDS):
            return None
        self._unheard.set()
        if await errand.wait(self._seconds):
            return None
        stuck_at = _place_of(running)
        log().warning("function_left_behind", at=stuck_at, seconds=self._seconds)
        await errand.stop(_HEAR_SECONDS)
        return stuck_at


def _counts(error: BaseException) -> bool:
    """Whether ``error``, which a function raised while it was left, is more than a way to end."""
    if isinstance(error, BaseExceptionGroup):
        return any(map(_counts, error.exceptions))  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType]
    if isinstance(error, AgentLoopError):
        return True
    return not isinstance(error, Exception | Left | anyio.get_cancelled_exc_class())


def _place_of(running: Any) -> str:
    """File and line at which a coroutine stands."""
    frame = getattr(running, "cr_frame", None)
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else "an unknown place"
