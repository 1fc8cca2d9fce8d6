"""The claims of one durable run, held by whoever executes it."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable

import anyio
from mcp_types import ToolResultContent

from agentloop.ledger import perform_once, written
from agentloop.log import log
from agentloop.store import Busy, Round, Settled, StaleOwnerError, Store, StoreError
from agentloop.tools import Effect

_FOR_EVER = 100 * 365 * 86400.0
_PAUSE = 0.5


def claims_of(id: str) -> str:
    """The name in the store under which the claims of run ``id`` are kept."""
    return "run:" + hashlib.sha256(id.encode()).hexdigest()[:48]


class Claims:
    """What the run has begun of the calls that must not run twice.

    The engine says who executes a run; each new execution raises the epoch of the claims, so what
    an execution that lost the run still claims is refused.
    """

    def __init__(self, store: Store, id: str, check_owner: Callable[[], Awaitable[None]]) -> None:
        """``check_owner`` raises where the execution has lost the run."""
        self._store = store
        self._call = claims_of(id)
        self._check_owner = check_owner
        self._round: Round | None = None
        self._lock = anyio.Lock()

    async def hold(self) -> Round:
        """Raise the epoch, once. Raises what ``check_owner`` raises."""
        async with self._lock:
            while self._round is None:
                try:
                    found = await self._store.begin(self._call, lease=0.0, keep=_FOR_EVER)
                except StoreError as error:
                    await _pause(error)
                    continue
                # After the epoch was raised: whoever takes the run over later raises it again.
                await self._check_owner()
                assert not isinstance(found, Busy | Settled)
                self._round = found.round
            return self._round

    async def perform(
        self, effect: Effect, perform: Callable[[], Awaitable[ToolResultContent]]
    ) -> ToolResultContent:
        """What came of ``effect``; performed at most once in the run's life."""
        done: ToolResultContent | None = None

        async def performing() -> ToolResultContent:
            nonlocal done
            done = await perform()
            return done

        while True:
            held = await self.hold()
            try:
                if done is None:
                    return await perform_once(effect, performing, self._store, held)
                await self._store.record(held, effect.key, written(done))
                return done
            except StaleOwnerError:
                if self._round is held:  # a stale execution woke up and raised the epoch: so again
                    self._round = None
            except StoreError as error:
                await _pause(error)


async def _pause(error: StoreError) -> None:
    log().warning("store_failed", error=str(error))
    await anyio.sleep(_PAUSE)
