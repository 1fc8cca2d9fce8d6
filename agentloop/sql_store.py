"""The store in a database: a SQLite file for one machine, PostgreSQL for several replicas.

Needs SQLAlchemy: ``pip install 'mcp-agentloop[store]'``, for PostgreSQL ``[postgres]``.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import anyio.to_thread

from agentloop.batches import Batches, Outcome
from agentloop.errors import DefinitionError
from agentloop.store import (
    KEEP_SECONDS,
    LEASE_SECONDS,
    Busy,
    Claim,
    Entered,
    Round,
    Settled,
    StoreError,
    UnknownRoundError,
)
from agentloop.text import is_clean

try:
    from sqlalchemy import URL, Connection
    from sqlalchemy.exc import ArgumentError, OperationalError, SQLAlchemyError
    from sqlalchemy.exc import TimeoutError as PoolTimeout

    from agentloop import sql_rounds as rounds
    from agentloop.sql_engine import make_engine
    from agentloop.sql_schema import migrate
    from agentloop.sql_tasks import SQLTasks
except ImportError as error:  # pragma: no cover
    raise DefinitionError(
        "a store in a database needs SQLAlchemy: pip install 'mcp-agentloop[store]'"
    ) from error

T = TypeVar("T")

_OUT_OF_REACH = (OperationalError, PoolTimeout)

_SWEEP_SECONDS = 60.0


@dataclass(frozen=True, slots=True, eq=False)
class _Operation:
    work: Callable[[Connection], Any]
    call: str = ""


class SQLStore:
    """A store in the database that a SQLAlchemy URL names, e.g. ``postgresql+psycopg://...``.

    Tables are made and brought up to date on first use. Safe for any number of processes.
    """

    def __init__(
        self,
        url: str | URL,
        *,
        connections: int = 8,
        lease: float = LEASE_SECONDS,
        keep: float = KEEP_SECONDS,
    ) -> None:
        """``connections`` bounds the pool; ``lease`` and ``keep`` are in seconds, see
        :class:`~agentloop.store.Store`. Raises :class:`DefinitionError` for a bad URL."""
        self.lease, self.keep = lease, keep
        try:
            self._engine = make_engine(url, connections, lease)
        except (ArgumentError, ImportError) as error:
            raise DefinitionError(f"no store can be had at this URL: {error}") from error
        is_sqlite = self._engine.dialect.name == "sqlite"
        if is_sqlite:  # whose writers take turns anyway
            self._rounds = tasks = Batches(self._transact, at_once=1)
        else:
            self._rounds = Batches(self._transact, at_once=connections)
            # These take locks that are not of one call, so that they could wait for each other.
            tasks = Batches(self._transact, at_once=connections, most=1)
        self._migrated = False
        self._swept = 0.0
        self.tasks = SQLTasks(lambda work: tasks.do(_Operation(work)))

    async def begin(self, call: str, *, lease: float, keep: float) -> Entered | Busy | Settled:
        def work(connection: Connection) -> Entered | Busy | Settled:
            if self._may_sweep():
                rounds.sweep(connection)
            return rounds.begin(connection, call, lease=lease, keep=keep)

        return await self._do(work, call)

    async def enter(
        self, call: str, number: int, answers: str, *, lease: float
    ) -> Entered | Busy | Settled:
        if not is_clean(call):
            raise UnknownRoundError("this call is not known here")
        round = Round(call, number)
        return await self._do(lambda c: rounds.enter(c, round, answers, lease=lease), call)

    async def renew(self, round: Round, *, lease: float) -> None:
        await self._do(lambda c: rounds.renew(c, round, lease=lease), round.call)

    async def release(self, round: Round) -> None:
        await self._do(lambda c: rounds.release(c, round), round.call)

    async def append(self, round: Round, entry: str) -> None:
        await self._do(lambda c: rounds.append(c, round, entry), round.call)

    async def settle(self, round: Round, outcome: str, *, next_state: str | None) -> None:
        await self._do(
            lambda c: rounds.settle(c, round, outcome, next_state=next_state), round.call
        )

    async def claim(self, round: Round, key: str) -> Claim:
        return await self._do(lambda c: rounds.claim(c, round, key), round.call)

    async def record(self, round: Round, key: str, result: str) -> None:
        await self._do(lambda c: rounds.record(c, round, key, result), round.call)

    async def forget(self, call: str) -> None:
        await self._do(lambda c: rounds.forget(c, call), call)

    async def sweep(self) -> int:
        return await self._do(rounds.sweep)

    async def close(self) -> None:
        """Close all connections."""
        await anyio.to_thread.run_sync(self._engine.dispose)

    def _may_sweep(self) -> bool:
        """Whether it is time to forget what has expired, which new calls do once in a while."""
        if time.monotonic() - self._swept < _SWEEP_SECONDS:
            return False
        self._swept = time.monotonic()
        return True

    async def _do(self, work: Callable[[Connection], T], call: str = "") -> T:
        """Do ``work``, which is about one ``call``, in a thread; what is begun is also ended."""
        return await self._rounds.do(_Operation(work, call))

    def _transact(self, operations: Sequence[_Operation]) -> Sequence[Outcome]:
        """Do ``operations`` in one transaction; one that fails does not take the others along."""
        if len(operations) == 1:
            return [self._alone(operations[0])]
        try:
            with self._transaction() as connection:
                # All lock rows in one order, so that no two transactions wait for each other.
                in_order = sorted(operations, key=lambda operation: operation.call)
                done = {operation: operation.work(connection) for operation in in_order}
        except _OUT_OF_REACH as error:
            return [Outcome(error=_told(error)) for _ in operations]
        except Exception:  # noqa: BLE001  what all of them did is undone
            return [self._alone(operation) for operation in operations]
        return [Outcome(done[operation]) for operation in operations]

    def _alone(self, operation: _Operation) -> Outcome:
        try:
            with self._transaction() as connection:
                value = operation.work(connection)
        except SQLAlchemyError as error:
            return Outcome(error=_told(error))
        except Exception as error:  # noqa: BLE001  raised again in the event loop
            return Outcome(error=error)
        return Outcome(value)

    @contextmanager
    def _transaction(self) -> Generator[Connection]:
        if not self._migrated:
            with self._engine.begin() as connection:
                migrate(connection)
            self._migrated = True
        with self._engine.begin() as connection:
            yield connection

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._engine.url.render_as_string(hide_password=True)!r})"


class SQLiteStore(SQLStore):
    """A store in a SQLite file, for one process or several on one machine."""

    def __init__(
        self, path: str | Path, *, lease: float = LEASE_SECONDS, keep: float = KEEP_SECONDS
    ) -> None:
        """``lease`` and ``keep`` are in seconds, see :class:`~agentloop.store.Store`."""
        url = URL.create("sqlite", database=str(path))  # a path may hold a question mark
        super().__init__(url, lease=lease, keep=keep)


def _told(error: SQLAlchemyError) -> StoreError:
    """``error`` in words that hold neither the URL with its password nor the values, as its own
    may."""
    reason = getattr(error, "orig", None)
    why = f": {reason}" if isinstance(reason, sqlite3.Error) else ""  # SQLite names no values
    told = StoreError(f"the store failed with {type(error).__name__}{why}")
    told.__cause__ = error
    return told
