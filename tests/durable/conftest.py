"""The databases of durable runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("dbos")

from dbos import DBOS
from sqlalchemy import create_engine, make_url, text


@pytest.fixture
def anyio_backend() -> str:
    """The engine runs on asyncio only."""
    return "asyncio"


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    """The URL of an empty SQLite database."""
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
    url = _copy(postgres, "runs")
    DBOS.migrate(url)
    return url


@pytest.fixture(scope="session")
def new_database(template: str) -> Callable[[], str]:
    """Gives the URL of one more empty PostgreSQL database."""
    return lambda: _copy(template, f"runs_{os.urandom(6).hex()}")


def _copy(url: str, name: str) -> str:
    """The URL of a new database like that of ``url``."""
    server = make_url(url)
    engine = create_engine(server.set(database="postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {server.database}"))
    engine.dispose()
    return server.set(database=name).render_as_string(hide_password=False)
