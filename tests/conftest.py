"""What all tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.postgresql import installed, running

# Before any test imports them: their asserts are rewritten like those of tests.
pytest.register_assert_rewrite("agentloop.testing")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The fault suite takes minutes, so it runs where it is named: ``pytest tests/faults``."""
    named = any("faults" in argument for argument in config.args)
    return True if collection_path.name == "faults" and not named else None


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Every async test runs on both backends."""
    return request.param


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A PostgreSQL server of the tests' own, on a socket in a directory of its own."""
    if not installed():
        pytest.skip("PostgreSQL is not installed")
    with running() as url:
        yield url


@pytest.fixture(scope="session")
def zygote() -> Iterator[Any]:
    """Forks servers; it loads everything, so it is started where it is used."""
    from tests.faults.servers import zygote

    with zygote() as process:
        yield process


@pytest.fixture
def host(zygote: Any) -> Iterator[Any]:
    """Starts servers that kill themselves, and ends those that are left."""
    from tests.faults.servers import Host

    host = Host(zygote)
    yield host
    host.clear()
    host.client.close()
