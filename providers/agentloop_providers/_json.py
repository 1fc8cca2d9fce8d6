"""JSON as the model APIs write it: strict, and arguments of tools inside of strings."""

from __future__ import annotations

import json
from typing import Any, NoReturn, cast

from mcp_types import ToolUseContent

from agentloop.meta import INVALID_KEY


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


_STRICT = json.JSONDecoder(parse_constant=_no_constant)


def read(text: str) -> Any:
    """The value that ``text`` holds. Raises ``ValueError``, also for what nests too deeply."""
    try:
        return _STRICT.decode(text)
    except RecursionError:
        raise ValueError("it nests too deeply") from None


def write(value: Any) -> str:
    """``value`` as JSON, without spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def tool_use(*, name: str, id: str, arguments: object) -> ToolUseContent:
    """A tool use from what a model wrote as its arguments: an object, or JSON of one.

    Where they are neither, the model has to be told, and nothing may run: the block then says
    under ``INVALID_KEY`` what is wrong.
    """
    wrong = None
    if isinstance(arguments, str):
        try:
            arguments = read(arguments) if arguments.strip() else {}
        except ValueError as error:
            wrong = f"not valid JSON ({_short(str(error))})"
    if isinstance(arguments, dict):
        return ToolUseContent(name=name, id=id, input=cast("dict[str, Any]", arguments))
    wrong = wrong or "no JSON object"
    reason = f"The arguments are {wrong}. This came: {_short(arguments)}"
    return ToolUseContent(name=name, id=id, input={}, _meta={INVALID_KEY: reason})


def fill_arguments(kept: object, written: str) -> str:
    """``written``, or what was ``kept`` of the model's own writing, if that says the same.

    Models put spaces where we put none, and what went out once should go out the same again.
    """
    if not isinstance(kept, str):
        return written
    try:
        return kept if write(read(kept)) == written else written
    except ValueError:  # what was no JSON is not sent again: some servers fall over it
        return written


def count(value: object) -> int:
    """``value`` as a number of tokens; 0 for what is none."""
    return value if type(value) is int and value > 0 else 0


def _short(value: object) -> str:
    text = value if isinstance(value, str) else write(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
