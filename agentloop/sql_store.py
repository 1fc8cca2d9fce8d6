"""The store in a database: a SQLite file for one machine, PostgreSQL for several replicas.

Needs SQLAlchemy: ``pip install 'mcp-agentloop[store]'``, for PostgreSQL ``[postgres]``.
"""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
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
    StaleOwnerError,
    StoreError,
    UnknownRoundError,
)
from agentloop.text import is_clean

try:
    from sqlalchemy import Connection, Engine, create_engine, event, text
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import (
        ArgumentError,
        InvalidatePoolError,
        OperationalError,
        SQLAlchemyError,
    )
    from sqlalchemy.exc import TimeoutError as PoolTimeout

    from agentloop.sql import run
    from agentloop.sql_tasks import COUNTING, SCHEMA, SQLTasks
except ImportError as error:  # pragma: no cover
    raise DefinitionError(
        "a store in a database needs SQLAlchemy: pip install 'mcp-agentloop[store]'"
    ) from error

T = TypeVar("T")

# Each entry takes the schema one version further; entries are only ever added.
_MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE agentloop_calls (
            call VARCHAR(80) PRIMARY KEY,
            keep DOUBLE PRECISION NOT NULL,
            expires DOUBLE PRECISION NOT NULL
        )""",
        "CREATE INDEX agentloop_calls_expires ON agentloop_calls (expires)",
        """CREATE TABLE agentloop_rounds (
            call VARCHAR(80) NOT NULL REFERENCES agentloop_calls (call) ON DELETE CASCADE,
            number INTEGER NOT NULL,
            state TEXT NOT NULL,
            answers TEXT,
            epoch INTEGER NOT NULL,
            leased_until DOUBLE PRECISION NOT NULL,
            outcome TEXT,
            PRIMARY KEY (call, number)
        )""",
        """CREATE TABLE agentloop_claims (
            call VARCHAR(80) NOT NULL REFERENCES agentloop_calls (call) ON DELETE CASCADE,
            effect VARCHAR(400) NOT NULL,
            result TEXT,
            PRIMARY KEY (call, effect)
        )""",
    ),
    SCHEMA,
    (
        """CREATE TABLE agentloop_entries (
            call VARCHAR(80) NOT NULL REFERENCES agentloop_calls (call) ON DELETE CASCADE,
            number INTEGER NOT NULL,
            entry INTEGER NOT NULL,
            written TEXT NOT NULL,
            PRIMARY KEY (call, number, entry)
        )""",
    ),
    COUNTING,
)

_OUT_OF_REACH = (OperationalError, PoolTimeout)

_BUSY_SECONDS = 30.0
"""How long SQLite waits for others who use the file."""
_SWEEP_SECONDS = 60.0

_IDLE_SECONDS = 1.0
"""After so long it is looked whether a connection is still there before it is used."""

_OWNED = "call = :call AND number = :number AND epoch = :epoch AND outcome IS NULL"


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
        url: str,
        *,
        connections: int = 8,
        lease: float = LEASE_SECONDS,
        keep: float = KEEP_SECONDS,
    ) -> None:
        """``connections`` bounds the pool; ``lease`` and ``keep`` are in seconds, see
        :class:`~agentloop.store.Store`. Raises :class:`DefinitionError` for a bad URL."""
        self.lease, self.keep = lease, keep
        try:
            self._engine = _engine(url, connections, lease)
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
            values = {"call": call, "keep": keep, "lease": lease}
            if self._may_sweep():
                run(connection, _SWEEP, {})
            is_new = run(connection, _NEW_CALL, values).rowcount == 1
            if not is_new and run(connection, _FORGET, values).rowcount == 1:
                is_new = run(connection, _NEW_CALL, values).rowcount == 1
            if is_new and run(connection, _FIRST_ROUND, values).rowcount == 1:
                return Entered(Round(call, 0))
            return _enter(connection, Round(call, 0), "", lease)

        return await self._do(work, call)

    async def enter(
        self, call: str, number: int, answers: str, *, lease: float
    ) -> Entered | Busy | Settled:
        if not is_clean(call):
            raise UnknownRoundError("this call is not known here")

        def work(connection: Connection) -> Entered | Busy | Settled:
            return _enter(connection, Round(call, number), answers, lease)

        return await self._do(work, call)

    async def renew(self, round: Round, *, lease: float) -> None:
        await self._lease(round, _RENEW, lease)

    async def release(self, round: Round) -> None:
        await self._lease(round, _RELEASE, 0.0)

    async def append(self, round: Round, entry: str) -> None:
        def work(connection: Connection) -> None:
            values = {**_owner(round), "written": entry}
            if not _wrote(connection, _NEW_ENTRY, values):
                _owned(connection, _LOCK, values)
                _wrote(connection, _NEW_ENTRY, values)

        await self._do(work, round.call)

    async def settle(self, round: Round, outcome: str, *, next_state: str | None) -> None:
        def work(connection: Connection) -> None:
            _owned(connection, _SETTLE, {**_owner(round), "outcome": outcome})
            run(connection, _DROP_ENTRIES, _place(round))
            if next_state is not None:
                values = {"call": round.call, "number": round.number + 1, "state": next_state}
                run(connection, _NEW_ROUND, values)

        await self._do(work, round.call)

    async def claim(self, round: Round, key: str) -> Claim:
        def work(connection: Connection) -> Claim:
            values = {**_owner(round), "effect": key}
            if _wrote(connection, _NEW_CLAIM, values):
                return Claim(new=True)
            _owned(connection, _LOCK, values)
            found = run(connection, _FIND_CLAIM, values).one()
            return Claim(new=False, result=found.result)

        return await self._do(work, round.call)

    async def record(self, round: Round, key: str, result: str) -> None:
        def work(connection: Connection) -> None:
            values = {**_owner(round), "effect": key, "result": result}
            if not _wrote(connection, _RECORD, values):
                _owned(connection, _LOCK, values)

        await self._do(work, round.call)

    async def forget(self, call: str) -> None:
        def work(connection: Connection) -> None:
            run(connection, _DROP, {"call": call})

        await self._do(work, call)

    async def sweep(self) -> int:
        def work(connection: Connection) -> int:
            return run(connection, _SWEEP, {}).rowcount

        return await self._do(work)

    async def close(self) -> None:
        """Close all connections."""
        await anyio.to_thread.run_sync(self._engine.dispose)

    async def _lease(self, round: Round, sql: str, seconds: float) -> None:
        def work(connection: Connection) -> None:
            _owned(connection, sql, {**_owner(round), "lease": seconds})
            run(connection, _KEEP_CALL, _place(round))

        await self._do(work, round.call)

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
                _migrate(connection)
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
        super().__init__(f"sqlite:///{path}", lease=lease, keep=keep)


_HELD = f"""(SELECT call, number FROM agentloop_rounds WHERE {_OWNED} FOR UPDATE) AS held"""
"""The round where it is owned, locked until the transaction ends."""
_SETTLE = f"""UPDATE agentloop_rounds SET outcome = :outcome, state = '', answers = NULL
    WHERE {_OWNED}"""
_RENEW = f"UPDATE agentloop_rounds SET leased_until = :clock + :lease WHERE {_OWNED}"
_RELEASE = f"UPDATE agentloop_rounds SET leased_until = 0 WHERE {_OWNED}"
_LOCK = f"UPDATE agentloop_rounds SET epoch = epoch WHERE {_OWNED}"
_SWEEP = "DELETE FROM agentloop_calls WHERE expires < :clock"
_DROP = "DELETE FROM agentloop_calls WHERE call = :call"
_FORGET = f"{_SWEEP} AND call = :call"
_NEW_CALL = """INSERT INTO agentloop_calls (call, keep, expires)
    VALUES (:call, :keep, :clock + :keep) ON CONFLICT (call) DO NOTHING"""
_NEW_ROUND = """INSERT INTO agentloop_rounds (call, number, state, epoch, leased_until)
    VALUES (:call, :number, :state, 0, 0) ON CONFLICT (call, number) DO NOTHING"""
_FIRST_ROUND = """INSERT INTO agentloop_rounds (call, number, state, epoch, leased_until, answers)
    VALUES (:call, 0, '', 1, :clock + :lease, '')"""
# No lease reaches as far as ten of them: then the clock was set back since.
_ENTER = """UPDATE agentloop_rounds
    SET epoch = epoch + 1, leased_until = :clock + :lease, answers = coalesce(answers, :answers)
    WHERE call = :call AND number = :number AND outcome IS NULL
    AND (leased_until <= :clock OR leased_until > :clock + :lease * 10)
    AND EXISTS (SELECT 1 FROM agentloop_calls c WHERE c.call = :call AND c.expires >= :clock)
    RETURNING epoch, state, answers"""
_FIND_ROUND = """SELECT r.outcome FROM agentloop_rounds r JOIN agentloop_calls c ON c.call = r.call
    WHERE r.call = :call AND r.number = :number AND c.expires >= :clock"""
_NEW_ENTRY = f"""INSERT INTO agentloop_entries (call, number, entry, written)
    SELECT call, number, (SELECT coalesce(max(entry), 0) + 1 FROM agentloop_entries
        WHERE call = :call AND number = :number), :written
    FROM {_HELD} WHERE true ON CONFLICT (call, number, entry) DO NOTHING"""
_ENTRIES = """SELECT written FROM agentloop_entries
    WHERE call = :call AND number = :number ORDER BY entry"""
_DROP_ENTRIES = "DELETE FROM agentloop_entries WHERE call = :call AND number = :number"
_KEEP_CALL = "UPDATE agentloop_calls SET expires = :clock + keep WHERE call = :call"
_NEW_CLAIM = f"""INSERT INTO agentloop_claims (call, effect) SELECT call, :effect
    FROM {_HELD} WHERE true ON CONFLICT (call, effect) DO NOTHING"""
_FIND_CLAIM = "SELECT result FROM agentloop_claims WHERE call = :call AND effect = :effect"
_RECORD = f"""UPDATE agentloop_claims SET result = :result FROM {_HELD}
    WHERE agentloop_claims.call = held.call AND effect = :effect"""


def _enter(
    connection: Connection, round: Round, answers: str, lease: float
) -> Entered | Busy | Settled:
    place = _place(round)
    entering = {**place, "lease": lease, "answers": answers}
    row = run(connection, _ENTER, entering).one_or_none()
    if row is not None:
        run(connection, _KEEP_CALL, place)
        # Who enters for the first time finds nothing that was written down before.
        entries = run(connection, _ENTRIES, place) if row.epoch > 1 else ()
        written = tuple(entry.written for entry in entries)
        held = replace(
            round, epoch=row.epoch, state=row.state, answers=row.answers or "", entries=written
        )
        return Entered(held)
    found = run(connection, _FIND_ROUND, place).one_or_none()
    if found is None:
        raise UnknownRoundError("this call is not known here, or it has expired")
    return Busy() if found.outcome is None else Settled(found.outcome)


def _told(error: SQLAlchemyError) -> StoreError:
    """``error`` in words that hold neither the URL with its password nor the values, as its own
    may."""
    told = StoreError(f"the store failed with {type(error).__name__}")
    told.__cause__ = error
    return told


def _place(round: Round) -> dict[str, Any]:
    return {"call": round.call, "number": round.number}


def _owner(round: Round) -> dict[str, Any]:
    return {"call": round.call, "number": round.number, "epoch": round.epoch}


def _owned(connection: Connection, sql: str, values: dict[str, Any]) -> None:
    """Write to a round that ``values`` own; the row stays locked until the transaction ends."""
    if run(connection, sql, values).rowcount != 1:
        raise StaleOwnerError("the round was taken over or has ended; nothing was written")


def _wrote(connection: Connection, sql: str, values: dict[str, Any]) -> bool:
    """Write what hangs on ``_HELD``, in one statement.

    Where that wrote nothing, either the round is not owned or somebody wrote at the same time, whom
    this statement did not see; one that follows ``_LOCK`` does.
    """
    return run(connection, sql, values).rowcount == 1


def _migrate(connection: Connection) -> None:
    """Bring the schema to this version; processes that start at once wait for each other."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(7311840275)"))
    connection.execute(
        text("CREATE TABLE IF NOT EXISTS agentloop_schema (version INTEGER NOT NULL)")
    )
    found = connection.execute(text("SELECT version FROM agentloop_schema")).scalar_one_or_none()
    version = found or 0
    if version > len(_MIGRATIONS):
        raise StoreError(
            f"the store has schema version {version}, this agentloop knows up to "
            f"{len(_MIGRATIONS)}: a newer one has used it"
        )
    for statements in _MIGRATIONS[version:]:
        for statement in statements:
            connection.execute(text(statement))
    if found is None:
        connection.execute(
            text("INSERT INTO agentloop_schema VALUES (:v)"), {"v": len(_MIGRATIONS)}
        )
    elif version < len(_MIGRATIONS):
        connection.execute(
            text("UPDATE agentloop_schema SET version = :v"), {"v": len(_MIGRATIONS)}
        )


