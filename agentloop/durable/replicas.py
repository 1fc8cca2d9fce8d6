"""The processes that work on the same runs, and who of them is gone."""

from __future__ import annotations

import secrets

import anyio

from agentloop.log import log
from agentloop.store import Entered, Round, StaleOwnerError, Store, StoreError

_KEEP = 86400.0
_PAUSE = 0.5


class Replica:
    """This process among those that share a store: each holds a lease on its own name."""

    def __init__(self, store: Store) -> None:
        self.id = secrets.token_hex(8)
        self._store = store

    async def join(self) -> Round:
        """Take the lease. Raises :class:`StoreError`."""
        while True:
            found = await self._enter(self.id)
            if isinstance(found, Entered):
                return found.round
            await anyio.sleep(_PAUSE)  # another one thinks that this one is gone

    async def hold(self, held: Round) -> None:
        """Renew the lease for ever. A lease that was lost, as by a long pause, is taken again."""
        while True:
            await anyio.sleep(self._store.lease / 3)
            try:
                await self._store.renew(held, lease=self._store.lease)
            except StaleOwnerError:
                log().warning("replica_was_taken_for_gone", replica=self.id)
                held = await self._join_again()
            except StoreError as error:
                log().warning("lease_not_renewed", error=str(error))

    async def leave(self) -> None:
        """Let the others know at once that this one is gone."""
        await self.bury(self.id)

    async def is_gone(self, other: str) -> bool:
        """Whether ``other`` is gone; then nobody else is told so before :meth:`bury`, or before a
        lease's time is over. Raises :class:`StoreError`."""
        return other != self.id and isinstance(await self._enter(other), Entered)

    async def bury(self, other: str) -> None:
        """Forget ``other``. Raises :class:`StoreError`."""
        await self._store.forget(_lease_of(other))

    async def _enter(self, replica: str) -> object:
        return await self._store.begin(_lease_of(replica), lease=self._store.lease, keep=_KEEP)

    async def _join_again(self) -> Round:
        while True:
            try:
                return await self.join()
            except StoreError as error:
                log().warning("lease_not_renewed", error=str(error))
                await anyio.sleep(_PAUSE)


def _lease_of(replica: str) -> str:
    return f"replica:{replica[:64]}"
