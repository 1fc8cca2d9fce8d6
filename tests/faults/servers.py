"""Servers of :mod:`tests.faults.victim`, started and killed by tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2

from tests.faults.http import post_of, result_of
from tests.faults.wire import JSON

GO = {"prompt": "Go"}
LEASE = 0.15
AT_ONCE = 6
FEW = 7
"""On PostgreSQL every so manieth step is played, unless ``AGENTLOOP_FAULTS=long``."""


@contextmanager
def zygote() -> Iterator[subprocess.Popen[str]]:
    """The process that forks the servers."""
    command = [sys.executable, "-m", "tests.faults.victim"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


class Host:
    """Forks servers, and kills them in the end."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._pids: list[int] = []
        self._lock = threading.Lock()
        self.client = httpx2.Client(timeout=20)

    def start(self, **options: Any) -> Replica:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(json.dumps({"lease": LEASE, **options}) + "\n")
            self._process.stdin.flush()
            started = json.loads(self._process.stdout.readline())
            self._pids.append(started["pid"])
        return Replica(started["pid"], f"http://127.0.0.1:{started['port']}/mcp", self.client)

    def clear(self) -> None:
        for pid in self._pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._pids.clear()


class Replica:
    """One server process."""

    def __init__(self, pid: int, url: str, client: httpx2.Client) -> None:
        self.pid, self._url, self._client = pid, url, client

    def send(self, request: JSON) -> JSON | None:
        """The result of a round; None where the server was killed instead."""
        return self.post(post_of("worker", GO, **request))

    def post(self, post: dict[str, Any]) -> JSON | None:
        """The result of a request; None where the server was killed instead."""
        try:
            return result_of(self._client.post(self._url, **post))
        except httpx2.TransportError:
            return None

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def end(self) -> None:
        with suppress(ProcessLookupError):
            self.signal(signal.SIGKILL)


_count = iter(range(10_000))


def fresh(folder: Path) -> Path:
    path = folder / str(next(_count))
    path.mkdir()
    return path


def sqlite(folder: Path) -> str:
    return f"sqlite:///{folder}/store.db"


def at_every_step(play: Callable[[int], int]) -> int:
    """Play a trial for each step from 1 on, several at once; which one was not there any more."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for first in range(1, 1000, AT_ONCE):
            steps = range(first, first + AT_ONCE)
            for step, kills in zip(steps, pool.map(play, steps), strict=True):
                if not kills:
                    return step
    raise AssertionError("there is no end of steps")


def wait_for(happened: Any, seconds: float = 5) -> None:
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.01)
