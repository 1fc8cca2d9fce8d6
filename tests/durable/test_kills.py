"""A run whose process is killed, at each point where something happens, goes on in another one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentloop.ledger import UNKNOWN
from tests.durable.cast import EVENTS, NESTED_EVENTS, Diary, Model, NestedModel, boss, clerk

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def chains(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Chain]]:
    """Chains of processes, each killed in a run of its own: one on each database, side by side."""
    homes = {kind: tmp_path_factory.mktemp(kind) for kind in ("sqlite", "postgres", "nested")}
    urls = {kind: f"sqlite:///{homes[kind] / 'runs.db'}" for kind in ("sqlite", "nested")}
    if list(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        urls["postgres"] = request.getfixturevalue("new_database")()
    started = {
        kind: Chain("nested" if kind == "nested" else "chain", url, homes[kind])
        for kind, url in urls.items()
    }
    yield started
    for chain in started.values():
        chain.process.kill()
        chain.process.communicate()


class Chain:
    def __init__(self, role: str, url: str, folder: Path) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.durable.worker", role, url, str(folder)],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def end(self) -> Path:
        """Wait until it is through; its folder."""
        said, _ = self.process.communicate(timeout=280)
        assert self.process.returncode == 0, said
        return self.folder


@pytest.fixture(params=["sqlite", "postgres"])
def killed(request: pytest.FixtureRequest, chains: dict[str, Chain]) -> Path:
    """The folder of a chain that is through."""
    if request.param not in chains:
        pytest.skip("PostgreSQL is not installed")
    return chains[request.param].end()


@pytest.fixture
def killed_inside(chains: dict[str, Chain]) -> Path:
    """The folder of the chain of runs with agents inside of them."""
    return chains["nested"].end()


async def undisturbed(tmp_path: Path) -> dict[str, Any]:
    diary = Diary(tmp_path / "undisturbed")
    return (await clerk(diary).run("go", provider=Model(diary))).to_json()


async def test_a_run_that_was_killed_anywhere_ends_as_if_it_had_not_been(killed: Path) -> None:
    wanted = await undisturbed(killed)
    told_unknown = 0
    assert EVENTS == 26
    for number in range(EVENTS):
        run = json.loads((killed / f"run-{number}.json").read_text())
        assert listed(run["messages"][0])[0]["text"] == f"run-{number}"
        told_unknown += settle(run["messages"][1:], wanted["messages"][1:])
        for same in ("output", "stop", "error", "steps", "tool_calls"):
            assert run[same] == wanted[same], (number, same)
    assert told_unknown > 0

    diary = Diary(killed / "diary").lines()
    asks, others = halves(diary)
    effects = Counter(name for name in others)
    twice = [line for line, times in effects.items() if times > 1]
    assert all(line.startswith("book ") for line in twice), twice
    assert sum(effects[line] - 1 for line in twice) > 0  # so this test sees what runs twice
    # A killed ask is asked again, and no other.
    assert sum(Counter(asks).values()) - len(set(asks)) <= EVENTS // 6
    # Whatever was not told to be unknown has happened.
    paid = [line for line in effects if line.startswith("pay ")]
    assert len(paid) >= EVENTS * 3 - told_unknown
    assert len([line for line in effects if line.startswith("book ")]) == EVENTS * 3
    assert len([line for line in effects if line.startswith("send ")]) == EVENTS * 3


async def test_agents_inside_of_a_run_that_was_killed_anywhere_go_on_as_well(
    killed_inside: Path,
) -> None:
    diary = Diary(killed_inside / "undisturbed")
    wanted = (await boss(diary).run("go", provider=NestedModel(diary))).to_json()
    for number in range(NESTED_EVENTS):
        run = json.loads((killed_inside / f"run-{number}.json").read_text())
        assert bare(run)[1:] == bare(wanted)[1:], number
        for same in ("output", "stop", "error", "steps", "tool_calls"):
            assert run[same] == wanted[same], (number, same)
        assert run["usage"]["asks"] == 6
    asks, others = halves(Diary(killed_inside / "diary").lines())
    twice = {line for line, times in Counter(others).items() if times > 1}
    assert all(line.startswith("book ") for line in twice), twice
    assert len({line for line in others if line.startswith("book ")}) == NESTED_EVENTS * 2
    by_prompt = Counter(line for line in asks if "help" in line)
    assert sum(by_prompt.values()) >= NESTED_EVENTS * 4


def settle(messages: list[Any], wanted: list[Any]) -> int:
    """Check that ``messages`` are the ``wanted`` ones; how many outcomes were told as unknown."""
    unknown = 0
    assert len(messages) == len(wanted)
    for message, expected in zip(messages, wanted, strict=True):
        assert message["role"] == expected["role"]
        blocks, others = listed(message), listed(expected)
        for block, other in zip(blocks, others, strict=True):
            if block != other:
                assert block["toolUseId"] == other["toolUseId"]
                assert block["toolUseId"].endswith("a"), block  # a payment, which is ``once``
                assert block["isError"]
                assert block["content"][0]["text"] == UNKNOWN
                unknown += 1
    return unknown


def bare(run: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """The blocks of a run without its usage: what a helper was told of a payment was longer."""
    return [
        [{name: value for name, value in block.items() if name != "_meta"} for block in blocks]
        for blocks in map(listed, run["messages"])
    ]


def listed(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message["content"]
    return content if isinstance(content, list) else [content]


def halves(diary: list[str]) -> tuple[list[str], list[str]]:
    asks = [line for line in diary if line.startswith("ask ")]
    return asks, [line for line in diary if not line.startswith("ask ")]
