"""Tools: what a model may call."""

from __future__ import annotations

import dis
import functools
import inspect
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from types import FunctionType, MethodType
from typing import Any, Literal, NamedTuple, overload

import mcp_types

from agentloop.errors import DefinitionError
from agentloop.output import ANSWER_TOOL
from agentloop.results import DEFAULT_MAX_BYTES, DEFAULT_MAX_MEDIA_BYTES
from agentloop.schema import Signature

DEFAULT_TIMEOUT = 60.0
DEFAULT_GRACE = 5.0

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")

_DIALECTS = (
    "json-schema.org/draft/2020-12/schema",
    "json-schema.org/draft/2019-09/schema",
    "json-schema.org/draft-07/schema",
)
"""Of JSON Schema: the protocol's own, and what servers of other makes declare, which says the same
with the keywords that models read."""

_scheme_and_hash = re.compile(r"^https?://|#$")


@dataclass(frozen=True, kw_only=True, eq=False)
class Tool:
    """Something that a model may call: a function, and how it is to be called.

    Make one with :func:`tool`, with ``Agent(tools=[fn])``, with ``agent.as_tool()``, or from an
    MCP server with ``agentloop.mcp.tools_from``.
    """

    name: str
    description: str
    input_schema: dict[str, Any]
    fn: Callable[..., Any]
    check: Callable[[dict[str, Any]], dict[str, Any]] = field(repr=False)
    """Turns the model's arguments into keyword arguments, or raises ``ArgumentsInvalid``."""
    exclusive: bool = False
    """Runs alone, after the other calls of its turn; nobody waits for it."""
    poll: bool = False
    """May be called again and again with the same result without counting as stuck."""
    timeout: float | None = DEFAULT_TIMEOUT
    """Seconds that one call may take."""
    grace: float = DEFAULT_GRACE
    """Seconds that an async call gets to stop when it is told to; then it is left behind."""
    max_bytes: int = DEFAULT_MAX_BYTES
    """Text of one result; the head and the tail of a longer one are kept."""
    max_media_bytes: int = DEFAULT_MAX_MEDIA_BYTES
    """Media of one result, all together, as base64; blocks beyond it are left out, and the model is
    told so."""
    reveal_errors: bool = False
    """Show the model the message of any exception, not only of ``ToolError``."""
    idempotent: bool = False
    """Running a call again, with the same :func:`agentloop.idempotency_key`, does no harm."""
    once: bool | Literal["best effort"] = False
    """A call is never run again, also when nobody knows whether it ran: then the model is told so.
    Over rounds this takes a store; ``"best effort"`` does without one, and then a client that sends
    a round again runs the call again."""
    reconcile: Callable[..., Any] | None = None
    """Finds out what came of a call whose outcome is unknown: takes the call's idempotency key and
    its arguments, gives the result, or raises :class:`~agentloop.errors.NotDone` for the call to be
    run. Implies ``once``."""
    approve: bool | Callable[..., Any] = False
    """Ask the person behind the call before it runs: always, or where a function of the arguments
    gives true, or a question to put to them."""
    title: str | None = None
    agent: Any = None
    """The agent that the tool asks, where it is one: ``agent.as_tool()``."""
    is_async: bool = True

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise DefinitionError(
                f"tool name {self.name!r}: 1 to 128 of the characters A-Z a-z 0-9 _ . - (SEP-986)"
            )
        if self.timeout is not None and (
            type(self.timeout) not in (int, float) or not self.timeout > 0
        ):
            raise DefinitionError(f"tool {self.name!r}: timeout is a number above 0, or None")
        if type(self.grace) not in (int, float) or not 0 <= self.grace < math.inf:
            raise DefinitionError(f"tool {self.name!r}: grace is a number of at least 0")
        if self.max_bytes < 256:
            raise DefinitionError(f"tool {self.name!r}: max_bytes is at least 256")
        if self.max_media_bytes < 0:
            raise DefinitionError(f"tool {self.name!r}: max_media_bytes is at least 0")
        if self.idempotent and self.guarded:
            raise DefinitionError(f"tool {self.name!r}: either idempotent or once, not both")
        if self.input_schema.get("type") != "object":
            raise DefinitionError(f"tool {self.name!r}: its input schema is not of type object")
        dialect = self.input_schema.get("$schema", _DIALECTS[0])
        if not isinstance(dialect, str) or _scheme_and_hash.sub("", dialect) not in _DIALECTS:
            raise DefinitionError(
                f"tool {self.name!r}: its input schema is of the dialect {str(dialect)[:128]!r}; "
                f"known are {', '.join(_DIALECTS)}"
            )

    @cached_property
    def guarded(self) -> bool:
        """Whether a call must not run twice."""
        return bool(self.once) or self.reconcile is not None

    @cached_property
    def plain(self) -> bool:
        """Whether nothing stands before a call: nobody to ask, and no claim to make."""
        return not self.approve and not self.guarded

    @cached_property
    def waits(self) -> bool:
        """Whether a call may have to wait for something, if only for a thread."""
        return not self.is_async or _awaits(self.fn)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself, as if it were no tool."""
        return self.fn(*args, **kwargs)

    def offer(self) -> mcp_types.Tool:
        """The tool as a model is offered it."""
        return mcp_types.Tool(
            name=self.name,
            title=self.title,
            description=self.description or None,
            input_schema=self.input_schema,
        )


class Effect(NamedTuple):
    """One call of a tool."""

    tool: Tool
    key: str
    """The same each time that this call is made, and no other call's."""
    id: str
    """The id of the tool use, for the result."""
    arguments: dict[str, Any]


