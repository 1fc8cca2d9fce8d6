"""Real server processes that are killed at every step, paused, and started again."""

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
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from agentloop.ledger import UNKNOWN
from agentloop.mcp.request import IDEMPOTENCY_KEY
from tests.faults.http import post_of, result_of
from tests.faults.kit import STORED
from tests.faults.victim import Ledger, says
from tests.faults.wire import JSON, SAMPLING

sqlalchemy = pytest.importorskip("sqlalchemy")

GO = {"prompt": "Go"}
LEASE = 0.15
AT_ONCE = 6
FEW = 7
"""On PostgreSQL every so manieth step is played, unless ``AGENTLOOP_FAULTS=long``."""


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
        try:
            return result_of(self._client.post(self._url, **post_of("worker", GO, **request)))
        except httpx2.TransportError:
            return None

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def end(self) -> None:
        with suppress(ProcessLookupError):
            self.signal(signal.SIGKILL)


@pytest.fixture(scope="module")
def zygote() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.faults.victim"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


@pytest.fixture
def host(zygote: subprocess.Popen[str]) -> Iterator[Host]:
    host = Host(zygote)
    yield host
    host.clear()
    host.client.close()


class Trial:
    """One call that is seen through, over servers that are killed."""

    def __init__(
        self, host: Host, url: str, folder: Path, *, own: bool = False, name: str = "one call"
    ) -> None:
        self.host = host
        self._name = name
        self.ledger = Ledger(str(folder / "ledger"))
        self.kills = 0
        self.asks: list[JSON] = []
        self._options: Any = {"store": url, "ledger": str(self.ledger.path), "own": own}
        self._own = own

    def play(self, *die: int) -> JSON:
        """Call the tool to its end; the first servers die at these steps."""
        dies = [*die, 0]
        replica = self.host.start(**self._options, die=dies.pop(0))
        meta = {IDEMPOTENCY_KEY: self._name}
        declared = {} if self._own else SAMPLING
        request: JSON = {"meta": meta, "capabilities": declared}
        while True:
            result = replica.send(request)
            if result is None:
                self.kills += 1
                replica = self.host.start(**self._options, die=dies.pop(0))
                continue
            if result["resultType"] != "input_required":
                replica.end()
                return result
            ((key, ask),) = result["inputRequests"].items()
            self.asks.append(ask["params"])
            number = sum(m["role"] == "assistant" for m in ask["params"]["messages"])
            answer = {"role": "assistant", "model": "m", "content": says(number)}
            request = {
                "answers": {key: answer},
                "state": result["requestState"],
                "capabilities": declared,
            }

    def check(self, result: JSON) -> None:
        """The promise: all finished, nothing twice, what is unknown was told."""
        lines = self.ledger.lines()
        where = [line for line in lines if line.startswith("killed")]
        assert result["structuredContent"] == {"result": "all done"}, where
        told = json.dumps(self.asks)
        for n in (1, 2):
            assert lines.count(f"pay {n}") <= 1, where
            assert lines.count(f"begin pay {n}") <= 1, where
            if not self._own:
                known = f'"paid {n}"' in told
                assert known or UNKNOWN in told, where
                assert not known or lines.count(f"pay {n}") == 1, where
        assert lines.count("ship 2") == 1, where
        keys = {line for line in lines if line.startswith("mark 1")}
        assert len(keys) == 1, where


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


@pytest.mark.fault("B68", "B37", on=(STORED,))
@pytest.mark.timeout(150)
@pytest.mark.parametrize("own", [False, True], ids=["client's model", "server's model"])
def test_killed_at_every_step(host: Host, tmp_path: Path, own: bool) -> None:
    def play(step: int) -> int:
        folder = fresh(tmp_path)
        trial = Trial(host, sqlite(folder), folder, own=own)
        trial.check(trial.play(step))
        asked = [line for line in trial.ledger.lines() if line.startswith("ask ")]
        assert len(asked) <= 3 + trial.kills, "one ask of the model's is made again for each kill"
        return trial.kills

    assert at_every_step(play) > 40


@pytest.mark.fault("B68", on=(STORED,))
@pytest.mark.timeout(30)
def test_killed_again_and_again(host: Host, tmp_path: Path) -> None:
    for first in (9, 17, 26):
        folder = fresh(tmp_path)
        trial = Trial(host, sqlite(folder), folder)
        trial.check(trial.play(first, 6, 5, 8))
        assert trial.kills >= 2


