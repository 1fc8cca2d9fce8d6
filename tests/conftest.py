"""What all tests share."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Before any test imports them: their asserts are rewritten like those of tests.
pytest.register_assert_rewrite(
    "agentloop.testing.provider_contract", "agentloop.testing.http_contract"
)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The fault suite takes minutes, so it runs where it is named: ``pytest tests/faults``."""
    named = any("faults" in argument for argument in config.args)
    return True if collection_path.name == "faults" and not named else None


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Every async test runs on both backends."""
    return request.param


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL server of the tests' own, on a socket in a directory of its own."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("PostgreSQL is not installed")
    bin, home = found[-1].parent, tmp_path_factory.mktemp("pg")
    # The server refuses to run as root.
    become: dict[str, Any] = {"user": "postgres"} if os.geteuid() == 0 else {}
    if become:
        for path in (home, *home.parents):
            if path.owner() == "root" and path != Path("/") and path != Path("/tmp"):
                path.chmod(0o755)
        shutil.chown(home, "postgres")
    data = home / "data"
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run(
        [bin / "initdb", "-D", data, "-A", "trust", "-U", "postgres"],
        check=True,
        cwd=home,
        **become,
        **quiet,
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = f"-c listen_addresses=127.0.0.1 -c unix_socket_directories={home} -p {port}"
    server = subprocess.Popen(
        [bin / "postgres", "-D", data, *options.split()], cwd=home, **become, **quiet
    )
    try:
        _wait_for(bin, port)
        yield f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"
    finally:
        server.terminate()
        server.wait(20)


def _wait_for(bin: Path, port: int) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        asked = [bin / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
        if subprocess.run(asked).returncode == 0:
            return
        time.sleep(0.05)
    raise TimeoutError("PostgreSQL did not start")
