"""Replies, states and arguments: made from the protocol's own types, and then broken."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from hypothesis import strategies as st
from mcp_types import (
    AudioContent,
    CreateMessageResultWithTools,
    ImageContent,
    TextContent,
    ToolResultContent,
    ToolUseContent,
)

from agentloop.meta import INVALID_KEY, PROVIDER_KEY, USAGE_KEY

JSON = dict[str, Any]

words = st.text(max_size=12) | st.sampled_from(
    ["", " ", "\0", "\u2028", "\U0001f600", "final_answer"]
)
names = st.sampled_from(["add", "add", "add", "final_answer", "nothing", ""]) | words
ids = st.sampled_from(["c1", "c2", "c1", "", "call-2"]) | words
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | words
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3)
)
arguments = (
    st.fixed_dictionaries({"a": st.integers(0, 9)}, optional={"b": values})
    | st.dictionaries(words, values, max_size=3)
    | st.just({"result": "yes"})
)
metas = st.none() | st.dictionaries(
    st.sampled_from([PROVIDER_KEY, USAGE_KEY, INVALID_KEY, "example.com/x"]), values, max_size=2
)

blocks = st.one_of(
    st.builds(lambda text, meta: TextContent(text=text, _meta=meta), words, metas),
    st.builds(
        lambda name, id, given, meta: ToolUseContent(name=name, id=id, input=given, _meta=meta),
        names,
        ids,
        arguments,
        metas,
    ),
    st.builds(
        lambda id, text: ToolResultContent(tool_use_id=id, content=[TextContent(text=text)]),
        ids,
        words,
    ),
    st.builds(lambda data: ImageContent(data=data, mime_type="image/png"), words),
    st.builds(lambda data: AudioContent(data=data, mime_type="audio/wav"), words),
)

replies = st.builds(
    lambda role, content, model, stop, meta: CreateMessageResultWithTools(
        role=role, content=content, model=model, stop_reason=stop, _meta=meta
    ).model_dump(mode="json", by_alias=True, exclude_none=True),
    st.sampled_from(["assistant", "assistant", "assistant", "user"]),
    st.lists(blocks, max_size=4) | blocks,
    words,
    st.none() | st.sampled_from(["endTurn", "toolUse", "maxTokens", "refusal"]) | words,
    metas,
)
"""Sampling results as clients write them: whole, if odd."""

seeds = st.integers(0, 2**32)


def junk(random: Random) -> Any:
    """Something that nobody expects."""
    kinds: list[Any] = [
        None, True, 0, -1, 2**70, 1.5, float("nan"), float("inf"), "", "\ud800", "\0", "x" * 5000,
        [], {}, [[]], {"": None}, ["a", 1], {"type": "text", "text": "t"}, {"type": "tool_use"},
        {"type": "tool_use", "id": "c1", "name": "add", "input": {}}, "assistant", "user",
    ]  # fmt: skip
    if random.random() < 0.1:
        return nested(random.choice([60, 70, 190, 250]))
    return random.choice(kinds)


def nested(levels: int) -> Any:
    value: Any = 1
    for level in range(levels):
        value = [value] if level % 2 else {"x": value}
    return value


def broken(value: Any, random: Random, times: int = 3) -> Any:
    """``value``, broken in one to ``times`` places: a part is lost, replaced, doubled or moved."""
    whole = [_copy(value)]
    for _ in range(random.randint(1, times)):
        parts = list(_parts(whole))
        container, key = random.choice(parts)
        kind = random.random()
        if kind < 0.35:
            container[key] = junk(random)
        elif kind < 0.6 and container is not whole:
            del container[key]
        elif kind < 0.75:
            other, other_key = random.choice(parts)
            container[key] = _copy(other[other_key])
        elif isinstance(container, list):
            container.extend([_copy(container[key])] * random.choice([1, 1, 2, 40]))
        elif isinstance(key, str):
            container[random.choice(["", "type", key + "\ud800", key.upper()])] = container[key]
    return whole[0] if whole else None


def _copy(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _parts(value: Any, depth: int = 0) -> Any:
    """Every place in ``value``: what holds it, and its key."""
    if depth > 12:
        return
    keys = list(value) if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _parts(value[key], depth + 1)


def garbled(text: str, random: Random) -> str:
    """``text`` with some characters changed, lost, doubled or moved."""
    for _ in range(random.randint(1, 4)):
        at, to = sorted((random.randint(0, len(text)), random.randint(0, len(text))))
        kind = random.randint(0, 4)
        if kind == 0:
            text = text[:at] + chr(random.choice([0, 33, 65, 0xE9, 0xD800, 0x1F600])) + text[at:]
        elif kind == 1:
            text = text[:at] + text[to:]
        elif kind == 2:
            text = text[:to] + text[at:]
        elif kind == 3:
            text = text[to:] + text[at:to] + text[:at]
        else:
            text = text[:at]
    return text
