"""What a run may spend, and what it spent."""

from __future__ import annotations

from typing import Any

import pytest

from agentloop import AgentLoopError, Limits, Usage
from agentloop.errors import DefinitionError


def test_the_defaults_end_every_run() -> None:
    limits = Limits()
    assert (limits.steps, limits.tool_calls, limits.seconds) == (20, 200, 600.0)
    assert (limits.parallel, limits.calls_per_reply, limits.rounds) == (16, 64, 10)


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"steps": -1},
        {"steps": 2.5},
        {"steps": "3"},
        {"steps": True},
        {"tool_calls": -1},
        {"tokens": 0},
        {"seconds": 0},
        {"seconds": -1.0},
        {"seconds": float("nan")},
        {"seconds": "1"},
        {"seconds": True},
        {"ask_seconds": 0},
        {"rounds": 0},
        {"errors": 0},
        {"parallel": 0},
        {"parallel": None},
        {"calls_per_reply": 0},
        {"calls_per_reply": None},
        {"output_retries": -1},
        {"output_retries": None},
    ],
)
def test_a_limit_that_makes_no_sense_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match=f"Limits.{next(iter(wrong))}=") as caught:
        Limits(**wrong)
    assert isinstance(caught.value, ValueError | AgentLoopError)


@pytest.mark.parametrize("name", ["steps", "tool_calls", "tokens", "seconds", "rounds", "errors"])
def test_none_lifts_a_limit(name: str) -> None:
    assert getattr(Limits(**{name: None}), name) is None


def test_no_tool_calls_and_no_retries_are_limits_too() -> None:
    assert Limits(tool_calls=0, output_retries=0, seconds=1, ask_seconds=None).tool_calls == 0


def test_usage_adds_up() -> None:
    one = Usage(asks=1, input_tokens=10, output_tokens=2, cache_read_tokens=4)
    two = Usage(asks=2, input_tokens=5, output_tokens=1, cache_write_tokens=3, estimated="bytes/4")
    assert one + two == Usage(
        asks=3,
        input_tokens=15,
        output_tokens=3,
        cache_read_tokens=4,
        cache_write_tokens=3,
        estimated="bytes/4",
    )
    assert (one + two).total_tokens == 18


def test_usage_comes_back_from_json() -> None:
    usage = Usage(asks=1, input_tokens=7, estimated="o200k_base")
    assert usage.to_json() == {"asks": 1, "input_tokens": 7, "estimated": "o200k_base"}
    assert Usage.from_json(usage.to_json()) == usage
    assert Usage().to_json() == {}


@pytest.mark.parametrize(
    "junk",
    [
        None,
        [],
        "x",
        {"input_tokens": -5},
        {"input_tokens": "5"},
        {"input_tokens": 1.5},
        {"input_tokens": True},
        {"input_tokens": 2**60},
        {"estimated": 5, "unknown": 1},
    ],
)
def test_what_a_client_writes_as_usage_is_not_trusted(junk: object) -> None:
    assert Usage.from_json(junk) == Usage()


def test_an_estimates_name_is_bounded() -> None:
    assert Usage.from_json({"estimated": "x" * 1000}).estimated == "x" * 64
