"""What the model sees of what a tool gave."""

from __future__ import annotations

import itertools
import json
import time
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from mcp_types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    Icon,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
    ToolResultContent,
)
from pydantic import BaseModel

from agentloop.results import (
    DEFAULT_MAX_BYTES,
    DEFAULT_MAX_MEDIA_BYTES,
    MAX_BLOCKS,
    MAX_MEDIA_BYTES,
    NotWritable,
    error_result,
    to_result,
)
from agentloop.text import clean, clean_json, cut, too_deep


class Person(BaseModel):
    name: str


@dataclass
class Point:
    x: int
    y: int


def text_of(value: Any, **options: Any) -> str:
    content = to_result("id", value, **options).content
    assert [block.type for block in content] == ["text"]
    return content[0].text  # type: ignore[union-attr]


def size(result: ToolResultContent) -> int:
    return len(result.model_dump_json(by_alias=True, exclude_none=True))


# --- kinds -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it is", "as it is"),
        (None, "null"),
        (True, "true"),
        (3.5, "3.5"),
        ([], "[]"),
        ((), "[]"),
        ({}, "{}"),
        ([1, "a", None], '[1,"a",null]'),
        ({"a": {"b": [1]}}, '{"a":{"b":[1]}}'),
        ({"x"}, '["x"]'),
        (Person(name="Ann"), '{"name":"Ann"}'),
        ([Person(name="Ann")], '[{"name":"Ann"}]'),
        (Point(1, 2), '{"x":1,"y":2}'),
        (date(2026, 1, 2), '"2026-01-02"'),
        (Decimal("1.50"), '"1.50"'),
        (b"\x00\xff", '"AP8="'),
        (float("nan"), "NaN"),
        ({"x": float("-inf")}, '{"x":-Infinity}'),
        ("Ü\u2028", "Ü\u2028"),
        ({"a": "Ü"}, '{"a":"Ü"}'),
        ([TextContent(text="a"), "b"][1:], '["b"]'),
    ],
)
def test_text_stays_text_and_other_values_become_json(value: Any, text: str) -> None:
    assert text_of(value) == text


def test_an_empty_text_is_a_result_without_content() -> None:
    result = to_result("id", "")
    assert (result.tool_use_id, result.content, result.is_error) == ("id", [], None)


IMAGE = ImageContent(data="aGk=", mime_type="image/png")
LINK = ResourceLink(name="log", uri="file:///log")
BLOCKS: list[ContentBlock] = [
    TextContent(text="see"),
    IMAGE,
    AudioContent(data="aGk=", mime_type="audio/wav"),
    LINK,
    EmbeddedResource(resource=TextResourceContents(uri="file:///a", text="hi")),
    EmbeddedResource(resource=BlobResourceContents(uri="file:///b", blob="aGk=")),
]


def test_content_blocks_stay_what_they_are() -> None:
    assert to_result("id", IMAGE).content == [IMAGE]
    assert to_result("id", BLOCKS).content == BLOCKS
    assert to_result("id", tuple(BLOCKS)).content == BLOCKS


def test_a_result_of_another_server_keeps_its_flag_and_its_structure() -> None:
    given = CallToolResult(
        content=[TextContent(text="two rows")], structured_content={"rows": [1, 2]}, is_error=True
    )
    result = to_result("id", given)
    assert result.content == [TextContent(text="two rows")]
    assert (result.structured_content, result.is_error) == ({"rows": [1, 2]}, True)


@pytest.mark.parametrize(
    ("text", "structured"),
    [('{"rows": [1]}', {"rows": [1]}), ("5", {"result": 5}), ("five", {"result": "five"})],
)
def test_structure_that_only_repeats_the_text_is_left_out(text: str, structured: Any) -> None:
    given = CallToolResult(content=[TextContent(text=text)], structured_content=structured)
    assert to_result("id", given).structured_content is None


def test_structure_without_text_becomes_the_text() -> None:
    given = CallToolResult(content=[], structured_content={"rows": [1]})
    assert to_result("id", given).content == [TextContent(text='{"rows":[1]}')]


def test_a_whole_tool_result_gets_the_id_of_the_call_and_the_same_bounds() -> None:
    given = ToolResultContent(
        tool_use_id="mine", content=[TextContent(text="x" * 50_000 + "\ud800")], is_error=True
    )
    result = to_result("theirs", given)
    assert (result.tool_use_id, result.is_error) == ("theirs", True)
    assert size(result) < 17_000
    assert given.tool_use_id == "mine"


# --- what has no form --------------------------------------------------------------------------


