"""Figures and texts as a person reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any


def duration(seconds: float) -> str:
    """``850 ms``, ``3.2 s``, ``2 min 5 s``, ``1 h 3 min``."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def count(number: int, what: str) -> str:
    """``1 step``, ``2 steps``, ``1,000 steps``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def short(number: int) -> str:
    """``950``, ``1.2k``, ``34k``, ``1.5M``."""
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if number >= limit * 0.9995:
            scaled = number / limit
            return f"{scaled:.1f}{unit}" if scaled < 9.95 else f"{scaled:.0f}{unit}"
    return str(number)


def moment(at: float) -> str:
    """A time in seconds since the epoch, on this machine's clock and calendar."""
    try:
        return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return "at an unknown time"


def tokens(usage: Mapping[str, int]) -> int:
    """All tokens that ``usage`` counts."""
    return usage.get("input_tokens", 0) + usage.get("output_tokens", 0)


def as_json(value: Any) -> str:
    """``value`` as indented JSON."""
    try:
        return json.dumps(value, ensure_ascii=False, indent=2)
    except (ValueError, TypeError, RecursionError):
        return repr(value)


def on_one_line(value: Any, most: int) -> str:
    """The arguments of a call at a glance, in at most ``most`` characters."""
    if isinstance(value, dict):
        parts: list[str] = []
        for name, item in value.items():  # pyright: ignore[reportUnknownVariableType]
            parts.append(f"{name}: {_brief(item)}")
            if sum(map(len, parts)) > most:
                break
        text = ", ".join(parts)
    else:
        text = "" if value is None else _brief(value)
    text = " ".join(text[: most * 2].split())
    return text if len(text) <= most else text[: most - 1] + "…"


def _brief(value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False)
    except (ValueError, TypeError, RecursionError):
        return "…"
