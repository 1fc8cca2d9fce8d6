"""What all tests share."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
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
def postgres() -> Iterator[str]:
    """A PostgreSQL server of the tests' own, on a socket in a directory of its own."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("PostgreSQL is not installed")
    # Not in pytest's own folder, which each session closes to all other users.
    bin, home = found[-1].parent, Path(tempfile.mkdtemp(prefix="agentloop-postgres-"))
    # The server refuses to run as root.
    become: dict[str, Any] = {"user": "postgres"} if os.geteuid() == 0 else {}
    if become:
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
        _wait_for(port)
        yield f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGINT)  # connections that are left do not keep it up
        server.wait(20)
        shutil.rmtree(home, ignore_errors=True)


def _wait_for(port: int) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError("PostgreSQL did not start")
