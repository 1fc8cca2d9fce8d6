"""Tool calls in what a model wrote."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, cast

from agentloop.lenient import Unreadable, read

CALL = "tool_call"
RESULT = "tool_result"


@dataclass(frozen=True, slots=True)
class Call:
    """A call that can be read."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Unread:
    """A block that says it is a call, but cannot be read as one."""

    text: str
    reason: str


@dataclass(slots=True)
class Found:
    """What a text holds: calls in their order, and the words around them."""

    calls: list[Call | Unread] = field(default_factory=list["Call | Unread"])
    prose: str = ""


def find_calls(text: str, names: set[str]) -> Found:
    """The calls in ``text`` to tools of which some are called ``names``.

    A call is a fenced block marked ``tool_call``, or a ``<tool_call>`` tag, at the beginning of a
    line; it may hold several. Without the mark, JSON counts as a call only where there can be no
    doubt: in a fence marked ``json`` or not at all, or at the end of the text, with nothing but a
    name out of ``names`` and arguments. Blocks inside other fences are somebody's example. From
    the first ``tool_result`` on, which no model may write, the text counts for nothing.
    """
    found = Found()
    prose: list[str] = []
    at = 0
    while opening := _OPENING.search(text, at):
        prose.append(text[at : opening.start()])
        mark = (opening["tag"] or opening["mark"]).casefold()
        if mark.startswith(RESULT):
            at = len(text)
            break
        if mark in _MARKED:
            calls, at = _marked(text, opening)
            found.calls += calls
            continue
        body, end = _fence(text, opening)
        unmarked = _unmarked(body, names) if mark in _UNMARKED else []
        found.calls += unmarked
        if not unmarked:
            prose.append(text[opening.start() : end])
        at = end
    tail, calls = _at_the_end(text[at:], names)
    found.calls += calls
    prose.append(tail)
    found.prose = re.sub(r"\n{3,}", "\n\n", "".join(prose)).strip()
    return found


_OPENING = re.compile(
    r"^[ ]{0,3}(?:(?P<fence>`{3,}|~{3,})[ \t]*(?P<mark>[^\s`]*)[^\n`]*$"
    r"|<(?P<tag>tool_calls?|function_call|tool_result)>)",
    re.MULTILINE,
)
_MARKED = frozenset({CALL, "tool_calls", "function_call", "tool-call"})
_UNMARKED = frozenset({"", "json", "json5", "jsonc"})
_TAG_END = re.compile(r"</(?:tool_calls?|function_call)>")
_NOISE = " \t\r\n,;}])"
_GAP = re.compile(r"[\s,]*")
_BARE = re.compile(
    r"^[ \t]*\[?\s*\{\s*[\"'](?:name|tool|tool_name|function|arguments|args|parameters|input|id|"
    r"type|call_id|tool_calls|calls)[\"']\s*:",
    re.MULTILINE,
)
_MAX_TRIES = 8
"""How many places may look like the beginning of a bare call before the search is given up."""


def _fence(text: str, opening: re.Match[str]) -> tuple[str, int]:
    """What stands inside the fence, and where the text goes on after it."""
    closing = _closing(opening).search(text, opening.end())
    if closing is None:
        return text[opening.end() :], len(text)
    return text[opening.end() : closing.start()], closing.end()


def _closing(opening: re.Match[str]) -> re.Pattern[str]:
    if opening["tag"]:
        return _TAG_END
    mark, least = opening["fence"][0], len(opening["fence"])
    return re.compile(rf"^[ ]{{0,3}}{mark}{{{least},}}[ \t\r]*$", re.MULTILINE)


def _marked(text: str, opening: re.Match[str]) -> tuple[list[Call | Unread], int]:
    """The calls of a marked block, and where the text goes on after it."""
    end, after = _border(text, opening)
    body = text[opening.end() : end]
    read_well, at, reason = _read_calls(body, None)
    left = body[at:].strip(_NOISE)
    calls: list[Call | Unread] = [*read_well]
    if reason or not calls or "{" in left or "[" in left:
        calls.append(Unread(body[at:].strip(), reason or "it holds no call"))
    return calls, after


