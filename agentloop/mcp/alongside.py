"""Something that goes on while something else is done."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from agentloop.strays import stray

T = TypeVar("T")


async def alongside(
    background: Callable[[], Coroutine[Any, Any, None]], body: Callable[[], Awaitable[T]]
) -> T:
    """Do ``body`` while ``background`` goes on, which is cancelled when ``body`` ends.

    ``background`` must not raise, and has ended when this returns. It is no task of a group, which
    would wrap what ``body`` raises, and take several times as long to begin and to end.
    """
    errand = stray(background)
    try:
        return await body()
    finally:
        await errand.stop(math.inf)
