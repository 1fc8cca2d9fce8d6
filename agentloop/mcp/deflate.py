"""Bytes in fewer bytes."""

from __future__ import annotations

import zlib

MAX_BYTES = 64 * 1024 * 1024
"""The most that is inflated."""

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

_LEVEL = 6
"""Of 9: higher ones take up to three times as long, for less than a hundredth of the bytes."""


def deflate(data: bytes) -> bytes:
    """``data`` in as few bytes as can be."""
    deflated = _deflate(data, zlib.Z_DEFAULT_STRATEGY)
    if len(deflated) * 3 > len(data):  # keys, hashes, numbers: letters tell more than repeats
        deflated = min(deflated, _deflate(data, zlib.Z_FILTERED), key=len)
    return deflated


def _deflate(data: bytes, strategy: int) -> bytes:
    # What deflate works with is made for each state anew, and takes ten times as long to make as a
    # short state takes to deflate. A window of 16 KiB looks back as far in those.
    bits, memory = (14, 7) if len(data) + len(_COMMON) <= 1 << 14 else (15, 8)
    deflating = zlib.compressobj(_LEVEL, zlib.DEFLATED, -bits, memory, strategy, _COMMON)
    return deflating.compress(data) + deflating.flush()


def inflate(data: bytes, most: int = MAX_BYTES) -> bytes:
    """What was deflated, at most ``most`` bytes; 0 is no limit.

    Raises :class:`ValueError` for anything else, and for what is too much.
    """
    inflating = zlib.decompressobj(wbits=-15, zdict=_COMMON)
    try:
        inflated = inflating.decompress(data, most)
    except zlib.error as error:
        raise ValueError("not deflated") from error
    if not inflating.eof:
        raise ValueError(f"cut off, or larger than {most} bytes")
    return inflated
