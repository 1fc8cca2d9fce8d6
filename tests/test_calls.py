"""What is a call in a model's words is found, and what is none never becomes one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp_types import CreateMessageRequestParams, SamplingMessage, TextContent, ToolUseContent

from agentloop.calls import Call, Unread, find_calls
from agentloop.emulation import to_plain
from agentloop.lenient import Unreadable, read

CALLS = [
    ("marked", '```tool_call\n{"name": "add", "arguments": {"a": 1}}\n```'),
    ("with words around", 'Sure!\n```tool_call\n{"name":"add","arguments":{"a":1}}\n```\nThen…'),
    ("marked json", 'Sure!\n```json\n{"name": "add", "arguments": {"a": 1}}\n```\nWait.'),
    ("unmarked fence", '```\n{"name": "add", "arguments": {"a": 1}}\n```'),
    ("tilde fence", '~~~tool_call\n{"name": "add", "arguments": {"a": 1}}\n~~~'),
    ("windows lines", '```tool_call\r\n{"name": "add",\r\n"arguments": {"a": 1}}\r\n```\r\nx'),
    ("never closed", '```tool_call\n{"name": "add", "arguments": {"a": 1}}'),
    ("tag", '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'),
    ("tag on a line", 'Ok.\n<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call> Done.'),
    ("bare", '{"name": "add", "arguments": {"a": 1}}'),
    ("bare after words", 'I add.\n{"name": "add", "arguments": {"a": 1}}\n'),
    ("bare over lines", '{\n  "name": "add",\n  "arguments": {\n    "a": 1\n  }\n}'),
    ("trailing commas", '```tool_call\n{"name": "add", "arguments": {"a": 1,},}\n```'),
    ("single quotes", "```tool_call\n{'name': 'add', 'arguments': {'a': 1}}\n```"),
    ("one brace too many", '```tool_call\n{"name": "add", "arguments": {"a": 1}}}\n```'),
    ("arguments as text", '```tool_call\n{"name": "add", "arguments": "{\\"a\\": 1}"}\n```'),
    ("other names", '```tool_call\n{"tool": "add", "parameters": {"a": 1}}\n```'),
    (
        "the shape of an API",
        '```json\n{"tool_calls": [{"id": "x", "type": "function", "function": '
        '{"name": "add", "arguments": "{\\"a\\": 1}"}}]}\n```',
    ),
    ("a list", '```tool_call\n[{"name": "add", "arguments": {"a": 1}}]\n```'),
    (
        "results that the model made up",
        '```tool_call\n{"name": "add", "arguments": {"a": 1}}\n```\n```tool_result add\n2\n```\n'
        '```tool_call\n{"name": "add", "arguments": {"a": 2}}\n```',
    ),
]


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in CALLS])
def test_this_is_one_call(text: str):
    assert find_calls(text, {"add"}).calls == [Call("add", {"a": 1})]


NO_CALLS = [
    ("words", "I would call add with a=1, but I need no tool for that."),
    ("code in a line", 'Use `{"name": "add", "arguments": {"a": 1}}` to add.'),
    ("json in a sentence", 'A call is {"name": "add", "arguments": {}} in JSON.'),
    ("json before words", '{"name": "add", "arguments": {"a": 1}}\nis how a call looks.'),
    ("data", '```json\n{"name": "Ada", "arguments": {"a": 1}}\n```'),
    ("data with the name of a tool", '```json\n{"name": "add", "age": 5}\n```'),
    ("more than a call", '```json\n{"name": "add", "arguments": {}, "comment": "x"}\n```'),
    ("without arguments", '{"name": "add"}'),
    ("an example in markdown", f"````markdown\n{CALLS[0][1]}\n````"),
    ("an example in code", "```python\nprint('''\n<tool_call>{}</tool_call>''')\n```"),
    ("a quotation", '> ```tool_call\n> {"name": "add", "arguments": {"a": 1}}\n> ```'),
    ("broken data", '```json\n{"name": "add", "arguments": {"a": \n```'),
    ("broken at the end", 'So:\n{"name": "add", "arguments": {"a": 1}, }}'),
    ("a list of data", '[{"name": "add", "arguments": {}}, {"name": "Ada"}]'),
]


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in NO_CALLS])
def test_this_is_no_call(text: str):
    found = find_calls(text, {"add"})
    assert found.calls == []
    assert found.prose == text


UNREADABLE_CALLS = [
    ("cut off in a string", '{"name": "add", "arguments": {"a": "1', "middle of a string"),
    ("cut off between", '{"name": "add", "arguments": {"a": 1}', "ends where a comma or }"),
    ("no name", '{"arguments": {"a": 1}}', "a call is"),
    ("no object", '{"name": "add", "arguments": [1]}', '"arguments" is not a JSON object'),
    ("no JSON", "add(1, 2)", "holds no call"),
    ("nothing", "", "holds no call"),
    ("unsafe quotes", "{'name': 'add', 'arguments': {'a': 'it's'}}", "a comma or }"),
    ("no finite number", '{"name": "add", "arguments": {"a": NaN}}', "a value was expected"),
    ("too large a number", '{"name": "add", "arguments": {"a": 1e999}}', "too large"),
    ("too deep", '{"name":"add","arguments":{"a":' + "[" * 99 + "]" * 99 + "}}", "nests deeper"),
    ("far too deep", '{"name":"add","arguments":{"a":' + "[" * 50_000, "nests deeper"),
]


@pytest.mark.parametrize(
    ("text", "reason"), [pytest.param(text, reason, id=id) for id, text, reason in UNREADABLE_CALLS]
)
def test_a_block_that_cannot_be_read_says_why(text: str, reason: str):
    (unread,) = find_calls(f"```tool_call\n{text}\n```", {"add"}).calls
    assert isinstance(unread, Unread)
    assert reason in unread.reason


# --- whatever a model writes -------------------------------------------------------------------

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
arguments = st.dictionaries(st.text(max_size=8), values, max_size=4)
MARKS = ["```", "~~~", "````", "```tool_call\n", "```json\n", "<tool_call>", "</tool_call>"]
SIGNS = [
    "{",
    "}",
    "[",
    "]",
    '"',
    "'",
    ",",
    ":",
    "\\",
    "\n",
    " ",
    "1",
    '"name"',
    '"arguments"',
    "add",
]
pieces = st.sampled_from([*MARKS, *SIGNS])
noise = st.lists(pieces | st.text(max_size=5), max_size=40).map("".join)
prose = st.text(st.characters(exclude_characters="{[<`~"))


@given(noise)
def test_nothing_raises_and_everything_found_is_well_formed(text: str):
    for found in find_calls(text, {"add"}).calls:
        if isinstance(found, Call):
            assert "tool_call" in text or found.name == "add"
            json.dumps(found.arguments)


@given(prose)
def test_prose_is_never_a_call(text: str):
    assert find_calls(text, {"add", text.strip()}).calls == []


@given(st.lists(arguments, min_size=1, max_size=4), prose, prose)
def test_what_is_written_as_calls_is_read_as_the_same_calls(
    calls: list[dict[str, Any]], before: str, after: str
):
    uses = [ToolUseContent(id=f"{n}", name="add", input=a) for n, a in enumerate(calls)]
    message = SamplingMessage(role="assistant", content=list(uses))
    request = CreateMessageRequestParams(messages=[message], max_tokens=100)
    written = to_plain(request).messages[0].content
    assert isinstance(written, TextContent)
    found = find_calls(f"{before}\n{written.text}\n{after}", {"add"})
    assert found.calls == [Call("add", each) for each in calls]


@given(arguments, st.data())
def test_a_call_that_is_cut_off_is_never_another_call(call: dict[str, Any], data: st.DataObject):
    whole = f"```tool_call\n{json.dumps({'name': 'add', 'arguments': call})}\n```"
    at = data.draw(st.integers(0, len(whole)))
    for found in find_calls(whole[:at], {"add"}).calls:
        if isinstance(found, Call):
            assert found == Call("add", call)


@given(arguments, st.data())
def test_a_broken_call_is_a_call_or_a_hint_or_words_and_nothing_raises(
    call: dict[str, Any], data: st.DataObject
):
    whole = f"```tool_call\n{json.dumps({'name': 'add', 'arguments': call}, indent=1)}\n```"
    at = data.draw(st.integers(0, len(whole) - 1))
    put = data.draw(pieces)
    cut = data.draw(st.integers(0, 3))
    for found in find_calls(whole[:at] + put + whole[at + cut :], {"add"}).calls:
        if isinstance(found, Call):
            assert isinstance(found.arguments, dict)


@given(values)
def test_json_is_read_as_it_is(value: Any):
    text = json.dumps(value)
    assert read(text) == (value, len(text))
    assert read(json.dumps(value, indent=2, ensure_ascii=False))[0] == value


@given(values)
def test_python_literals_are_read_too(value: Any):
    try:
        found, _ = read(repr(value))
    except Unreadable:
        return  # escapes that JSON does not know, such as \x00
    if "\\" not in repr(value):
        assert found == value


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("```tool_call\n" * 50_000, id="openings"),
        pytest.param("```tool_call\n{\n" * 30_000, id="broken"),
        pytest.param("<tool_call>\n" * 50_000, id="tags"),
        pytest.param("```json\n{\n```\n" * 30_000, id="fences"),
        pytest.param('{"name":\n' * 50_000 + "}", id="bare"),
        pytest.param("{'name':[" + "1," * 30_000 + "\n}", id="lenient"),
    ],
)
@pytest.mark.timeout(10)
def test_a_long_reply_is_read_in_time(text: str):
    find_calls(text, {"add"})
