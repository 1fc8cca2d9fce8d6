"""The table, third part: rows of functions with several runs."""

from __future__ import annotations

from typing import Any

from tests.carriers import functions as f
from tests.carriers.kit import Scenario


def _row(name: str, play: Any, says: Any, gives: Any, stops: dict[str, str], *did: str) -> Scenario:
    return Scenario(name=name, play=play, says=says, gives=gives, stops=stops, effects=did)


def _done(*keys: str) -> dict[str, str]:
    return dict.fromkeys(keys, "done")


TOGETHER = [
    _row(
        "nested sub-agents",
        f.nested,
        f.nested_says,
        "boss is done",
        _done(
            "0",
            "0/1.0/0",
            "0/1.0/0/1.0/0",
        ),
        "add 1 1",
        "add 2 1",
        "same x",
    ),
    _row(
        "parallel sub-agents as tools",
        f.team,
        f.team_says,
        "all parts",
        _done("0", "0/1.0/0", "0/1.2/0", "0/1.3/0"),
        *["add 0 1"] * 4,
        *["add 1 1"] * 2,
        "add 2 1",
    ),
    _row(
        "planner, writers, editor",
        f.newsroom,
        f.newsroom_says,
        {"title": "News", "parts": [f"part {n} is written" for n in (1, 2, 3)]},
        _done("0", "1/0", "2/0", "3/0", "4"),
        *["add 0 1"] * 3,
        *["add 1 1"] * 3,
    ),
    _row(
        "branches of different length",
        f.uneven,
        f.uneven_says,
        [f"good: judge part {n} is written" for n in (3, 1, 2)],
        _done("0/0", "0/1", "1/0", "1/1", "2/0", "2/1"),
        *["add 0 1"] * 3,
        *["add 1 1"] * 2,
        "add 2 1",
    ),
    _row(
        "branches in branches, agents in a tool",
        f.forest,
        f.forest_says,
        [["part 1 is done"] * 2, "both done"],
        _done("0/0/0", "0/1/0", "1/0", "1/0/1.0/0/0", "1/0/1.0/1/0"),
        *["add 1 1"] * 4,
        *["add 2 1"] * 4,
    ),
    _row(
        "values made once",
        f.remembered,
        lambda request: "re: " + f.asked(request)[0],
        [
            42,
            {"said": "re: helper 1"},
            [[2, "re: kept 2"], [3, "re: kept 3"]],
            "re: last 42",
        ],
        _done("#ask/0", "0/0", "1/0", "2"),
        "add 1 1",
        "add 2 1",
        "ask 1",
        "stamp",
    ),
    _row(
        "a run after another",
        f.talk,
        f.talk_says,
        ["reply 1", "reply 3"],
        _done("0", "1"),
        "add 0 1",
        "add 2 1",
    ),
    _row(
        "a function that copes with failures",
        f.recovered,
        f.recovered_says,
        ["some words", "failed", "steps"],
        {"0": "done", "0/1.0/0": "steps", "1": "failed", "2": "steps"},
    ),
    _row(
        "a provider of the server's own beside the client",
        f.mixed,
        lambda request: "from the client",
        ["from the server", "from the client"],
        _done("0/#own/0", "1/0"),
        "add 5 5",
    ),
    _row(
        "a typed sub-agent and an exclusive tool",
        f.typed_tool,
        f.typed_tool_says,
        "told",
        _done("0", "0/1.1/0"),
        "add 1 1",
    ),
]
