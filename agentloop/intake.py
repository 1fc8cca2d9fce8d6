"""What is taken from a reply: clean, with unique ids, and no more than the limits allow.

A reply is a peer's. Over MCP it is a client that writes it, so nothing about it is a given but its
types.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from mcp_types import SamplingMessageContentBlock, TextContent, ToolUseContent
from pydantic_core import to_json

from agentloop.meta import INVALID_KEY, PROVIDER_KEY, Reply
from agentloop.text import MAX_INTEGER, clean, clean_json, clean_meta, cut, too_deep
from agentloop.usage import Limits

MAX_NAME = 128
"""Characters of a tool's name (SEP-986); what is longer names no tool."""

MAX_ID = 1024
"""Characters of a tool use id; a longer one is replaced."""


@dataclass(slots=True)
class Taken:
    """A reply as a run may keep it."""

    blocks: list[SamplingMessageContentBlock]
    invalid: dict[str, str]
    """What is wrong with a call, by its id: it is not run, and the model is told this."""
    meta: dict[str, Any] | None = None
    """What the provider wants back with the message."""
    cut: bool = False
    """Whether text was left out."""


class TooMuch(ValueError):
    """A reply is more than the limits allow; the message says which limit."""


def take(reply: Reply, limits: Limits) -> Taken:
    """What is kept of ``reply``. Raises :class:`TooMuch` where nothing of it can be."""
    content = reply.content if isinstance(reply.content, list) else [reply.content]
    if len(content) > limits.blocks_per_reply:
        raise TooMuch(f"the reply has {len(content)} blocks, at most {limits.blocks_per_reply}")
    intake = _Intake(limits)
    for block in content:
        if block.type == "text":
            intake.text(block)
        elif block.type == "tool_use":
            intake.use(block)
        elif block.type != "tool_result":  # a model has no results to give
            intake.media(block)
    intake.taken.meta = _provider_meta(reply, limits)
    return intake.taken


def short(reply: Reply) -> Reply:
    """``reply`` with the names of its model and stop reason no longer than logs and spans take."""
    model, reason = reply.model, reply.stop_reason or ""
    if len(model) <= MAX_NAME and len(reason) <= MAX_NAME:
        return reply
    names = {"model": model[:MAX_NAME], "stop_reason": reason[:MAX_NAME] or None}
    return reply.model_copy(update=names)


class _Intake:
    """Takes block after block, for as long as there is room."""

    __slots__ = ("_ids", "_limits", "_next", "_room", "taken")

    def __init__(self, limits: Limits) -> None:
        self.taken = Taken([], {})
        self._limits = limits
        self._room = limits.bytes_per_reply
        self._ids: set[str] = set()
        self._next: dict[str, int] = {}
        """The number to try next for an id that came before: trying all again takes for ever."""

    def text(self, block: TextContent) -> None:
        block = self._clean_meta(clean_text(block))
        size = _size(block.text)
        if size > self._room:
            self.taken.cut = True
            if not self._room:
                return
            block = block.model_copy(update={"text": cut(block.text, self._room)})
        self._room -= min(size, self._room)
        self.taken.blocks.append(block)

    def media(self, block: Any) -> None:
        """An image or a piece of audio."""
        data, mime_type = clean(block.data), clean(block.mime_type)
        if data is not block.data or mime_type is not block.mime_type:
            block = block.model_copy(update={"data": data, "mime_type": mime_type})
        size = _size(block.data) + _size(block.mime_type)
        if size > self._room:
            self.text(TextContent(text=f"[{block.type} of {size} bytes left out]"))
            self.taken.cut = True
            return
        self._room -= size
        self.taken.blocks.append(self._clean_meta(block))

    def use(self, use: ToolUseContent) -> None:
        id = self._unique(clean(use.id))
        changes: dict[str, Any] = {} if id == use.id else {"id": id}
        if use.meta:
            if use.meta.get(INVALID_KEY) is not None:
                self.taken.invalid[id] = clean(str(use.meta[INVALID_KEY]))[:1024]
            use = self._clean_meta(use)
        if (name := clean(use.name[: MAX_NAME + 1])) != use.name:
            changes["name"] = name
        if not _is_plain(*use.input, *use.input.values()):
            changes["input"] = self._arguments(id, use.input)
        given = changes.get("input", use.input)
        if (size := len(to_json(given))) > self._room:
            changes["input"] = {}
            self.taken.invalid[id] = (
                f"Not run: the arguments take {size} bytes, and all of a reply may take "
                f"{self._limits.bytes_per_reply}. Send less."
            )
            size = 0
        self._room -= size
        self.taken.blocks.append(use.model_copy(update=changes) if changes else use)

    def _arguments(self, id: str, given: dict[str, Any]) -> dict[str, Any]:
        if too_deep(given, self._limits.depth):
            self.taken.invalid[id] = (
                "The arguments nest too deeply and were dropped: send them flatter."
            )
            return {}
        return clean_json(given)

    def _unique(self, id: str) -> str:
        """``id``, or one made of it where it is empty or was there before in this reply."""
        if not id or id in self._ids or len(id) > MAX_ID:
            base = id[:MAX_ID] or "call"
            number = self._next.get(base, 2)
            while (id := f"{base}-{number}") in self._ids:
                number += 1
            self._next[base] = number + 1
        self._ids.add(id)
        return id

    def _clean_meta(self, block: Any) -> Any:
        """``block`` with a ``_meta`` that can be written; without one that is too much."""
        if not block.meta:
            return block
        meta = None if too_deep(block.meta, self._limits.depth) else clean_meta(block.meta)
        if meta is not None:
            size = size_of(meta)
            if size > self._room:
                meta = None
            else:
                self._room -= size
        return block if meta == block.meta else block.model_copy(update={"meta": meta})


def clean_text(block: Any) -> Any:
    """``block`` with clean text, if it is a text block."""
    if block.type != "text" or (text := clean(block.text)) is block.text:
        return block
    return block.model_copy(update={"text": text})


def _provider_meta(reply: Reply, limits: Limits) -> dict[str, Any] | None:
    if not reply.meta or reply.meta.get(PROVIDER_KEY) is None:
        return None
    # It may hold the arguments of calls once more, some levels further down.
    state = {PROVIDER_KEY: reply.meta[PROVIDER_KEY]}
    if too_deep(state, limits.depth + 16):
        raise TooMuch("what the provider wants back nests too deeply")
    state = clean_json(state)
    if (size := size_of(state)) > limits.bytes_per_reply:
        raise TooMuch(
            f"what the provider wants back takes {size} bytes, at most {limits.bytes_per_reply}"
        )
    return state


def _is_plain(*values: Any) -> bool:
    """Whether there are only scalars among ``values``, and clean ones."""
    for value in values:
        if type(value) is str:
            if clean(value) is not value:
                return False
        elif type(value) is int or type(value) is float:
            if not -MAX_INTEGER < value < MAX_INTEGER:  # nor is infinity, nor what is no number
                return False
        elif value is not None and type(value) is not bool:
            return False
    return True


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))


def size_of(value: Any) -> int:
    """About how many bytes ``value`` takes as JSON; it must not be too deep."""
    total = 0
    left: list[Any] = [value]
    while left:
        item = left.pop()
        if type(item) is str:
            total += _size(item) + 3
        elif isinstance(item, dict):
            items = cast("dict[str, Any]", item)
            total += 2
            left.extend(items)
            left.extend(items.values())
        elif isinstance(item, list):
            total += 2
            left.extend(cast("list[Any]", item))
        else:
            total += 8 if type(item) is not int else item.bit_length() // 3 + 2
    return total
