"""From a function's signature and docstring to a checked set of arguments and their schema."""

from __future__ import annotations

import functools
import inspect
import re
import typing
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.fields import FieldInfo

from agentloop.errors import DefinitionError
from agentloop.output import QuietSchema, explain


class ArgumentsInvalid(ValueError):
    """Arguments do not fit; the message says which, what was expected and what came."""


class Signature:
    """The arguments that a function takes, as the model sees them and as they are checked."""

    def __init__(self, fn: Callable[..., Any], *, label: str) -> None:
        """Raises :class:`DefinitionError` where ``fn`` cannot be a tool. ``label`` names it."""
        self.summary, described = read_docstring(_docstring(fn))
        parameters = _parameters(fn, label)
        self._names = {f"p{number}": p.name for number, p in enumerate(parameters)}
        try:
            fields: dict[str, Any] = {
                field: _field(parameter, described.get(parameter.name))
                for field, parameter in zip(self._names, parameters, strict=True)
            }
            config = ConfigDict(extra="forbid", arbitrary_types_allowed=False)
            module = getattr(_unbound(fn), "__module__", None) or __name__
            self._model = create_model(label, __config__=config, __module__=module, **fields)
            schema = self._model.model_json_schema(schema_generator=QuietSchema)
        except Exception as error:  # there is no end to what an annotation may be
            why = str(getattr(error, "message", error)).partition(". ")[0]
            raise DefinitionError(f"tool {label!r}: no JSON schema: {why}") from error
        self.schema: dict[str, Any] = _untitled(schema)

    def check(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """``arguments`` as the function takes them. Raises :class:`ArgumentsInvalid`."""
        try:
            checked: BaseModel = self._model.model_validate(arguments)
        except ValidationError as error:
            takes = ", ".join(self._names.values()) or "no arguments"
            raise ArgumentsInvalid(
                f"{explain(error, arguments)}. The tool takes: {takes}."
            ) from error
        values = checked.__dict__
        return {name: values[field] for field, name in self._names.items()}


def _unbound(fn: Callable[..., Any]) -> Callable[..., Any]:
    while isinstance(fn, functools.partial):  # whose name and docstring are those of ``partial``
        fn = fn.func
    return fn


def _docstring(fn: Callable[..., Any]) -> str:
    fn = _unbound(fn)
    if not inspect.isroutine(fn) and not inspect.isclass(fn):
        return inspect.getdoc(type(fn).__call__) or inspect.getdoc(fn) or ""
    return inspect.getdoc(fn) or ""


def _parameters(fn: Callable[..., Any], label: str) -> list[inspect.Parameter]:
    try:
        signature = inspect.signature(fn, eval_str=True)
    except Exception as error:  # so may an annotation in a string
        raise DefinitionError(f"tool {label!r}: its signature cannot be read: {error}") from error
    bound = _bound(fn)
    parameters = [p for p in signature.parameters.values() if p.name not in bound]
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise DefinitionError(f"tool {label!r}: *{parameter.name} has no schema; name it")
        if parameter.kind is parameter.POSITIONAL_ONLY or parameter.name.startswith("_"):
            raise DefinitionError(
                f"tool {label!r}: parameter {parameter.name!r} cannot be given by name"
            )
    return parameters


def _bound(fn: Callable[..., Any]) -> set[str]:
    """The keyword arguments that are given already: they are the author's, not the model's."""
    bound: set[str] = set()
    while isinstance(fn, functools.partial):
        bound.update(fn.keywords)
        fn = fn.func
    return bound


def _field(parameter: inspect.Parameter, description: str | None) -> Any:
    """A model's field. The parameter's name is its alias only, so that a parameter may be called
    like something that every model has, ``json`` or ``copy``."""
    name, default = parameter.name, parameter.default
    empty = parameter.annotation is inspect.Parameter.empty
    annotation: Any = Any if empty else parameter.annotation
    if isinstance(default, FieldInfo):
        annotation = Annotated[annotation, default]
    if description and not _is_described(annotation):
        annotation = Annotated[annotation, Field(description=description)]
    annotation = Annotated[annotation, Field(alias=name)]
    given = default is not inspect.Parameter.empty and not isinstance(default, FieldInfo)
    return (annotation, default) if given else annotation


def _is_described(annotation: Any) -> bool:
    return typing.get_origin(annotation) is Annotated and any(
        isinstance(item, FieldInfo) and item.description for item in typing.get_args(annotation)[1:]
    )


def _untitled(schema: Any) -> Any:
    """``schema`` without pydantic's titles, which repeat the names and cost tokens."""
    if isinstance(schema, list):
        return [_untitled(item) for item in typing.cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    items = typing.cast("dict[str, Any]", schema)
    return {
        key: (
            {name: _untitled(value) for name, value in items[key].items()}
            if key in ("properties", "$defs")
            else items[key]
            if key in ("default", "examples", "enum", "const")
            else _untitled(items[key])
        )
        for key in items
        if not (key == "title" and isinstance(items[key], str))
    }


_SECTION = re.compile(
    r"^(args|arguments|parameters|params|returns|return|raises|yields|yield|"
    r"examples?|notes?|warns|see also|references)\s*:?\s*$",
    re.IGNORECASE,
)
_ARGUMENTS = re.compile(r"^(args|arguments|parameters|params)\s*:?\s*$", re.IGNORECASE)
_GOOGLE = re.compile(r"^\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s+(.*)$")
_NUMPY = re.compile(r"^(\w+)(?:\s*:\s*\S.*)?$")
_SPHINX = re.compile(r"^:param\s+(?:[^:]*\s)?(\w+)\s*:\s*(.*)$")
_FIELD = re.compile(r"^:\w+.*:")


def read_docstring(doc: str) -> tuple[str, dict[str, str]]:
    """What a docstring says of the whole and of each parameter (Google, NumPy or Sphinx style)."""
    summary: list[str] = []
    described: dict[str, list[str]] = {}
    section = "summary"
    current: list[str] | None = None
    for line in doc.splitlines():
        text, indented = line.strip(), line.startswith((" ", "\t"))
        if set(text) == {"-"} and len(text) > 2:
            continue
        if sphinx := _SPHINX.match(text):
            section, current = "sphinx", [sphinx[2]]
            described[sphinx[1]] = current
        elif _FIELD.match(text) and section in ("summary", "sphinx"):
            section, current = "sphinx", None
        elif _SECTION.match(text) and not indented:
            section, current = ("arguments" if _ARGUMENTS.match(text) else "other"), None
        elif section == "arguments" and (found := _entry(text, indented, current)):
            current = [found[1]] if found[1] else []
            described[found[0]] = current
        elif section == "summary":
            summary.append(text)
        elif current is not None and text:
            current.append(text)
    paragraphs = "\n".join(summary).strip()
    return paragraphs, {name: " ".join(lines) for name, lines in described.items() if lines}


def _entry(text: str, indented: bool, current: list[str] | None) -> tuple[str, str] | None:
    """The parameter that a line of an arguments section begins, if it begins one."""
    if indented:
        found = _GOOGLE.match(text)
        return (found[1], found[2]) if found else None
    found = _NUMPY.match(text)
    return (found[1], "") if found and text else None