@overload
def tool(fn: Callable[..., Any], /) -> Tool: ...
@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    title: str | None = None,
    exclusive: bool = False,
    poll: bool = False,
    timeout: float | None = DEFAULT_TIMEOUT,
    grace: float = DEFAULT_GRACE,
    max_bytes: int = DEFAULT_MAX_BYTES,
    max_media_bytes: int = DEFAULT_MAX_MEDIA_BYTES,
    reveal_errors: bool = False,
    idempotent: bool = False,
    once: bool | Literal["best effort"] = False,
    reconcile: Callable[..., Any] | None = None,
    approve: bool | Callable[..., Any] = False,
) -> Callable[[Callable[..., Any]], Tool]: ...
def tool(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    **options: Any,
) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Make a tool of a function, sync or async; with or without options.

    The schema comes from the signature, descriptions from the docstring. Raises
    :class:`DefinitionError` where the function cannot be a tool.
    """

    def make(fn: Callable[..., Any]) -> Tool:
        label = _name_of(fn) if name is None else name
        if label == "<lambda>":
            raise DefinitionError("a lambda has no name for the model: use tool(name=...)")
        if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
            raise DefinitionError(f"tool {label!r} yields: let it return a list")
        signature = Signature(fn, label=label)
        return Tool(
            name=label,
            description=signature.summary if description is None else description,
            input_schema=signature.schema,
            fn=fn,
            check=signature.check,
            is_async=is_async(fn),
            **options,
        )

    return make if fn is None else make(fn)


def is_async(fn: Callable[..., Any]) -> bool:
    """Whether calling ``fn`` gives something to await."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(type(fn).__call__)


def _awaits(fn: Callable[..., Any]) -> bool:
    """Whether ``fn`` awaits anything, as far as its code tells; without code, it may."""
    while isinstance(fn, functools.partial | MethodType):
        fn = fn.func if isinstance(fn, functools.partial) else fn.__func__
    if not isinstance(fn, FunctionType) or not fn.__code__.co_flags & inspect.CO_COROUTINE:
        return True
    return any(step.opname == "YIELD_VALUE" for step in dis.get_instructions(fn.__code__))


def _name_of(fn: Callable[..., Any]) -> str:
    while isinstance(fn, functools.partial):
        fn = fn.func
    return getattr(fn, "__name__", type(fn).__name__)


class Toolbox(Mapping[str, Tool]):
    """The tools of an agent, by name, in their order."""

    def __init__(self, tools: Iterable[Tool | Callable[..., Any]]) -> None:
        """Raises :class:`DefinitionError` for two tools of one name, or a reserved one."""
        self._tools: dict[str, Tool] = {}
        if callable(tools) or isinstance(tools, str | Tool) or not hasattr(tools, "__iter__"):
            raise DefinitionError("tools= takes a list of tools: write tools=[...]")
        for item in tools:
            if not (isinstance(item, Tool) or callable(item)):
                raise DefinitionError(f"tools= holds {item!r}, which is no tool and no function")
            made = item if isinstance(item, Tool) else tool(item)
            if made.name in self._tools:
                raise DefinitionError(f"two tools are called {made.name!r}")
            if made.name == ANSWER_TOOL:
                raise DefinitionError(f"{ANSWER_TOOL!r} is the tool that carries typed answers")
            self._tools[made.name] = made

    def nearest(self, name: str) -> list[str]:
        """Up to five names that ``name`` may have meant, the likeliest first."""
        return get_close_matches(name, self._tools, n=5, cutoff=0.3) or list(self._tools)[:5]

    def __getitem__(self, name: str) -> Tool:
        return self._tools[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tools)

    def __len__(self) -> int:
        return len(self._tools)