def _border(text: str, opening: re.Match[str]) -> tuple[int, int]:
    """Where a marked block ends, if only by the next one, and where the text goes on."""
    following = _OPENING.search(text, opening.end())
    while following and not (following["tag"] or following["mark"]):
        following = _OPENING.search(text, following.end())
    end = following.start() if following else len(text)
    closing = _closing(opening).search(text, opening.end(), end)
    return (closing.start(), closing.end()) if closing else (end, end)


def _unmarked(text: str, names: set[str]) -> list[Call]:
    """The calls that ``text`` consists of; none if there is anything else in it."""
    calls, at, reason = _read_calls(text, names)
    return [] if reason or text[at:].strip() else calls


def _at_the_end(text: str, names: set[str]) -> tuple[str, list[Call]]:
    """``text`` without the bare calls with which it ends, and these calls."""
    if text.rstrip()[-1:] in ("}", "]"):
        for start in islice(_BARE.finditer(text), _MAX_TRIES):
            if calls := _unmarked(text[start.start() :], names):
                return text[: start.start()], calls
    return text, []


def _read_calls(text: str, names: set[str] | None) -> tuple[list[Call], int, str]:
    """The calls with which ``text`` begins, where they end, and why the next one is not read."""
    calls: list[Call] = []
    at = 0
    while text[(start := _skip(text, at)) : start + 1] in ("{", "["):
        try:
            value, end = read(text, start)
            calls += _calls_in(value, names)
        except Unreadable as error:
            return calls, at, str(error)
        at = end
    return calls, at, ""


def _skip(text: str, at: int) -> int:
    """The next place in ``text`` that is no space and no comma."""
    gap = _GAP.match(text, at)
    return gap.end() if gap else at


# --- the shapes of a call ----------------------------------------------------------------------

_NAMES = ("name", "tool", "tool_name", "function")
_ARGUMENTS = ("arguments", "args", "parameters", "input")
_BESIDE = frozenset({"id", "type", "call_id"})
_LISTS = frozenset({"tool_calls", "calls"})


def _calls_in(value: Any, names: set[str] | None) -> list[Call]:
    """The calls that ``value`` is. With ``names`` only calls of these, with arguments.

    Raises :class:`Unreadable` where it is anything else.
    """
    if isinstance(value, list) and value:
        return [call for item in cast("list[Any]", value) for call in _calls_in(item, names)]
    if not isinstance(value, dict):
        raise Unreadable(_SHAPE)
    items = cast("dict[str, Any]", value)
    if len(items) == 1 and (key := next(iter(items))) in _LISTS and isinstance(items[key], list):
        return _calls_in(items[key], names)
    if isinstance(items.get("function"), dict) and not items.keys() - {"function", *_BESIDE}:
        return _calls_in(items["function"], names)
    return [_call(items, names)]


_SHAPE = 'a call is {"name": "...", "arguments": {...}}'


def _call(items: dict[str, Any], names: set[str] | None) -> Call:
    name_key = next((key for key in _NAMES if isinstance(items.get(key), str)), None)
    arguments_key = next((key for key in _ARGUMENTS if key in items), None)
    others = items.keys() - _BESIDE - {name_key, arguments_key}
    if name_key is None or not items[name_key] or others:
        raise Unreadable(_SHAPE)
    if names is not None and (arguments_key is None or items[name_key] not in names):
        raise Unreadable(_SHAPE)
    arguments: Any = items[arguments_key] if arguments_key else {}
    if isinstance(arguments, str):
        arguments, end = read(arguments)
        if items[arguments_key][end:].strip():  # pyright: ignore[reportArgumentType]
            raise Unreadable(_SHAPE)
    if not isinstance(arguments, dict):
        raise Unreadable('"arguments" is not a JSON object')
    return Call(items[name_key], cast("dict[str, Any]", arguments))
