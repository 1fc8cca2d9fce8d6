"""What was said: content blocks as HTML."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable
from typing import Any

from agentloop.page.html import Html, tag
from agentloop.page.words import as_json, short
from agentloop.story import Block, Story

_PICTURES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
"""Kinds of images that hold no programs."""
_ROOM = 12_000_000
"""Characters of content that one page takes."""
_CAPS = (200_000, 50_000, 10_000, 2_000, 500)
_NEAT = 100_000
"""Characters up to which JSON in a result is laid out."""


class Content:
    """Writes content blocks, long ones shortened so that the whole page stays usable."""

    def __init__(self, stories: Iterable[Story]) -> None:
        lengths = [len(text) for story in stories for text in _texts(story)]
        self._cap = next(
            (cap for cap in _CAPS if sum(min(n, cap) for n in lengths) <= _ROOM), _CAPS[-1]
        )

    def blocks(self, blocks: Iterable[Block]) -> list[Html]:
        """Each block as an element."""
        return [self._block(block) for block in blocks]

    def arguments(self, value: Any) -> Html:
        """The arguments of a call."""
        return tag("pre", self._cut(as_json(value)), class_="code")

    def text(self, text: str) -> list[Html | str]:
        """``text``, or its head and its tail with a word in between on what is left out."""
        return self._cut(text)

    def _block(self, block: Block) -> Html:
        kind = block.get("type")
        if kind == "text":
            return self._text(str(block.get("text", "")))
        if kind == "image":
            return _picture(block)
        if kind == "resource" and isinstance(resource := block.get("resource"), dict):
            uri, text = resource.get("uri"), resource.get("text")  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
            note = tag("p", f"resource {uri}", class_="note")
            return tag("div", note, self._text(text) if isinstance(text, str) else None)
        if kind == "resource_link":
            return tag("p", f"resource {block.get('name')} at {block.get('uri')}", class_="note")
        size = short(len(str(block.get("data", ""))) * 3 // 4)
        what = f"{kind}, {block.get('mimeType', 'of an unknown kind')}, {size}B"
        return tag("p", what, class_="note")

    def _text(self, text: str) -> Html:
        neat = _neat(text)
        return tag(
            "pre", self._cut(text if neat is None else neat), class_="code" if neat else None
        )

    def _cut(self, text: str) -> list[Html | str]:
        if len(text) <= self._cap:
            return [text]
        head, tail = self._cap * 3 // 4, self._cap // 4
        left = f"{len(text) - self._cap:,} of {len(text):,} characters are left out of this page"
        return [text[:head], tag("span", left, class_="cut"), text[-tail:]]


def _texts(story: Story) -> Iterable[str]:
    for each in story.inside():
        for step in each.steps:
            yield from (str(block.get("text", "")) for block in step.said)
            for call in step.calls:
                yield from (str(block.get("text", "")) for block in call.result or ())
                yield str(call.input)


def _neat(text: str) -> str | None:
    """``text`` laid out, if it is a JSON object or list."""
    if text[:1] not in "{[" or len(text) > _NEAT:
        return None
    try:
        return as_json(json.loads(text))
    except (ValueError, RecursionError):
        return None


def _picture(block: Block) -> Html:
    data, kind = str(block.get("data", "")), str(block.get("mimeType", ""))
    try:
        base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return tag("p", "an image that cannot be read", class_="note")
    if kind not in _PICTURES or len(data) > 2_000_000:
        return tag("p", f"image, {kind}, {short(len(data) * 3 // 4)}B", class_="note")
    return tag("img", src=f"data:{kind};base64,{data}", alt="", loading="lazy")