def cycle() -> Any:
    loop: list[Any] = []
    loop.append(loop)
    return loop


def deep() -> Any:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        cycle(),
        {"me": cycle()},
        object(),
        {"a": object()},
        ValueError("secret"),
        int,
        (n for n in range(3)),
        itertools.count(),
        map(str, [1]),
        open(__file__),  # noqa: SIM115
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_json_form_is_said_to_have_none(value: Any) -> None:
    with pytest.raises(NotWritable, match="The tool gave a") as caught:
        to_result("id", value)
    assert "secret" not in str(caught.value)
    if hasattr(value, "close"):
        value.close()


def test_what_nests_a_hundred_thousand_deep_is_said_to_have_no_form() -> None:
    value = deep()
    with pytest.raises(NotWritable):
        to_result("id", value)
    while value:  # or Python itself runs out of stack when it lets go of it
        value = value.pop()


def test_lone_surrogates_and_nuls_are_replaced_wherever_they_stand() -> None:
    bad, good = "a\ud800\udfffb\udc00\0", "a\U000103ffb\ufffd\ufffd"
    assert text_of(bad) == good
    assert json.loads(text_of({bad: [bad]})) == {good: [good]}
    assert json.loads(text_of(Person(name="x\ud800"))) == {"name": "x\ufffd"}
    result = to_result(
        "id",
        CallToolResult(
            content=[
                ResourceLink(name=bad, uri="file:///log", description=bad, _meta={"k": bad}),
                EmbeddedResource(resource=TextResourceContents(uri="file:///a", text=bad)),
                TextContent(text="else"),
            ],
            structured_content={"x": bad},
        ),
    )
    written = result.model_dump(mode="json", by_alias=True)
    json.dumps(written, ensure_ascii=False).encode()
    assert "\0" not in str(written)


def test_meta_is_clean_and_holds_no_null_which_rounds_cannot_send() -> None:
    meta: dict[str, Any] = {"null": None, "kept": {"null": None}, "bad": "\ud800"}
    fine = {"kept": {"null": None}, "bad": "\ufffd"}
    content: list[Any] = [
        TextContent(text="a", _meta=meta),
        TextContent(text="b", _meta={"null": None}),
    ]
    result = to_result("id", ToolResultContent(tool_use_id="x", content=content, _meta=meta))
    assert [result.meta, *(block.meta for block in result.content)] == [fine, fine, None]


# --- size --------------------------------------------------------------------------------------


