"""Real server processes that are killed at every step, paused, and started again."""

from __future__ import annotations

import json
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from agentloop.ledger import UNKNOWN
from agentloop.mcp.request import IDEMPOTENCY_KEY
from tests.faults.kit import STORED
from tests.faults.servers import AT_ONCE, FEW, Host, at_every_step, fresh, sqlite, wait_for
from tests.faults.victim import Ledger, says
from tests.faults.wire import JSON, SAMPLING

sqlalchemy = pytest.importorskip("sqlalchemy")


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
