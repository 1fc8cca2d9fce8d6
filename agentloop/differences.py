"""Where one JSON value is not the other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any, cast

AT_MOST = 200
"""Differences that are looked for."""


def differences(recorded: Any, asked: Any) -> list[str]:
    """Where ``asked`` is not what was recorded, leaf by leaf, in words; at most ``AT_MOST``."""
    return list(islice(_differences(recorded, asked, ""), AT_MOST))


def _differences(recorded: Any, asked: Any, where: str) -> Iterator[str]:
    if isinstance(recorded, dict) and isinstance(asked, dict):
        a, b = cast("dict[str, Any]", recorded), cast("dict[str, Any]", asked)
        for key in sorted(a.keys() | b.keys()):
            yield from _differences(a.get(key, _NOTHING), b.get(key, _NOTHING), f"{where}.{key}")
    elif isinstance(recorded, list) and isinstance(asked, list):
        c, d = cast("list[Any]", recorded), cast("list[Any]", asked)
        for i in range(max(len(c), len(d))):
            pair = (c[i] if i < len(c) else _NOTHING, d[i] if i < len(d) else _NOTHING)
            yield from _differences(*pair, f"{where}[{i}]")
    elif recorded != asked:
        at = _first_difference(recorded, asked)
        yield f"{where}: recorded {_show(recorded, at)}, asked {_show(asked, at)}"


_NOTHING = object()
_AROUND = 24


def _first_difference(a: Any, b: Any) -> int:
    if not (isinstance(a, str) and isinstance(b, str)):
        return 0
    pairs = enumerate(zip(a, b, strict=False))
    return next((at for at, (x, y) in pairs if x != y), min(len(a), len(b)))


def _show(value: Any, at: int) -> str:
    """``value`` in short, around position ``at`` of a string."""
    if value is _NOTHING:
        return "nothing"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    start, end = max(at - _AROUND, 0), at + 2 * _AROUND
    short = ("..." if start else "") + text[start:end] + ("..." if end < len(text) else "")
    return repr(short) if isinstance(value, str) else short