@pytest.mark.fault("B68", on=(STORED,))
@pytest.mark.timeout(150)
def test_killed_on_postgresql(host: Host, tmp_path: Path, postgres: str) -> None:
    every = 1 if os.environ.get("AGENTLOOP_FAULTS") == "long" else FEW

    def play(number: int) -> int:
        folder = fresh(tmp_path)
        trial = Trial(host, postgres, folder, name=folder.name)
        trial.check(trial.play(number * every))
        return trial.kills

    assert at_every_step(play) > 40 // every


@pytest.mark.fault("B68", on=(STORED,))
@pytest.mark.timeout(30)
def test_the_ledger_names_the_calls_whose_outcome_is_unknown(host: Host, tmp_path: Path) -> None:
    """Killed in the middle of the effect: the claim is there, and what was told with it."""

    def play(step: int) -> int:
        folder = fresh(tmp_path)
        trial = Trial(host, sqlite(folder), folder)
        trial.check(trial.play(step))
        engine = sqlalchemy.create_engine(sqlite(folder))
        with engine.begin() as connection:
            found = connection.execute(
                sqlalchemy.text("SELECT effect, result FROM agentloop_claims")
            ).all()
        engine.dispose()
        assert len({row.effect for row in found}) == 3
        return sum(UNKNOWN in row.result for row in found)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        unknown = list(pool.map(play, range(8, 24)))
    assert max(unknown) == 1


def wait_for(happened: Any, seconds: float = 5) -> None:
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.fault("B69", on=(STORED,))
@pytest.mark.timeout(30)
@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_a_paused_replica(
    host: Host, tmp_path: Path, database: str, request: pytest.FixtureRequest
) -> None:
    """Paused inside a tool for longer than its lease, it wakes up and changes nothing."""
    url = sqlite(tmp_path) if database == "sqlite" else request.getfixturevalue("postgres")
    ledger = Ledger(str(tmp_path / "ledger"))
    options: Any = {"store": url, "ledger": str(ledger.path), "pause": 0.2}
    one, two = host.start(**options), host.start(**options)
    first = one.send({})
    assert first is not None
    answer = {"role": "assistant", "model": "m", "content": says(0)}
    again: JSON = {"answers": {"0:0": answer}, "state": first["requestState"]}
    given: list[JSON | None] = []
    waiting = threading.Thread(target=lambda: given.append(one.send(again)))
    waiting.start()
    wait_for(lambda: "begin pay 1" in ledger.lines())
    one.signal(signal.SIGSTOP)
    taken = two.send(again)
    assert taken is not None
    told = json.dumps(taken["inputRequests"])
    assert UNKNOWN in told
    one.signal(signal.SIGCONT)
    waiting.join(10)
    assert given[0] is not None
    assert given[0]["inputRequests"] == taken["inputRequests"], "the other's outcome"
    assert ledger.lines().count("begin pay 1") == 1
    again = {
        "answers": {"0:1": {"role": "assistant", "model": "m", "content": says(9)}},
        "state": given[0]["requestState"],
    }
    done = one.send(again)
    assert done is not None
    assert done["structuredContent"] == {"result": "all done"}


@pytest.mark.fault("B69", on=(STORED,))
@pytest.mark.timeout(30)
def test_two_replicas_that_enter_at_once(host: Host, tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path / "ledger"))
    options: Any = {"store": sqlite(tmp_path), "ledger": str(ledger.path), "pause": 0.05}
    replicas = [host.start(**options) for _ in range(2)]
    result = replicas[0].send({})
    for number in range(3):
        assert result is not None
        answer = {"role": "assistant", "model": "m", "content": says(number)}
        again: JSON = {"answers": {f"0:{number}": answer}, "state": result["requestState"]}
        with ThreadPoolExecutor(4) as pool:
            given = list(pool.map(lambda replica, a=again: replica.send(a), replicas * 2))
        result = given[0]
        assert result is not None
        for other in given:
            assert other is not None
            assert other.get("inputRequests") == result.get("inputRequests")
    assert result is not None
    assert result["structuredContent"] == {"result": "all done"}
    effects = [line for line in ledger.lines() if not line.startswith("begin")]
    assert len(effects) == len(set(effects)) == 4
