"""From ``--arg KEY=VALUE`` to the arguments of a function."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from agentloop.errors import DefinitionError

_BOTH = inspect.Parameter.POSITIONAL_OR_KEYWORD


def values_for(spec: str, fn: Any, arguments: Mapping[str, str]) -> dict[str, Any]:
    """``arguments`` as the function ``fn``, which ``spec`` names, wants them.

    Raises :class:`DefinitionError` where some are missing, unknown, or do not fit.
    """
    try:
        parameters = inspect.signature(fn, eval_str=True).parameters
    except (NameError, TypeError, ValueError) as error:
        raise DefinitionError(f"{spec}: its parameters cannot be read: {error}") from error
    takes = {name: p for name, p in parameters.items() if p.kind in (p.KEYWORD_ONLY, _BOTH)}
    story = ", ".join(_describe(p) for p in takes.values()) or "no arguments"
    if unknown := [name for name in arguments if name not in takes]:
        raise DefinitionError(f"{spec} has no parameter {unknown[0]!r}; it takes: {story}")
    required = [name for name, p in takes.items() if p.default is p.empty]
    if missing := [name for name in required if name not in arguments]:
        if any(_is_context(takes[name]) for name in missing):
            raise DefinitionError(
                f"{spec} takes the context of a call, so it is a tool for a server, no agent and "
                "no function that gives one"
            )
        raise DefinitionError(f"{spec} needs --arg {missing[0]}=...; it takes: {story}")
    return {name: _value(takes[name], text, story) for name, text in arguments.items()}


def _is_context(parameter: inspect.Parameter) -> bool:
    from agentloop.mcp.request import is_context

    return is_context(parameter.annotation)


def _value(parameter: inspect.Parameter, text: str, story: str) -> Any:
    """``text`` as the annotation wants it: as it stands, else as JSON."""
    if parameter.annotation is parameter.empty:
        return text
    label = f"--arg {parameter.name}={text}"
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(parameter.annotation)
    except PydanticUserError as error:
        raise DefinitionError(f"{label}: {_kind(parameter)} has no form in text") from error
    try:
        return adapter.validate_python(text)
    except ValidationError as error:
        with suppress(ValueError, RecursionError):
            return adapter.validate_python(json.loads(text))
        problem = error.errors(include_url=False)[0]["msg"]
        raise DefinitionError(f"{label}: {problem}; it takes: {story}") from error


def _describe(parameter: inspect.Parameter) -> str:
    default = parameter.default
    given = f"default {'empty' if default == '' else default}"
    needed = "required" if default is parameter.empty else given
    return f"{parameter.name} ({_kind(parameter)}, {needed})"


def _kind(parameter: inspect.Parameter) -> str:
    if parameter.annotation is parameter.empty:
        return "text"
    kind = parameter.annotation
    return kind.__name__ if isinstance(kind, type) else inspect.formatannotation(kind)
