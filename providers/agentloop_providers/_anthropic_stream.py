"""A message of the Messages API out of its server-sent events."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from agentloop_providers import _json

Event = dict[str, Any]

_DELTAS = {"text_delta": "text", "thinking_delta": "thinking"}


class StreamError(Exception):
    """The stream holds an error; ``event`` is the body of it."""

    def __init__(self, event: Event) -> None:
        super().__init__("the stream holds an error")
        self.event = event


def message_of(lines: Iterable[str]) -> Event | None:
    """The message that the events with these data make; None where they end before it does.

    Raises :class:`StreamError` for an error among them, and ``ValueError`` where they make none.
    """
    message: Event | None = None
    written: dict[int, str] = {}
    for line in lines:
        event = _object(_json.read(line))
        kind = event.get("type")
        if kind == "error":
            raise StreamError(event)
        if kind == "message_start":
            message = dict(_object(event.get("message")))
            message["content"] = list(cast("list[Any]", message.get("content") or []))
        elif message is None:
            if kind != "ping":
                raise ValueError(f"{kind} before the message")
        elif kind == "message_stop":
            return message
        elif kind == "message_delta":
            message |= _object(event.get("delta"))
            message["usage"] = _known(message.get("usage")) | _known(event.get("usage"))
        elif kind in ("content_block_start", "content_block_delta", "content_block_stop"):
            _add(message["content"], event, written)
    return None


def _add(content: list[Event], event: Event, written: dict[int, str]) -> None:
    """Add an event of a block to it; ``written`` holds the arguments of tools so far."""
    index = event.get("index")
    if type(index) is not int or not 0 <= index <= len(content):
        raise ValueError("an event of a block that is not there")
    if event["type"] == "content_block_start":
        content.append(dict(_object(event.get("content_block"))))
        return
    if index == len(content):
        raise ValueError("an event of a block that has not begun")
    block = content[index]
    if event["type"] == "content_block_stop":
        if index in written:
            block["input"] = _arguments(written[index])
        return
    delta = _object(event.get("delta"))
    kind = str(delta.get("type"))
    if field := _DELTAS.get(kind):
        block[field] = _text(block.get(field)) + _text(delta.get(field))
    elif kind == "signature_delta":
        block["signature"] = _text(delta.get("signature"))
    elif kind == "input_json_delta":
        written[index] = written.get(index, "") + _text(delta.get("partial_json"))
    elif kind == "citations_delta":
        block["citations"] = [*(block.get("citations") or []), delta.get("citation")]


def _arguments(text: str) -> Any:
    """What a model wrote as arguments; the text itself where it is no JSON."""
    try:
        return _json.read(text) if text.strip() else {}
    except ValueError:
        return text


def _object(value: object) -> Event:
    if not isinstance(value, dict):
        raise ValueError("a part of an event is no JSON object")
    return cast("Event", value)


def _text(value: object) -> str:
    if not isinstance(value, str | None):
        raise ValueError("a part of a block is no text")
    return value or ""


def _known(usage: object) -> Event:
    """The figures that are given: later ones are totals, and leave some out."""
    given = cast("Event", usage) if isinstance(usage, dict) else {}
    return {name: value for name, value in given.items() if value is not None}
