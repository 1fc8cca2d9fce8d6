"""The stage as a process: ``python -m tests.carriers.server``, and one of

- ``stdio BACKEND [FOLDER]``
- ``http [FOLDER]``: on a free port of the loopback, told on the first line
- ``fresh FOLDER``: for each line that comes in, a new process that serves HTTP; its port and its
  id are the line that goes out. It is forked from this one, which has loaded everything and run
  nothing.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from pathlib import Path

import anyio
import structlog

from tests.carriers.stage import stage


def over_stdio(backend: str, folder: str | None = None) -> None:
    server = stage(Path(folder) if folder else None)
    anyio.run(server.run_stdio_async, backend=backend)


def over_http(folder: str | None = None) -> None:
    listener = _listener()
    _say(_port(listener))
    _serve(listener, Path(folder) if folder else None)


def fresh(folder: str) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for _ in sys.stdin:
        listener = _listener()
        child = os.fork()
        if not child:
            _serve(listener, Path(folder))
            os._exit(0)
        _say(f"{_port(listener)} {child}")
        listener.close()


def _listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def _port(listener: socket.socket) -> str:
    return str(listener.getsockname()[1])


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201


def _serve(listener: socket.socket, folder: Path | None = None) -> None:
    import uvicorn

    config = uvicorn.Config(stage(folder).streamable_http_app(), log_level="critical")
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    {"stdio": over_stdio, "http": over_http, "fresh": fresh}[sys.argv[1]](*sys.argv[2:])
