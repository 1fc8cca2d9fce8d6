"""What is worked out once for an object, however often it is asked for."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar

ValueT = TypeVar("ValueT")


class Memo(Generic[ValueT]):
    """Remembers one value for each object, for as long as the object lives.

    By identity, so it is for objects that nobody changes: the messages of a run are shared from
    one ask to the next, and what was made of them once need not be made again.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Any], ValueT]] = {}

    def get(self, item: object, make: Callable[[], ValueT]) -> ValueT:
        """The value of ``item``; ``make`` gives it the first time."""
        key = id(item)
        known = self._known.get(key)
        if known is not None and known[0]() is item:
            return known[1]
        value = make()
        self._known[key] = (weakref.ref(item, partial(self._forget, key)), value)
        return value

    def _forget(self, key: int, _: object) -> None:
        self._known.pop(key, None)

    def __len__(self) -> int:
        return len(self._known)
