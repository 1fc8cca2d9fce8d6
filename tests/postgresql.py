"""A PostgreSQL server for tests and benchmarks, from Debian's packages."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def installed() -> list[Path]:
    """The servers that there are, the newest last."""
    return sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))


@contextmanager
def running(home: Path) -> Iterator[str]:
    """The URL of a new server, whose data and socket are in ``home``."""
    bin = installed()[-1].parent
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
        _wait_for([bin / "pg_isready", "-h", "127.0.0.1", "-p", str(port)])
        yield f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGINT)  # does not wait for clients to leave
        server.wait(20)


def _wait_for(ready: list[Any]) -> None:
    until = time.monotonic() + 60
    while subprocess.run(ready, stdout=subprocess.DEVNULL, check=False).returncode:
        if time.monotonic() > until:
            raise TimeoutError("PostgreSQL did not start")
        time.sleep(0.05)
