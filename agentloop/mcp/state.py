"""The state of a suspended call, as it crosses the wire.

It is sealed by the SDK's request-state boundary, which takes text. So it is deflated here and
written in base64: that costs a third, of which :class:`agentloop.mcp.StateCodec` takes back what
the seal's own base64 would make of it.
"""

from __future__ import annotations

import base64
from typing import Any

from pydantic_core import from_json, to_json

from agentloop.errors import StateError
from agentloop.mcp.deflate import MAX_BYTES, deflate, inflate

_PREFIX = "a2"


def pack(state: dict[str, Any]) -> str:
    """``state`` as ASCII text."""
    return packed(to_json(state))


def packed(written: bytes) -> str:
    """A state that is written as JSON already, as ASCII text."""
    return _PREFIX + base64.b64encode(deflate(written)).decode()


def unpack(text: str, most: int = MAX_BYTES) -> dict[str, Any]:
    """What :func:`pack` wrote. Raises :class:`StateError` for anything else, and for more than
    ``most`` bytes; 0 is no limit."""
    if not text.startswith(_PREFIX):
        raise StateError("the state is not one of agentloop's, or of another version of it")
    try:
        read = inflate(base64.b64decode(text[len(_PREFIX) :], validate=True), most)
        # Values are not kept for the next state, as they would be: each has others.
        state = from_json(read, cache_strings="keys")
    except ValueError as error:
        raise StateError(f"the state is damaged: {error}") from error
    if not isinstance(state, dict):
        raise StateError("the state is damaged")
    return state  # pyright: ignore[reportUnknownVariableType]
