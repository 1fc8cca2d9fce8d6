"""A provider that says what it was told to say."""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import anyio
from mcp_types import (
    CreateMessageRequestParams,
    CreateMessageResultWithTools,
    SamplingMessageContentBlock,
    TextContent,
    ToolUseContent,
)
from pydantic import ValidationError

from agentloop.errors import DefinitionError, ProviderError
from agentloop.meta import NOTICE_KEY, Reply, with_usage
from agentloop.text import cut
from agentloop.usage import Usage


class ScriptError(ProviderError):
    """The script and the run do not fit: a line too few, or lines left over."""

    code = "script"


Block = SamplingMessageContentBlock
Line = (
    str
    | Block
    | list[Block]
    | Reply
    | BaseException
    | float
    | Callable[[CreateMessageRequestParams], "Line | Awaitable[Line]"]
)
"""One line of a script:

- text, a block or a list of blocks: the reply's content; its stop reason follows from that
- a whole reply, as it is
- an exception: raised
- a number: seconds to wait before the next line is said
- a function of the request, sync or async: gives one of the above
"""


def use(name: str, /, *, id: str | None = None, **arguments: Any) -> ToolUseContent:
    """A tool use block; without an ``id`` it gets one from its place in the script."""
    return ToolUseContent(name=name, id=id or "", input=arguments)


def reply(
    *content: str | Block,
    stop_reason: str | None = None,
    usage: Usage | None = None,
    model: str = "scripted",
) -> CreateMessageResultWithTools:
    """A whole reply, for scripts that care about stop reasons or usage."""
    blocks = [TextContent(text=item) if isinstance(item, str) else item for item in content]
    calls = any(block.type == "tool_use" for block in blocks)
    return CreateMessageResultWithTools(
        role="assistant",
        content=blocks,
        model=model,
        stop_reason=stop_reason or ("toolUse" if calls else "endTurn"),
        _meta=with_usage(None, usage) if usage else None,
    )


def _reason(request: CreateMessageRequestParams) -> str:
    """Why there is one more ask, where the last message says: what failed, what was no answer."""
    told: list[str] = []
    for block in request.messages[-1].content_as_list if request.messages else []:
        if block.type == "tool_result" and block.is_error:
            told += [part.text for part in block.content if part.type == "text"]
        elif block.type == "text" and block.meta and NOTICE_KEY in block.meta:
            told.append(block.text)
    return cut(f", after: {'; '.join(told)}", 2048) if told else ""


class ScriptedProvider:
    """Says the lines of a script, one for each ask, and keeps the requests it got.

    Asks beyond the script raise :class:`ScriptError`; so does :meth:`finish`, or leaving the
    provider as a context manager, while lines are left.
    """

    name = "scripted"

    def __init__(self, *script: Line, repeat: bool = False) -> None:
        """``repeat`` begins the script again when it is through."""
        self._script = list(script)
        self._repeat = repeat
        self._next = 0
        self._replies = 0
        self.requests: list[CreateMessageRequestParams] = []

    @classmethod
    def from_spec(cls, rest: str) -> ScriptedProvider:
        """From ``scripted:FILE``: a JSON list whose items are texts or sampling results."""
        try:
            items: Any = json.loads(Path(rest).read_text(encoding="utf-8"))
            if not isinstance(items, list):
                raise TypeError(f"a {type(items).__name__}, not a list")
            lines: list[Line] = [
                item if isinstance(item, str) else CreateMessageResultWithTools.model_validate(item)
                for item in cast("list[Any]", items)
            ]
        except (OSError, ValueError, TypeError, ValidationError) as error:
            raise DefinitionError(
                f"scripted:{rest}: a JSON file with a list of texts or sampling results: {error}"
            ) from error
        return cls(*lines)

    @property
    def remaining(self) -> int:
        """How many lines were not said yet."""
        return max(len(self._script) - self._next, 0)

    async def sample(self, request: CreateMessageRequestParams) -> Reply:
        """Say the next line."""
        self.requests.append(request)
        try:
            line = self._take()
        except ScriptError as error:
            raise ScriptError(f"{error}{_reason(request)}") from None
        return await self._say(line, request)

    def finish(self) -> None:
        """Check that the whole script was said. Raises :class:`ScriptError`."""
        if self.remaining and not self._repeat:
            raise ScriptError(f"{self.remaining} of {len(self._script)} lines were never said")

    def __enter__(self) -> ScriptedProvider:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.finish()

    def _take(self) -> Line:
        if self._next >= len(self._script) and self._repeat:
            self._next = 0
        if self._next >= len(self._script):
            raise ScriptError(
                f"the script has {len(self._script)} lines, and one more reply is asked for"
            )
        line = self._script[self._next]
        self._next += 1
        return line

    async def _say(self, line: Line, request: CreateMessageRequestParams) -> Reply:
        if isinstance(line, int | float):
            await anyio.sleep(line)
            return await self._say(self._take(), request)
        if isinstance(line, BaseException):
            raise line
        if isinstance(line, str):
            return self._number(reply(line))
        if isinstance(line, list):
            return self._number(reply(*cast("list[Block]", line)))
        if isinstance(line, Reply):
            return self._number(line)
        if callable(line):
            said = line(request)
            return await self._say(await said if inspect.isawaitable(said) else said, request)
        return self._number(reply(line))

    def _number(self, said: Reply) -> Reply:
        """``said`` with an id for each tool use that has none, the same in every run."""
        self._replies += 1
        blocks = said.content if isinstance(said.content, list) else [said.content]
        if not any(block.type == "tool_use" and not block.id for block in blocks):
            return said
        numbered: list[Block] = [
            block.model_copy(update={"id": f"call-{self._replies}-{number}"})
            if block.type == "tool_use" and not block.id
            else block
            for number, block in enumerate(blocks, 1)
        ]
        return said.model_copy(update={"content": numbered})
