"""The tables of a store, and how those of an older version are brought up to date."""

from __future__ import annotations

from sqlalchemy import Connection, text

from agentloop.errors import StoreError
from agentloop.sql_tasks import COUNTING, SCHEMA

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


def migrate(connection: Connection) -> None:
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
