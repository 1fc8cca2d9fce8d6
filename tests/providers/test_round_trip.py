"""What an API said goes back to it as it was, whatever it said and whatever it was carried in."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from mcp_types import SamplingMessage

from agentloop.meta import PROVIDER_KEY
from agentloop.transcript import Transcript
from agentloop_providers import _anthropic_map, _chat_map, _responses_map
from agentloop_providers._names import Fitted

WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
NAMES = st.sampled_from(["a.b", "a_b", "plain", "x" * 70])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)
ARGUMENTS = st.dictionaries(WORDS, JSON, max_size=3)
WRITTEN = st.builds(
    lambda value, spaces, ascii: json.dumps(
        value, separators=(", ", ": ") if spaces else (",", ":"), ensure_ascii=ascii
    ),
    ARGUMENTS,
    st.booleans(),
    st.booleans(),
)
EXTRAS = st.dictionaries(st.sampled_from(["citations", "caller", "x-vendor"]), JSON, max_size=2)


def shuffled(value: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """The same object with its keys in some order."""
    return st.permutations(list(value.items())).map(dict)


def carried(kind: str, blocks: Any, form: Any) -> SamplingMessage:
    """A message with this content and form, after its way over a wire."""
    meta = {PROVIDER_KEY: {"kind": kind, "model": "m", "form": form}} if form else None
    message = SamplingMessage(role="assistant", content=blocks, _meta=meta)
    wire = json.loads(json.dumps(Transcript([message]).to_json()))
    return Transcript.from_json(wire)[0]


def fresh() -> Fitted:
    return Fitted(64, ["a.b", "a_b", "plain", "x" * 70])


ANTHROPIC_BLOCK = st.one_of(
    st.builds(lambda text, more: {"type": "text", "text": text, **more}, WORDS, EXTRAS),
    st.builds(
        lambda name, input, more: {
            "type": "tool_use",
            "id": "toolu",
            "name": fresh().fit(name),
            "input": input,
            **more,
        },
        NAMES,
        ARGUMENTS,
        EXTRAS,
    ),
    st.builds(
        lambda text, signed: {"type": "thinking", "thinking": text, "signature": signed},
        st.text(max_size=9),
        WORDS,
    ),
    st.builds(lambda data: {"type": "redacted_thinking", "data": data}, WORDS),
    st.builds(lambda value: {"type": "something_new", "value": value}, JSON),
).flatmap(shuffled)


@given(st.lists(ANTHROPIC_BLOCK, min_size=1, max_size=6))
def test_messages_api(content: list[dict[str, Any]]) -> None:
    for number, block in enumerate(content):
        if block["type"] == "tool_use":
            block["id"] = f"toolu_{number}"
    names = fresh()
    blocks = _anthropic_map.from_content(content, names)
    message = carried(_anthropic_map.KIND, blocks, _anthropic_map.to_form(content))
    sent = _anthropic_map.to_messages([message], "m", fresh())
    assert json.dumps(sent) == json.dumps([{"role": "assistant", "content": content}])


RESPONSES_ITEM = st.one_of(
    st.builds(
        lambda parts: {
            "id": "msg",
            "type": "message",
            "role": "assistant",
            "phase": "commentary",
            "content": parts,
        },
        st.lists(
            st.one_of(
                st.builds(
                    lambda text: {"type": "output_text", "annotations": [], "text": text}, WORDS
                ),
                st.builds(lambda text: {"type": "refusal", "refusal": text}, WORDS),
                st.builds(lambda value: {"type": "new_part", "value": value}, JSON),
            ),
            max_size=3,
        ),
    ),
    st.builds(
        lambda name, arguments: {
            "type": "function_call",
            "id": "fc",
            "call_id": "call",
            "name": fresh().fit(name),
            "arguments": arguments,
        },
        NAMES,
        WRITTEN,
    ),
    st.builds(
        lambda sealed: {
            "type": "reasoning",
            "id": "rs",
            "encrypted_content": sealed,
            "summary": [],
        },
        WORDS,
    ),
    st.builds(lambda value: {"type": "web_search_call", "id": "ws", "action": value}, JSON),
).flatmap(shuffled)


@given(st.lists(RESPONSES_ITEM, min_size=1, max_size=6))
def test_responses_api(output: list[dict[str, Any]]) -> None:
    for number, item in enumerate(output):
        if item["type"] == "function_call":
            item["call_id"] = f"call_{number}"
    blocks, form = _responses_map.from_output(output, fresh())
    message = carried(_responses_map.KIND, blocks, form)
    assert json.dumps(_responses_map.to_input([message], "m", fresh())) == json.dumps(output)


CHAT_CALL = st.builds(
    lambda name, arguments, more: {
        "id": "call",
        "type": "function",
        "function": {"name": fresh().fit(name), "arguments": arguments},
        **more,
    },
    NAMES,
    WRITTEN,
    EXTRAS,
)
CHAT_CONTENT = st.one_of(
    WORDS,
    st.lists(
        st.one_of(
            st.builds(lambda text: {"type": "text", "text": text}, WORDS),
            st.builds(lambda value: {"type": "thinking", "thinking": value}, JSON),
        ),
        min_size=1,
        max_size=3,
    ),
)


@given(CHAT_CONTENT, st.lists(CHAT_CALL, max_size=3), st.none() | WORDS, st.data())
def test_chat_completions(
    content: Any, calls: list[dict[str, Any]], reasoning: str | None, data: st.DataObject
) -> None:
    for number, call in enumerate(calls):
        call["id"] = f"call_{number}"
    said: dict[str, Any] = {"role": "assistant", "content": content}
    if calls:
        said["tool_calls"] = calls
    if reasoning:
        said["reasoning_content"] = reasoning
        said = data.draw(shuffled(said))
    blocks, form = _chat_map.from_message(said, fresh())
    message = carried(_chat_map.KIND, blocks, [form] if form else None)
    assert json.dumps(_chat_map.to_messages([message], "m", fresh())) == json.dumps([said])
