"""Servers as processes of their own: how tests start and stop them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from mcp.client.stdio import StdioServerParameters

_SERVER = "tests.carriers.server"

Fresh = Callable[[], AbstractContextManager[tuple[str, int]]]


def stdio_process(backend: str, folder: Path | None = None) -> StdioServerParameters:
    """The stage over stdio, on ``backend``, for a client to start."""
    arguments = ["-m", _SERVER, "stdio", backend, *_given(folder)]
    return StdioServerParameters(command=sys.executable, args=arguments, env=dict(os.environ))


@contextmanager
def http_process(folder: Path | None = None) -> Iterator[str]:
    """The URL of the stage over HTTP."""
    command = [sys.executable, "-m", _SERVER, "http", *_given(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield _url(int(process.stdout.readline()))
        process.terminate()


@contextmanager
def fresh_processes(folder: Path) -> Iterator[Fresh]:
    """Starts a stage over HTTP each time, and kills it afterwards: its URL and its id."""
    command = [sys.executable, "-m", _SERVER, "fresh", str(folder)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as parent:

        @contextmanager
        def start() -> Iterator[tuple[str, int]]:
            assert parent.stdin is not None
            assert parent.stdout is not None
            parent.stdin.write("\n")
            parent.stdin.flush()
            port, process = map(int, parent.stdout.readline().split())
            try:
                yield _url(port), process
            finally:
                os.kill(process, signal.SIGKILL)

        yield start
        parent.terminate()


def _given(folder: Path | None) -> list[str]:
    return [str(folder)] if folder else []


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}/mcp"
