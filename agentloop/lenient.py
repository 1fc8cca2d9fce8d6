"""JSON as models write it."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

from agentloop.text import MAX_DEPTH, clean, too_deep

MAX_LENGTH = 64 * 1024
"""Characters that are read leniently; what is longer must be JSON as it should be."""


class Unreadable(ValueError):
    """A text is no JSON, also for a lenient reader; the message tells a model what to mend."""


def read(text: str, at: int = 0) -> tuple[Any, int]:
    """The JSON value that stands at ``at`` in ``text``, and where it ends.

    Beyond JSON it reads what leaves no doubt: trailing commas, single quotes, line breaks and
    unknown escapes in strings, and Python's ``True``, ``False`` and ``None``. It completes
    nothing: what is cut off is :class:`Unreadable`. Values nest at most ``MAX_DEPTH`` deep.
    """
    at = _skip(text, at)
    try:
        value, end = _STRICT.raw_decode(text, at)
    except (ValueError, RecursionError):
        if len(text) - at > MAX_LENGTH:
            raise Unreadable("it is no JSON") from None
        value, end = _read(text, at, 0)
    if too_deep(value):
        raise Unreadable(f"it nests deeper than {MAX_DEPTH} levels")
    return value, end


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number} is too large")
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


_STRICT = json.JSONDecoder(strict=False, parse_float=_finite, parse_constant=_refuse)
_SPACE = re.compile(r"[ \t\r\n]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?(?![\w.])")
_WORD = re.compile(r"[A-Za-z]+")
_WORDS = {"true": True, "false": False, "null": None, "True": True, "False": False, "None": None}
_PLAIN = {'"': re.compile(r'[^"\\]*'), "'": re.compile(r"[^'\\]*")}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"} | {c: c for c in "\"'\\/"}
_HEX = re.compile(r"[0-9a-fA-F]{4}")


def _read(text: str, at: int, depth: int) -> tuple[Any, int]:
    if depth > MAX_DEPTH:
        raise Unreadable(f"it nests deeper than {MAX_DEPTH} levels")
    at = _skip(text, at)
    first = text[at : at + 1]
    if first == "{":
        return _read_object(text, at, depth)
    if first == "[":
        return _read_list(text, at, depth)
    if first in ('"', "'"):
        return _read_string(text, at)
    if number := _NUMBER.match(text, at):
        return _to_number(number), number.end()
    if (word := _WORD.match(text, at)) and word[0] in _WORDS:
        return _WORDS[word[0]], word.end()
    raise _unexpected(text, at, "a value")


def _read_object(text: str, at: int, depth: int) -> tuple[dict[str, Any], int]:
    items: dict[str, Any] = {}
    at = _skip(text, at + 1)
    while text[at : at + 1] != "}":
        if text[at : at + 1] not in ('"', "'"):
            raise _unexpected(text, at, "a key in quotes")
        key, at = _read_string(text, at)
        at = _skip(text, at)
        if text[at : at + 1] != ":":
            raise _unexpected(text, at, "a colon")
        items[key], at = _read(text, at + 1, depth + 1)
        at = _next(text, at, "}")
    return items, at + 1


def _read_list(text: str, at: int, depth: int) -> tuple[list[Any], int]:
    items: list[Any] = []
    at = _skip(text, at + 1)
    while text[at : at + 1] != "]":
        item, at = _read(text, at, depth + 1)
        items.append(item)
        at = _next(text, at, "]")
    return items, at + 1


def _next(text: str, at: int, closing: str) -> int:
    """Where the next item begins, or where ``closing`` stands."""
    at = _skip(text, at)
    if text[at : at + 1] == ",":
        return _skip(text, at + 1)
    if text[at : at + 1] != closing:
        raise _unexpected(text, at, f"a comma or {closing}")
    return at


def _read_string(text: str, at: int) -> tuple[str, int]:
    quote = text[at]
    plain = _PLAIN[quote]
    parts: list[str] = []
    at += 1
    while True:
        piece = plain.match(text, at)
        assert piece is not None
        parts.append(piece[0])
        at = piece.end()
        mark = text[at : at + 1]
        if mark == quote:
            return clean("".join(parts)), at + 1
        escape = text[at + 1 : at + 2]
        if not mark or not escape:
            raise Unreadable("it ends in the middle of a string")
        if escape == "u" and (code := _HEX.match(text, at + 2)):
            parts.append(chr(int(code[0], 16)))
            at = code.end()
        else:
            parts.append(_ESCAPES.get(escape, mark + escape))
            at += 2


def _to_number(number: re.Match[str]) -> int | float:
    try:
        return _finite(number[0]) if number[1] or number[2] else int(number[0])
    except ValueError as error:
        raise Unreadable("a number is too large") from error


def _skip(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    assert space is not None
    return space.end()


def _unexpected(text: str, at: int, wanted: str) -> Unreadable:
    if at >= len(text):
        return Unreadable(f"it ends where {wanted} was expected")
    return Unreadable(f"{wanted} was expected instead of {text[at : at + 20]!r}")