def test_text_up_to_the_cap_is_left_alone() -> None:
    assert text_of("x" * DEFAULT_MAX_BYTES) == "x" * DEFAULT_MAX_BYTES
    assert text_of("ü" * (DEFAULT_MAX_BYTES // 2)) == "ü" * (DEFAULT_MAX_BYTES // 2)


def test_of_a_longer_text_head_and_tail_are_kept_and_the_rest_is_counted() -> None:
    text = text_of("HEAD" + "x" * 30_000 + "TAIL")
    assert text.startswith("HEAD")
    assert text.endswith("TAIL")
    assert "of 30008 bytes left out ...]" in text
    assert len(text.encode()) <= DEFAULT_MAX_BYTES


@pytest.mark.parametrize("char", ["x", "ü", "\u4e2d", "\U0001f600", "\0", "\ud800"])
def test_the_cap_holds_in_bytes_for_every_kind_of_character(char: str) -> None:
    for length in (5_000, 16_384, 16_385, 100_000):
        assert len(text_of(char * length).encode()) <= DEFAULT_MAX_BYTES


def test_the_cap_is_the_tools_own() -> None:
    assert len(text_of("x" * 5000, max_bytes=1000).encode()) <= 1000
    assert text_of("x" * 50_000, max_bytes=100_000) == "x" * 50_000


def test_fifty_megabytes_of_text_are_cut_quickly() -> None:
    text = "ü" * 25_000_000
    began = time.perf_counter()
    assert size(to_result("id", text)) < 17_000
    assert size(to_result("id", {"rows": [text]})) < 20_000
    assert time.perf_counter() - began < 3


def test_the_texts_of_many_blocks_share_one_cap() -> None:
    result = to_result("id", [TextContent(text="x" * 1000)] * 10_000)
    assert size(result) < DEFAULT_MAX_BYTES + 4000
    last = result.content[-1]
    assert last.type == "text"
    assert last.text.startswith("[... 99")
    assert last.text.endswith("more blocks left out ...]")


def test_blocks_are_bounded_in_number() -> None:
    result = to_result("id", [IMAGE] * 10_000)
    assert result.content == [
        *[IMAGE] * MAX_BLOCKS,
        TextContent(text="[... 9936 more blocks left out ...]"),
    ]


def test_media_over_the_cap_is_left_out_and_said_to_be() -> None:
    big = "A" * 20_000_000
    blocks: list[ContentBlock] = [
        ImageContent(data=big, mime_type="image/png"),
        AudioContent(data=big, mime_type="audio/wav"),
        EmbeddedResource(resource=BlobResourceContents(uri="file:///b", blob=big)),
    ]
    result = to_result("id", blocks)
    assert [block.text for block in result.content if block.type == "text"] == [
        f"[{what} of 20000000 bytes left out: it is over {MAX_MEDIA_BYTES}]"
        for what in ("image (image/png)", "audio (audio/wav)", "resource file:///b")
    ]


def test_the_media_of_a_result_shares_one_cap() -> None:
    """However many blocks it has: what is beyond the cap is left out, with what to do about it."""
    image = ImageContent(data="A" * 4_000_000, mime_type="image/png")
    words, link = TextContent(text="64 pictures"), ResourceLink(name="all", uri="file:///all")
    result = to_result("id", [*[image] * 60, words, link])

    assert result.content[:-1] == [image, image, words, link]
    notice = result.content[-1]
    assert notice.type == "text"
    assert notice.text.startswith("[58 more of 62 blocks, 232")
    assert f"at most {DEFAULT_MAX_MEDIA_BYTES} bytes of media" in notice.text
    assert "Ask for fewer at a time, or for smaller ones" in notice.text
    assert size(result) < DEFAULT_MAX_MEDIA_BYTES + DEFAULT_MAX_BYTES

    assert to_result("id", [image] * 60, max_media_bytes=10**9).content == [image] * 60


@pytest.mark.parametrize(
    "block",
    [
        TextContent(text="a", _meta={"rows": "x" * 200_000}),
        ResourceLink(
            name="a", uri="file:///a", icons=[Icon(src="data:image/png;base64," + "A" * 200_000)]
        ),
    ],
)
def test_what_is_said_about_blocks_counts_as_media(block: ContentBlock) -> None:
    result = to_result("id", [block] * 60, max_media_bytes=1_000_000)
    assert 3 * 200_000 < size(result) < 1_100_000


def test_an_embedded_text_is_cut_like_any_other() -> None:
    resource = TextResourceContents(uri="file:///a", text="x" * 100_000)
    result = to_result("id", EmbeddedResource(resource=resource))
    assert size(result) < 17_000
    assert result.content[0].type == "resource"


def test_names_and_descriptions_of_links_are_bounded() -> None:
    link = ResourceLink(name="n" * 1_000_000, uri="file:///a", description="d" * 1_000_000)
    assert size(to_result("id", link)) < 10_000


def test_structure_over_the_cap_is_left_out() -> None:
    given = CallToolResult(
        content=[TextContent(text="rows")], structured_content={"x": "y" * 20_000}
    )
    assert to_result("id", given).structured_content is None


def test_an_error_is_clean_and_bounded() -> None:
    result = error_result("id", "\ud800" * 100_000)
    assert result.is_error
    assert size(result) < 4500


def test_a_result_is_never_the_tools_own_object() -> None:
    blocks = [TextContent(text="a")]
    result = to_result("id", blocks)
    result.content.append(TextContent(text="b"))
    assert blocks == [TextContent(text="a")]


# --- text --------------------------------------------------------------------------------------


def test_clean_text_is_the_same_object() -> None:
    for text in ("plain", "ünï", "\U0001f600"):
        assert clean(text) is text


def test_cut_never_goes_over_the_limit_and_leaves_whole_characters() -> None:
    for limit in range(64, 300, 7):
        for char in ("x", "ü", "\U0001f600"):
            text = cut(char * 500, limit)
            assert len(text.encode()) <= limit
            assert set(text) <= set(char + "\n[]. 0123456789ofbytesleftout")


def test_json_that_no_writer_takes_is_written_as_text() -> None:
    assert clean_json({"a": float("inf"), "b": 10**2000, "c": 10**20}) == {
        "a": "inf",
        "b": hex(10**2000),
        "c": 10**20,
    }


def test_depth_counts_lists_and_dicts() -> None:
    value: Any = 1
    for depth in range(64):
        assert not too_deep(value), depth
        value = [value] if depth % 2 else {"x": value}
    assert not too_deep([1, {}, [], "x"])
    assert too_deep([[[1]]], 2)
    assert not too_deep([[1]], 2)
    assert too_deep(cycle())
