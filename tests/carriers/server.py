"""The stage as a process: ``python -m tests.carriers.server stdio BACKEND [FOLDER]`` or ``http``.

Over HTTP it listens on a free port of the loopback and says which on its first line.
"""

from __future__ import annotations

import logging
import socket
import sys
from pathlib import Path

import anyio
import structlog

from tests.carriers.stage import stage


def over_stdio(backend: str, folder: str | None = None) -> None:
    server = stage(Path(folder) if folder else None)
    anyio.run(server.run_stdio_async, backend=backend)


def over_http() -> None:
    import uvicorn

    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)  # noqa: T201
    config = uvicorn.Config(stage().streamable_http_app(), log_level="critical")
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    {"stdio": over_stdio, "http": over_http}[sys.argv[1]](*sys.argv[2:])
