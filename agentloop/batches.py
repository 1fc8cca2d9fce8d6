"""Operations that are wanted at about the same time, done together.

A trip to a thread and a commit cost more than most of what is done in them. So who comes while
nobody is under way leaves with all who come in the same turn of the event loop; and who comes while
as many batches are under way as may be, leaves with all who wait meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread

from agentloop.strays import stray

WorkT = TypeVar("WorkT")

MOST = 64
"""Operations in one batch, if nobody says, so that the first need not wait for the last of many."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an operation."""

    value: Any = None
    error: Exception | None = None

    def get(self) -> Any:
        """The value. Raises the error, if there is one."""
        if self.error is not None:
            raise self.error
        return self.value


class _Waiting(Generic[WorkT]):
    outcome: Outcome

    def __init__(self, work: WorkT) -> None:
        self.work = work
        self.over = anyio.Event()


class Batches(Generic[WorkT]):
    """Does operations in batches, in threads."""

    def __init__(
        self,
        perform: Callable[[Sequence[WorkT]], Sequence[Outcome]],
        *,
        at_once: int,
        most: int = MOST,
    ) -> None:
        """``perform`` gives one outcome for each operation; where it raises, each of them does. At
        most ``at_once`` batches are under way, of at most ``most`` operations."""
        self._perform = perform
        self._at_once = at_once
        self._most = most
        self._under_way = 0
        self._gathering = False
        """Whether a batch is about to leave with all who wait."""
        self._waiting: list[_Waiting[WorkT]] = []

    async def do(self, work: WorkT) -> Any:
        """What comes of ``work``. What is begun is also ended, when cancelled too."""
        await anyio.lowlevel.checkpoint_if_cancelled()
        mine = _Waiting(work)
        self._waiting.append(mine)
        if not self._gathering and self._under_way < self._at_once:
            self._gathering = True
            self._under_way += 1
            # In a task of its own: whoever is in the batch may be cancelled, and the others not.
            stray(self._go)
        with anyio.CancelScope(shield=True):
            await mine.over.wait()
        return mine.outcome.get()

    async def _go(self) -> None:
        """Do batch after batch, as long as anybody waits."""
        try:
            self._gathering = False
            while self._waiting:
                batch = self._waiting[: self._most]
                del self._waiting[: self._most]
                for each, outcome in zip(batch, await self._outcomes(batch), strict=True):
                    each.outcome = outcome
                    each.over.set()
        finally:
            self._under_way -= 1

    async def _outcomes(self, batch: Sequence[_Waiting[WorkT]]) -> Sequence[Outcome]:
        works = [each.work for each in batch]
        try:
            limiter = anyio.CapacityLimiter(1)  # how many are under way is counted here
            return await anyio.to_thread.run_sync(self._perform, works, limiter=limiter)
        except Exception as error:  # noqa: BLE001  whoever waits is told
            return [Outcome(error=error)] * len(batch)
