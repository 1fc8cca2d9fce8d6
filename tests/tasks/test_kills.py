"""Tasks whose servers are killed at every step, alternate, and are paused: nobody steps in."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentloop.ledger import UNKNOWN
from agentloop.mcp.handover import EXTENSION
from agentloop.mcp.request import IDEMPOTENCY_KEY
from tests.faults.http import post_of, post_of_task
from tests.faults.servers import (
    FEW,
    GO,
    Host,
    Replica,
    at_every_step,
    fresh,
    sqlite,
    wait_for,
)
from tests.faults.victim import Ledger, says
from tests.faults.wire import JSON, SAMPLING
from tests.postgresql import database as new_database

pytest.importorskip("sqlalchemy")

FINAL = ("completed", "failed", "cancelled")
PATIENCE = 60.0
POINTS = 26
LEASE = 0.4
"""Long enough for servers that share two cores with others."""
models = pytest.mark.parametrize("own", [False, True], ids=["client's model", "server's model"])


NewURL = Callable[[Path], str]


@pytest.fixture(params=["sqlite", "postgres"])
def new_url(request: pytest.FixtureRequest) -> NewURL:
    """Gives the URL of a database for each folder: any server works on all tasks of its store."""
    if request.param == "sqlite":
        return sqlite
    server = request.getfixturevalue("postgres")
    return lambda folder: new_database(server)


class Trial:
    """One call that becomes a task, and is seen through over servers that are killed."""

    def __init__(self, host: Host, url: str, folder: Path, *, own: bool, **more: Any) -> None:
        self.host = host
        self.own = own
        self.ledger = Ledger(str(folder / "ledger"))
        self.kills = 0
        self.id: str | None = None
        self.news: JSON = {}
        self._told: list[JSON] = []
        self._options: Any = {
            "store": url,
            "ledger": str(self.ledger.path),
            "own": own,
            "tasks": True,
            "lease": LEASE,
            **more,
        }
        self._declared = {**({} if own else SAMPLING), "extensions": {EXTENSION: {}}}

    def start(self, die: int = 0) -> Replica:
        return self.host.start(**self._options, die=die)

    def play(self, *die: int) -> JSON:
        """Call the tool and see its task to the end; the first servers die at these steps."""
        dies = [*die, 0]
        replica = self.start(dies.pop(0))
        until = time.monotonic() + PATIENCE
        while not self.step(replica):
            if self.news is GONE:
                self.kills += 1
                replica = self.start(dies.pop(0))
            assert time.monotonic() < until, (self.ledger.lines(), self.news)
        news = self.news
        other = self.start()
        assert self._request(other, "tasks/get") == news, "any server says the same of it"
        replica.end()
        other.end()
        return news

    def step(self, replica: Replica) -> bool:
        """One thing that a client does next; whether the task has ended."""
        if self.id is None:
            called = post_of(
                "worker", GO, capabilities=self._declared, meta={IDEMPOTENCY_KEY: "one call"}
            )
            self.news = replica.post(called) or GONE
            self.id = self.news.get("taskId")
            return False
        self.news = self._request(replica, "tasks/get") or GONE
        if self.news is GONE:
            return False
        assert self.news["taskId"] == self.id
        if self.news["status"] == "input_required":
            self._answer(replica, self.news["inputRequests"])
        elif self.news["status"] == "working":
            time.sleep(0.01)
        return self.news.get("status") in FINAL

    def _answer(self, replica: Replica, asks: JSON) -> None:
        answers = {}
        for key, ask in asks.items():
            messages = ask["params"]["messages"]
            self._told = max(self._told, messages, key=len)
            number = sum(message["role"] == "assistant" for message in messages)
            answers[key] = {"role": "assistant", "model": "m", "content": says(number)}
        if self._request(replica, "tasks/update", inputResponses=answers) is None:
            self.news = GONE

    def _request(self, replica: Replica, method: str, **params: Any) -> JSON | None:
        assert self.id is not None
        return replica.post(post_of_task(method, self.id, self._declared, **params))

    def transcript(self) -> list[list[str]]:
        """What the model was told last, block by block; its calls in no order of their own."""
        told = self._told
        if self.own:
            lines = [line for line in self.ledger.lines() if line.startswith("told ")]
            told = json.loads(lines[-1].removeprefix("told "))
        return [sorted(map(_block, _listed(message["content"]))) for message in told]

    def check(self, news: JSON, undisturbed: list[list[str]]) -> None:
        """The promise: it ended as if nothing had happened, but for what is told as unknown."""
        lines = self.ledger.lines()
        where = [line for line in lines if line.startswith("killed")]
        assert news["status"] == "completed", (where, news)
        assert news["result"]["structuredContent"] == {"result": "all done"}, where
        told = self.transcript()
        assert len(told) == len(undisturbed), where
        unknown = 0
        for blocks, wanted in zip(told, undisturbed, strict=True):
            odd = [block for block in blocks if block not in wanted]
            assert len(blocks) == len(wanted), where
            odd = [block for block in odd if "shipped 2, as it turned out" not in block]
            assert all(UNKNOWN in block for block in odd), (where, odd)
            unknown += len(odd)
        assert unknown <= self.kills, where
        for n in (1, 2):
            assert lines.count(f"begin pay {n}") == 1 or unknown, where
            assert lines.count(f"begin pay {n}") <= 1, where
            assert lines.count(f"pay {n}") + unknown >= 1, where
        assert lines.count("ship 2") == 1, where
        assert len({line for line in lines if line.startswith("mark 1")}) == 1, where


GONE: JSON = {"gone": True}
"""The server was killed instead of answering."""


def _block(block: JSON) -> str:
    """A block without what is accidental in it."""
    kept = {name: value for name, value in block.items() if value is not None and name != "_meta"}
    if block["type"] == "tool_result":
        kept = {"content": [each["text"] for each in block["content"]], "type": "tool_result"}
    return json.dumps(kept | ({"id": ""} if "id" in kept else {}), sort_keys=True)


def _listed(content: Any) -> list[JSON]:
    return content if isinstance(content, list) else [content]


def undisturbed(host: Host, folder: Path, *, own: bool) -> list[list[str]]:
    trial = Trial(host, sqlite(fresh(folder)), fresh(folder), own=own)
    assert trial.play()["status"] == "completed"
    assert len(trial.transcript()) == 5
    return trial.transcript()


@models
@pytest.mark.timeout(400)
def test_killed_at_every_step(host: Host, tmp_path: Path, own: bool, new_url: NewURL) -> None:
    every = 1 if new_url is sqlite or os.environ.get("AGENTLOOP_FAULTS") == "long" else FEW
    wanted = undisturbed(host, tmp_path, own=own)

    def play(number: int) -> int:
        folder = fresh(tmp_path)
        trial = Trial(host, new_url(folder), folder, own=own)
        trial.check(trial.play(number * every), wanted)
        return trial.kills

    points = at_every_step(play) - 1
    assert points >= POINTS // every
    print(f"{points} points")  # noqa: T201


@models
@pytest.mark.timeout(60)
def test_killed_again_and_again(host: Host, tmp_path: Path, own: bool) -> None:
    wanted = undisturbed(host, tmp_path, own=own)
    for first in (4, 11, 20, 29):
        folder = fresh(tmp_path)
        trial = Trial(host, sqlite(folder), folder, own=own)
        trial.check(trial.play(first, 6, 5, 8), wanted)
        assert trial.kills >= 2


@models
@pytest.mark.timeout(60)
def test_replicas_that_alternate_and_one_of_them_is_killed(
    host: Host, tmp_path: Path, own: bool, new_url: NewURL
) -> None:
    """Every request goes to the other replica, until there is only one."""
    url = new_url(tmp_path)
    wanted = undisturbed(host, tmp_path, own=own)
    trial = Trial(host, url, tmp_path, own=own, pause=0.2)
    replicas = [trial.start(), trial.start()]
    until = time.monotonic() + PATIENCE
    while not trial.step(replicas[0]):
        replicas.reverse()
        if len(replicas) == 2 and "begin ship 2" in trial.ledger.lines():
            replicas.pop().end()
            trial.kills += 1
        assert time.monotonic() < until
    assert trial.kills == 1
    trial.check(trial.news, wanted)


@models
@pytest.mark.timeout(60)
def test_a_paused_replica_that_wakes_up_writes_nothing(
    host: Host, tmp_path: Path, own: bool, new_url: NewURL
) -> None:
    """Paused inside a tool for longer than its lease: the other one has finished the task."""
    url = new_url(tmp_path)
    wanted = undisturbed(host, tmp_path, own=own)
    trial = Trial(host, url, tmp_path, own=own, pause=0.2)
    one = trial.start()
    wait_for(lambda: trial.step(one) or "begin pay 1" in trial.ledger.lines())
    one.signal(signal.SIGSTOP)
    trial.kills += 1  # what it was in the middle of is unknown
    two = trial.start()
    wait_for(lambda: trial.step(two))
    ended = trial.news
    trial.check(ended, wanted)
    one.signal(signal.SIGCONT)
    time.sleep(0.5)  # until it has done what it was about to do
    assert not trial.step(two) or trial.news == ended
    trial.step(one)
    assert trial.news == ended, "what it says itself is what came of the task"
    assert trial.ledger.lines().count("begin ship 2") == 1
    trial.check(trial.news, wanted)
