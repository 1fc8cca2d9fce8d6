"""Connections to the database of a store: how SQLite and PostgreSQL are to behave."""

from __future__ import annotations

import math
import sqlite3
import time
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import InvalidatePoolError

_BUSY_SECONDS = 30.0
"""How long SQLite waits for others who use the file."""

_IDLE_SECONDS = 1.0
"""After so long it is looked whether a connection is still there before it is used."""


def make_engine(url: str | URL, connections: int, lease: float) -> Engine:
    """The engine for ``url``, with so many connections and transactions no longer than a lease."""
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
