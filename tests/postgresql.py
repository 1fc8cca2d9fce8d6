"""A PostgreSQL server for tests and benchmarks, from Debian's packages."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def installed() -> list[Path]:
    """The servers that there are, the newest last."""
    return sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))


@contextmanager
def running() -> Iterator[str]:
    """The URL of a new server."""
    # Not in pytest's own folder, which each session closes to all other users.
    bin, home = installed()[-1].parent, Path(tempfile.mkdtemp(prefix="agentloop-postgres-"))
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
        _wait_for([bin / "pg_isready", "-h", "127.0.0.1", "-p", str(port)])
        yield f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGINT)  # does not wait for clients to leave
        server.wait(20)
        shutil.rmtree(home, ignore_errors=True)


def database(server: str, like: str = "template1") -> str:
    """The URL of a new database on the server of a URL, a copy of ``like``."""
    from sqlalchemy import create_engine, make_url, text

    url = make_url(server)
    engine = create_engine(url.set(database="postgres"), isolation_level="AUTOCOMMIT")
    name = f"agentloop_{os.urandom(6).hex()}"
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {like}"))
    engine.dispose()
    return url.set(database=name).render_as_string(hide_password=False)


def _wait_for(ready: list[Any]) -> None:
    until = time.monotonic() + 60
    while subprocess.run(ready, stdout=subprocess.DEVNULL, check=False).returncode:
        if time.monotonic() > until:
            raise TimeoutError("PostgreSQL did not start")
        time.sleep(0.05)
