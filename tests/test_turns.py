"""A call that is made some turns of the event loop later."""

from __future__ import annotations

import anyio
import anyio.lowlevel

from agentloop.turns import after_turns


async def test_others_get_their_turns_first() -> None:
    """A task that was started before, and one that it starts, have both begun by then."""
    seen: list[str] = []
    called = anyio.Event()

    def call() -> None:
        seen.append("call")
        called.set()

    async def inner() -> None:
        seen.append("inner")

    async def outer() -> None:
        seen.append("outer")
        group.start_soon(inner)

    async with anyio.create_task_group() as group:
        group.start_soon(outer)
        after_turns(5, call)
        assert seen == []
        await called.wait()

    assert seen == ["outer", "inner", "call"]


async def test_it_is_made_when_its_caller_is_gone() -> None:
    """A caller that is cancelled takes nothing with it, and may be the one to be cancelled."""
    called = anyio.Event()
    with anyio.CancelScope() as scope:
        after_turns(2, scope.cancel)
        await anyio.sleep_forever()
    assert scope.cancelled_caught
    with anyio.CancelScope() as gone:
        after_turns(3, called.set)
        gone.cancel()
        await anyio.sleep_forever()
    with anyio.fail_after(5):
        await called.wait()
