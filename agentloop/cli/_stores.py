"""Stores that are named on the command line: a SQLite file, or a database's URL."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from agentloop.errors import DefinitionError

if TYPE_CHECKING:
    from agentloop.sql_store import SQLStore


def store_at(where: str, *, new: bool) -> SQLStore:
    """The store at ``where``; its tables are made on first use.

    Raises :class:`DefinitionError` where none can be had, or, unless it may be ``new``, where there
    is no such file.
    """
    from agentloop.sql_store import SQLStore

    store = SQLStore(url_of(where))
    if not new and (file := _file_of(where)) is not None and not Path(file).is_file():
        raise DefinitionError(f"there is no store at {file}")
    return store


def url_of(where: str) -> str:
    """The URL of the store at ``where``.

    Raises :class:`DefinitionError` for a file that has none.
    """
    if "://" in where:
        return where
    if "?" in where:  # where a URL's options begin
        raise DefinitionError(f"no store can be at {where}: leave the '?' out of the file's name")
    return f"sqlite:///{where}"


def holds_durable_runs(where: str) -> bool:
    """Whether the store at ``where`` has tables of durable runs; their engine is not needed.

    Raises :class:`DefinitionError` for a database that cannot be read, or is no store.
    """
    from sqlalchemy import create_engine, inspect
    from sqlalchemy.exc import SQLAlchemyError

    engine = create_engine(url_of(where))
    try:
        there = inspect(engine)
        is_store = there.has_table("agentloop_schema")
        durable = there.has_table(
            "workflow_status", schema=None if engine.dialect.name == "sqlite" else "dbos"
        )
    except SQLAlchemyError as error:
        raise cannot_be_read(where, error) from error
    finally:
        engine.dispose()
    if not is_store:
        raise DefinitionError(f"the database at {_shown(where)} is no store of agentloop's")
    return durable


def cannot_be_read(where: str, error: BaseException) -> DefinitionError:
    """What to say of a store whose first use failed with ``error``."""
    failed = next((each for each in (error, error.__cause__) if hasattr(each, "orig")), None)
    said = getattr(failed, "orig", None) or error  # the driver has seen no values yet
    reason = str(said).partition("\n")[0].strip()
    return DefinitionError(f"the store at {_shown(where)} cannot be read: {reason}")


def _file_of(where: str) -> str | None:
    from sqlalchemy.engine import make_url

    url = make_url(url_of(where))
    return url.database or "" if url.get_backend_name() == "sqlite" else None


def _shown(where: str) -> str:
    from sqlalchemy.engine import make_url

    return make_url(where).render_as_string(hide_password=True) if "://" in where else where
