"""Time that is granted to one thing after another, in one stretch of code."""

from __future__ import annotations

import asyncio
import time

import anyio
import anyio.lowlevel
import pytest
from mcp_types import CreateMessageRequestParams

from agentloop import Agent, Limits, Stop
from agentloop.meta import Reply
from agentloop.patience import AGAIN, granting, time_left
from agentloop_providers.scripted import reply

pytestmark = pytest.mark.timeout(30)


async def test_what_takes_longer_than_was_granted_is_left() -> None:
    began = time.monotonic()
    with granting() as patience:
        patience.grant(0.05)
        await anyio.sleep(5)
        pytest.fail("it was left before")
    assert 0.04 < time.monotonic() - began < 2


async def test_time_is_granted_anew_and_lifted() -> None:
    with granting() as patience:
        for _ in range(3):
            patience.grant(0.2)
            await anyio.sleep(0.1)
        patience.grant(0.05)
        patience.lift()
        await anyio.sleep(0.1)
        assert time_left() == float("inf")
        patience.grant(5)
        assert 4 < time_left() <= 5


async def test_who_swallows_its_cancellation_and_waits_on_is_cancelled_again() -> None:
    began = time.monotonic()
    with granting() as patience:
        patience.grant(0.05)
        try:
            await anyio.sleep(20)
        except BaseException:  # noqa: BLE001  which is what is tested
            await anyio.sleep(20)
        pytest.fail("it was left before")
    assert time.monotonic() - began < AGAIN + 3


async def test_an_error_is_no_end_of_time() -> None:
    with pytest.raises(KeyError), granting() as patience:  # noqa: PT012
        patience.grant(5)
        await anyio.lowlevel.checkpoint()
        raise KeyError


async def test_who_is_cancelled_from_outside_in_the_same_moment_is_cancelled() -> None:
    went_on = False
    with anyio.CancelScope() as scope:
        with granting() as patience:
            patience.grant(0.02)
            try:
                await anyio.sleep(5)
            finally:
                scope.cancel()
                with anyio.CancelScope(shield=True):
                    await anyio.lowlevel.checkpoint()
        await anyio.sleep(5)
        went_on = True
    assert scope.cancelled_caught
    assert not went_on


async def test_asyncios_own_timeout_works_around_it_and_inside(anyio_backend_name: str) -> None:
    if anyio_backend_name != "asyncio":
        return
    with pytest.raises(TimeoutError):  # noqa: PT012
        async with asyncio.timeout(0.05):
            with granting() as patience:
                patience.grant(5)
                await anyio.sleep(5)
    with granting() as patience:
        patience.grant(0.05)
        async with asyncio.timeout(5):
            await anyio.sleep(5)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


class Stubborn:
    """Answers the first ask though it is told to stop, and all others at once."""

    name = "stubborn"

    async def sample(self, request: CreateMessageRequestParams) -> Reply:
        try:
            await anyio.sleep(5)
        except BaseException:  # noqa: BLE001  which is what is tested
            return reply("late")
        return reply("in time")


async def test_an_answer_that_comes_of_being_told_to_stop_leaves_nothing_behind(
    anyio_backend_name: str,
) -> None:
    result = await Agent("a", limits=Limits(ask_seconds=0.05)).run("go", provider=Stubborn())
    assert result.stop is Stop.DONE
    assert result.text == "late"
    await anyio.sleep(0.01)
    if anyio_backend_name == "asyncio":
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
