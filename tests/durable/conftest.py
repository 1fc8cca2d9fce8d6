"""The databases of durable runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("dbos")

from dbos import DBOS
from sqlalchemy import make_url

from tests.engine import needs_engine_on_sqlite
from tests.postgresql import database as new


@pytest.fixture
def anyio_backend() -> str:
    """The engine runs on asyncio only."""
    return "asyncio"


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    """The URL of an empty SQLite database."""
    needs_engine_on_sqlite()
    return f"sqlite:///{tmp_path / 'runs.db'}"


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return request.getfixturevalue("sqlite")
    return request.getfixturevalue("new_database")()


@pytest.fixture(scope="session")
def template(postgres: str) -> str:
    """The URL of a PostgreSQL database with the engine's tables, which take long to make."""
    url = new(postgres)
    DBOS.migrate(url)
    return url


@pytest.fixture(scope="session")
def new_database(template: str) -> Callable[[], str]:
    """Gives the URL of one more empty PostgreSQL database."""
    like = make_url(template).database
    assert like is not None
    return lambda: new(template, like)
