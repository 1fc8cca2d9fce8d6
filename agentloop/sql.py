"""Statements that mean the same to SQLite and to PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, TextClause, text

_CLOCK = "CAST(extract(epoch FROM statement_timestamp()) AS DOUBLE PRECISION)"


def run(connection: Connection, sql: str, values: Mapping[str, Any]) -> Any:
    """Execute ``sql``; ``:clock`` in it is the time by the clock that all who write share."""
    if connection.dialect.name == "sqlite":
        return connection.execute(_for_sqlite(sql), {**values, "clock": time.time()})
    return connection.execute(_for_postgresql(sql), values)


def clock(connection: Connection) -> float:
    """The time by that clock."""
    if connection.dialect.name == "sqlite":
        return time.time()
    return float(connection.execute(_for_postgresql("SELECT :clock")).scalar_one())


@lru_cache(256)
def _for_sqlite(sql: str) -> TextClause:
    # A writer has the whole database to itself.
    return text(sql.replace(" FOR UPDATE SKIP LOCKED", "").replace(" FOR UPDATE", ""))


@lru_cache(256)
def _for_postgresql(sql: str) -> TextClause:
    return text(sql.replace(":clock", _CLOCK))
