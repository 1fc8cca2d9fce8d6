"""Work in a task of its own, which can be left behind."""

from __future__ import annotations

import contextvars
import time

import anyio
import anyio.lowlevel
import pytest

from agentloop.strays import MAX_STRETCH, at_once, left_behind, stray


async def test_work_ends_with_a_value_or_an_error() -> None:
    async def well() -> int:
        return 3

    async def badly() -> None:
        raise SystemExit(3)

    good, bad = stray(well), stray(badly)
    assert await good.wait(1)
    assert await bad.wait(1)
    assert (good.ended, good.cancelled, good.value, good.error) == (True, False, 3, None)
    assert (bad.ended, bad.cancelled, bad.value) == (True, False, None)
    assert isinstance(bad.error, SystemExit)


async def test_waiting_takes_no_longer_than_it_may_and_can_be_done_again() -> None:
    done = anyio.Event()
    work = stray(done.wait)
    began = time.monotonic()
    assert not await work.wait(0.05)
    assert not await work.wait(0)
    assert time.monotonic() - began < 1
    done.set()
    assert await work.wait(float("inf"))
    assert await work.wait(0)


async def test_work_that_is_stopped_is_cancelled() -> None:
    log: list[str] = []

    async def wait() -> None:
        try:
            await anyio.sleep(60)
        finally:
            log.append("finally")

    work = stray(wait)
    assert not await work.wait(0.02)
    assert await work.stop(1)
    assert (work.ended, work.cancelled, log) == (True, True, ["finally"])
    assert left_behind() == 0


async def test_work_that_is_stopped_before_it_began_never_begins() -> None:
    began: list[bool] = []

    async def begin() -> None:
        began.append(True)

    work = stray(begin)
    assert await work.stop(1)
    await anyio.lowlevel.checkpoint()
    assert (work.ended, work.cancelled, began) == (True, True, [])


async def test_work_may_begin_later() -> None:
    """After the time that was said, in the context it was started in; stopped before, never."""
    name = contextvars.ContextVar("name", default="")
    began: list[tuple[str, float]] = []
    at = time.monotonic()

    async def begin() -> None:
        began.append((name.get(), time.monotonic() - at))

    name.set("mine")
    late, never = stray(begin, after=0.05), stray(begin, after=0.05)
    name.set("another")
    assert await never.stop(1)
    assert not await late.wait(0)
    assert await late.wait(5)
    assert [(who, seconds >= 0.04) for who, seconds in began] == [("mine", True)]
    assert (never.ended, never.cancelled) == (True, True)


async def test_work_can_be_stopped_by_somebody_who_is_cancelled() -> None:
    log: list[str] = []

    async def slow_to_stop() -> None:
        try:
            await anyio.sleep(60)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.05)
            log.append("stopped well")

    work = stray(slow_to_stop)
    with anyio.move_on_after(0.02):
        try:
            await work.wait(60)
        finally:
            await work.stop(5)
    assert log == ["stopped well"]


async def test_work_that_does_not_stop_is_left_behind_until_it_ends() -> None:
    released = anyio.Event()

    async def stubborn() -> str:
        while not released.is_set():
            try:
                await released.wait()
            except anyio.get_cancelled_exc_class():
                continue
        return "late"

    work = stray(stubborn)
    await work.wait(0.01)
    assert not await work.stop(0.05)
    assert left_behind() == 1
    released.set()
    assert await work.wait(1)
    assert (work.value, left_behind()) == ("late", 0)


async def test_work_sees_the_callers_context_and_keeps_its_own() -> None:
    var: contextvars.ContextVar[int] = contextvars.ContextVar("var", default=0)

    async def change() -> int:
        was = var.get()
        var.set(9)
        return was

    token = var.set(1)
    work = stray(change)
    var.reset(token)
    await work.wait(1)
    assert (work.value, var.get()) == (1, 0)


async def test_work_that_never_waits_is_done_at_once_on_asyncio(anyio_backend_name: str) -> None:
    var: contextvars.ContextVar[int] = contextvars.ContextVar("var", default=0)

    async def well() -> int:
        var.set(9)
        return 3

    async def badly() -> None:
        raise SystemExit(3)

    good, bad = at_once(well, {}), at_once(badly, {})
    if anyio_backend_name == "asyncio":
        assert good.ended
        assert bad.ended
    assert await good.wait(1)
    assert await bad.wait(1)
    assert await good.stop(1)
    assert (good.cancelled, good.value, good.error, var.get()) == (False, 3, None, 0)
    assert (bad.cancelled, bad.value) == (False, None)
    assert isinstance(bad.error, SystemExit)


async def test_work_that_never_waits_lets_others_have_their_turn() -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await anyio.lowlevel.checkpoint()

    async def hold() -> None:
        until = time.monotonic() + MAX_STRETCH
        while time.monotonic() < until:
            pass

    async with anyio.create_task_group() as group:
        group.start_soon(count)
        for _ in range(10):
            await at_once(hold, {}).wait(1)
        group.cancel_scope.cancel()
    assert turns >= 9


async def test_errors_of_work_that_nobody_waits_for_are_nobodys() -> None:
    async def badly() -> None:
        await anyio.sleep(0.01)
        raise KeyError("unseen")

    work = stray(badly)
    await anyio.sleep(0.05)
    assert isinstance(work.error, KeyError)


async def test_groups_of_tasks_work_inside(anyio_backend_name: str) -> None:
    async def group() -> list[int]:
        got: list[int] = []

        async def add(n: int) -> None:
            await anyio.sleep(0.01)
            got.append(n)

        async with anyio.create_task_group() as tasks:
            for n in range(3):
                tasks.start_soon(add, n)
        with pytest.raises(TimeoutError), anyio.fail_after(0.01):
            await anyio.sleep(60)
        return sorted(got)

    work = stray(group)
    await work.wait(1)
    assert work.value == [0, 1, 2]
