"""The state of a suspended call, as it crosses the wire.

It is sealed by the SDK's request-state boundary, which takes text and encrypts it into base64. So
the state is deflated here and written in base85, which costs a quarter where a second base64 would
cost a third.
"""

from __future__ import annotations

import base64
import zlib
from typing import Any

from pydantic_core import from_json, to_json

from agentloop.errors import StateError

_PREFIX = "a1"
MAX_STATE_BYTES = 64 * 1024 * 1024
"""The largest state, inflated, that is read."""

# What every transcript says, so that deflate need not learn it from each state anew.
_COMMON = (
    b'{"v":1,"round":1,"values":{},"runs":{"0":{"v":1,"id":"","of":"","messages":['
    b'{"role":"user","content":[{"type":"text","text":""}]},'
    b'{"role":"assistant","content":[{"type":"tool_use","name":"","id":"","input":{"'
    b'"}}]},{"role":"user","content":[{"type":"tool_result","toolUseId":"","content":'
    b'[{"type":"text","text":""}],"isError":true}]}],"usage":{"asks":1,"input_tokens":,'
    b'"output_tokens":,"estimated":"bytes/4"},"steps":,"tool_calls":,"seconds":0.,'
    b'"recent":["'
)


def pack(state: dict[str, Any]) -> str:
    """``state`` as ASCII text."""
    return packed(to_json(state))


def packed(written: bytes) -> str:
    """A state that is written as JSON already, as ASCII text."""
    deflated = _deflate(written, zlib.Z_DEFAULT_STRATEGY)
    if len(deflated) * 3 > len(written):  # keys, hashes, numbers: letters tell more than repeats
        deflated = min(deflated, _deflate(written, zlib.Z_FILTERED), key=len)
    return _PREFIX + base64.b85encode(deflated).decode()


def _deflate(data: bytes, strategy: int) -> bytes:
    deflate = zlib.compressobj(9, wbits=-15, strategy=strategy, zdict=_COMMON)
    return deflate.compress(data) + deflate.flush()


def unpack(text: str) -> dict[str, Any]:
    """What :func:`pack` wrote. Raises :class:`StateError` for anything else."""
    if not text.startswith(_PREFIX):
        raise StateError("the state is not one of agentloop's, or of another version of it")
    try:
        inflate = zlib.decompressobj(wbits=-15, zdict=_COMMON)
        written = inflate.decompress(base64.b85decode(text[len(_PREFIX) :]), MAX_STATE_BYTES)
        if not inflate.eof:
            raise StateError(f"the state is cut off, or larger than {MAX_STATE_BYTES} bytes")
        state = from_json(written)  # unlike ``json`` it takes no lone surrogates, as no writer does
    except (ValueError, zlib.error) as error:
        raise StateError("the state is damaged") from error
    if not isinstance(state, dict):
        raise StateError("the state is damaged")
    return state  # pyright: ignore[reportUnknownVariableType]
