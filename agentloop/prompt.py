"""What a run is asked, and the messages that come before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from mcp_types import (
    AudioContent,
    ImageContent,
    SamplingMessage,
    SamplingMessageContentBlock,
    TextContent,
)

from agentloop.errors import DefinitionError

Prompt = str | Sequence[TextContent | ImageContent | AudioContent]
"""What a run is asked: words, or content blocks."""


def blocks_of(prompt: Any) -> list[SamplingMessageContentBlock]:
    """The content blocks of a prompt. Raises :class:`DefinitionError` for what is none."""
    if isinstance(prompt, str):
        return [TextContent(text=prompt)]
    wanted = "a text, or a list of TextContent, ImageContent and AudioContent"
    if not isinstance(prompt, list | tuple):
        raise DefinitionError(f"the prompt is {wanted}, not {_kind(prompt)}")
    blocks = cast("Sequence[Any]", prompt)
    for number, block in enumerate(blocks):
        if not isinstance(block, TextContent | ImageContent | AudioContent):
            raise DefinitionError(f"prompt[{number}] is {_kind(block)}; the prompt is {wanted}")
    if not blocks:
        raise DefinitionError("the prompt is empty")
    return list(blocks)


def check_history(history: Any) -> None:
    """Raises :class:`DefinitionError` for what is no sequence of messages."""
    wanted = "a list of SamplingMessage, such as result.messages"
    if not isinstance(history, Sequence) or isinstance(history, str | bytes):
        raise DefinitionError(f"history= takes {wanted}, not {_kind(history)}")
    for number, message in enumerate(cast("Sequence[Any]", history)):
        if not isinstance(message, SamplingMessage):
            raise DefinitionError(f"history[{number}] is {_kind(message)}; history= takes {wanted}")


def _kind(value: Any) -> str:
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"
