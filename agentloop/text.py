"""Text that is safe to put on a wire, and bounded."""

from __future__ import annotations

import math
from typing import Any, cast

MAX_DEPTH = 64
"""How deep JSON from a model or a tool may nest."""

MAX_INTEGER = 10**1000
"""Python refuses to read or write integers of more than 4300 digits."""


def clean(text: str) -> str:
    """``text`` without lone surrogates and NULs, which JSON writers and databases refuse.

    A lone surrogate in a tool result ends an SDK 2.3 stdio server, so text is cleaned before it
    comes near the wire.
    """
    if text.isascii():
        return text.replace("\0", "\ufffd") if "\0" in text else text
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text.replace("\0", "\ufffd") if "\0" in text else text


def is_clean(text: str) -> bool:
    """Whether a database takes ``text`` as it is; nothing in one is called otherwise."""
    return clean(text) == text


def too_deep(value: Any, depth: int = MAX_DEPTH) -> bool:
    """Whether ``value``, made of dicts and lists, nests deeper than ``depth``."""
    level: list[Any] = [value]
    for _ in range(depth):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(v for v in cast("dict[str, Any]", item).values() if _holds(v))
            elif isinstance(item, list):
                below.extend(v for v in cast("list[Any]", item) if _holds(v))
        if not below:
            return False
        level = below
    return True


def clean_json(value: Any) -> Any:
    """``value`` as JSON that every writer takes: strings cleaned, and as text what JSON has no
    number for (``nan``, integers of thousands of digits) or no form at all."""
    if isinstance(value, str):
        return clean(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if -MAX_INTEGER < value < MAX_INTEGER else hex(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        items = cast("dict[object, Any]", value).items()
        return {clean(str(k)): clean_json(v) for k, v in items}
    if isinstance(value, list | tuple):
        return [clean_json(v) for v in cast("list[Any]", value)]
    return clean(repr(value))


def clean_meta(meta: dict[str, Any]) -> dict[str, Any] | None:
    """A ``_meta`` as JSON that every writer takes, without the keys that are null; 2026-07-28 has
    no way to send those. None where nothing is left."""
    return clean_json({k: v for k, v in meta.items() if v is not None}) or None


def cut(text: str, limit: int) -> str:
    """``text`` itself if it takes at most ``limit`` bytes in UTF-8, else its head and its tail.

    Between the two stands a notice that says how much was left out.
    """
    if len(text) * 4 <= limit:
        return text
    data = text.encode(errors="replace")
    if len(data) <= limit:
        return text
    notice = f"\n[... {len(data) - limit} of {len(data)} bytes left out ...]\n"
    room = max(limit - len(notice), 0)
    head = data[: room * 2 // 3].decode(errors="ignore")
    tail = data[len(data) - room // 3 :].decode(errors="ignore") if room >= 3 else ""
    return head + notice + tail


def _holds(value: Any) -> bool:
    return bool(cast("object", value)) and isinstance(value, dict | list)
