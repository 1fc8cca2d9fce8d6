"""Something that goes on while something else is done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import anyio

T = TypeVar("T")


async def alongside(
    background: Callable[[], Coroutine[Any, Any, None]], body: Callable[[], Awaitable[T]]
) -> T:
    """Do ``body`` while ``background`` goes on, which is cancelled when ``body`` ends.

    What ``body`` raises is raised as it is, not inside of an exception group. ``background`` must
    not raise.
    """
    outcome: list[T] = []
    raised: Exception | None = None
    async with anyio.create_task_group() as group:
        group.start_soon(background)
        try:
            outcome.append(await body())
        except Exception as error:  # noqa: BLE001  raised again below, outside of the group
            raised = error
        group.cancel_scope.cancel()
    if raised is not None:
        raise raised
    return outcome[0]
