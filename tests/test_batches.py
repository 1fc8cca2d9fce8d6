"""Operations that come together are done together, and each gets what came of it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import anyio
import pytest

from agentloop.batches import Batches, Outcome


class Doubler:
    """Doubles numbers; what it does can be held back."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self._lock = threading.Lock()
        self._now = self.most_at_once = 0

    def __call__(self, numbers: Sequence[int]) -> Sequence[Outcome]:
        with self._lock:
            self.batches.append(list(numbers))
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        assert self.may_go_on.wait(5)
        with self._lock:
            self._now -= 1
        if -1 in numbers:
            raise ZeroDivisionError
        return [Outcome(n * 2) if n else Outcome(error=ValueError("zero")) for n in numbers]


async def all_of(batches: Batches[int], numbers: Sequence[int]) -> dict[int, Any]:
    """What came of each of ``numbers``, which come in one turn of the event loop."""
    came: dict[int, Any] = {}

    async def do(number: int) -> None:
        try:
            came[number] = await batches.do(number)
        except (ValueError, ZeroDivisionError) as error:
            came[number] = type(error)

    async with anyio.create_task_group() as group:
        for number in numbers:
            group.start_soon(do, number)
    return came


async def until(happened: Any) -> None:
    with anyio.fail_after(5):
        while not happened():  # noqa: ASYNC110  threads set no event of ours
            await anyio.sleep(0.002)


async def test_what_comes_in_one_turn_of_the_event_loop_is_one_batch() -> None:
    doubler = Doubler()
    came = await all_of(Batches(doubler, at_once=1), range(1, 6))
    assert came == {n: n * 2 for n in range(1, 6)}
    assert [sorted(batch) for batch in doubler.batches] == [[1, 2, 3, 4, 5]]


async def test_who_comes_while_a_batch_is_under_way_leaves_with_all_who_wait() -> None:
    doubler = Doubler()
    batches = Batches(doubler, at_once=1)
    doubler.may_go_on.clear()
    async with anyio.create_task_group() as group:
        for number in (1, 2, 3):
            group.start_soon(batches.do, number)
            await until(lambda: doubler.batches)
            await anyio.sleep(0.01)
        assert doubler.batches == [[1]]
        doubler.may_go_on.set()
    assert doubler.batches == [[1], [2, 3]]


async def test_no_more_batches_are_under_way_than_may_be_and_none_is_larger() -> None:
    doubler = Doubler()
    came = await all_of(Batches(doubler, at_once=2, most=3), range(1, 21))
    assert came == {n: n * 2 for n in range(1, 21)}
    assert max(map(len, doubler.batches)) == 3
    doubler.may_go_on.clear()
    batches = Batches(doubler, at_once=2)
    async with anyio.create_task_group() as group:
        for number in (1, 2, 3):
            group.start_soon(batches.do, number)
            await anyio.sleep(0.01)
        doubler.may_go_on.set()
    assert doubler.most_at_once == 2


async def test_an_error_is_raised_to_the_one_whose_it_is() -> None:
    came = await all_of(Batches(Doubler(), at_once=1), [1, 0, 2])
    assert came == {1: 2, 0: ValueError, 2: 4}


async def test_where_all_of_it_fails_everybody_is_told_and_the_next_batch_is_another_one() -> None:
    batches = Batches(Doubler(), at_once=1)
    assert await all_of(batches, [1, -1]) == {1: ZeroDivisionError, -1: ZeroDivisionError}
    assert await batches.do(2) == 4


async def test_one_that_is_cancelled_takes_nobody_along_and_what_was_begun_ends() -> None:
    doubler = Doubler()
    batches = Batches(doubler, at_once=1)
    doubler.may_go_on.clear()
    ended: list[int] = []

    async def cancelled() -> None:
        with anyio.CancelScope() as scope:
            scopes.append(scope)
            ended.append(await batches.do(1))
            await anyio.sleep(5)

    async def kept() -> None:
        ended.append(await batches.do(2))

    scopes: list[anyio.CancelScope] = []
    with anyio.fail_after(4):
        async with anyio.create_task_group() as group:
            group.start_soon(cancelled)
            group.start_soon(kept)
            await until(lambda: doubler.batches)
            scopes[0].cancel()
            await anyio.sleep(0.01)
            assert ended == []
            doubler.may_go_on.set()
    assert sorted(ended) == [2, 4]


async def test_who_is_cancelled_before_does_nothing() -> None:
    doubler = Doubler()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await Batches(doubler, at_once=1).do(1)
    assert scope.cancelled_caught
    assert doubler.batches == []


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_task_that_asyncio_cancels_leaves_the_others_their_results() -> None:
    import asyncio

    doubler = Doubler()
    batches = Batches(doubler, at_once=1)
    doubler.may_go_on.clear()
    first, second = (asyncio.ensure_future(batches.do(number)) for number in (1, 2))
    await until(lambda: doubler.batches)
    first.cancel()
    await anyio.sleep(0.01)
    doubler.may_go_on.set()
    assert await second == 4
    with pytest.raises(asyncio.CancelledError):
        await first