def _write_ahead(connection: Any) -> None:
    """Have SQLite write ahead. Unlike all else, that does not wait for others who use the file."""
    until = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.02)
        else:
            return


def _engine(url: str, connections: int, lease: float) -> Engine:
    if make_url(url).get_backend_name() != "sqlite":
        engine = create_engine(url, pool_size=connections, max_overflow=0)
        _look_after_idle_connections(engine)
        _let_go_after(engine, max(lease, 1.0))
        return engine
    engine = create_engine(url, connect_args={"timeout": _BUSY_SECONDS}, pool_size=connections)

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver
        _write_ahead(connection)
        for pragma in ("synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A reader that turns writer half-way cannot wait for its turn; so write from the start.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _look_after_idle_connections(engine: Engine) -> None:
    """Let connections that were idle be looked at before they are used.

    The pool would do so each time, which is one more journey to the server for each transaction.
    """

    @event.listens_for(engine, "checkin")
    def _note(_: Any, record: Any) -> None:
        record.info["used"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def _look(connection: Any, record: Any, _: Any) -> None:
        if time.monotonic() - record.info.get("used", math.inf) < _IDLE_SECONDS:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise InvalidatePoolError from error  # so that the pool makes new ones


def _let_go_after(engine: Engine, seconds: float) -> None:
    """Have the server end transactions whose process was paused or cut off in their midst.

    What they lock could not be taken over before that.
    """

    @event.listens_for(engine, "connect")
    def _limit(connection: Any, _: Any) -> None:
        cursor = connection.cursor()
        cursor.execute(f"SET idle_in_transaction_session_timeout = {round(seconds * 1000)}")
        cursor.close()
        connection.commit()
