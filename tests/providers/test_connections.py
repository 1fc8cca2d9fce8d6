"""Servers that go away, drip or hang, and event loops that come one after another."""

from __future__ import annotations

import gc
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import anyio
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream
from mcp_types import TextContent
from structlog.testing import capture_logs

from agentloop.agent import Agent
from agentloop.errors import (
    AskTimeoutError,
    DefinitionError,
    OverloadedError,
    UnreachableError,
)
from agentloop.fallback import Fallback
from agentloop.guard import RealRequestError, no_real_requests
from agentloop.run import Stop
from agentloop.testing.asks import ask, blocks_of, user
from agentloop.testing.backend import Call, Says, Server, described, served
from agentloop.testing.chat_api import ChatBackend
from agentloop.testing.messages_api import MessagesBackend
from agentloop.tools import tool
from agentloop.usage import Limits
from agentloop_providers import (
    AnthropicProvider,
    OpenAIChatProvider,
    OpenAIProvider,
    Retry,
    ScriptedProvider,
)

ONCE = Retry(attempts=1)


@contextmanager
def listening(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that does ``serve`` with each connection; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        over = threading.Event()

        def accept() -> None:
            while not over.is_set():
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                with connection:
                    connection.settimeout(5)
                    try:
                        connection.recv(65536)
                        serve(connection)
                    except OSError:
                        pass  # the client went away

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            over.set()
            thread.join()


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n"


def stops_in_the_middle(connection: socket.socket) -> None:
    connection.sendall(HEAD + b'{"id": "msg_1", "content": [')


def drips(connection: socket.socket) -> None:
    """One byte now and then: no read ever times out."""
    connection.sendall(HEAD)
    for _ in range(100):
        connection.sendall(b" ")
        time.sleep(0.05)


def says_nothing(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


async def test_a_server_that_is_killed_in_the_middle_of_its_answer() -> None:
    @tool(description=described("look"))
    def look() -> str:
        return "saw it"

    backend = MessagesBackend()
    backend.says(Says(calls=(Call("look"),)))
    with Server() as server:
        server.show(backend)
        async with AnthropicProvider("m", api_key=backend.key, base_url=server.url) as provider:
            first = await provider.sample(ask(user("go")))
            assert first.stop_reason == "toolUse"
    with listening(stops_in_the_middle) as url:
        async with AnthropicProvider("m", api_key="k", base_url=url, retry=ONCE) as provider:
            with pytest.raises(OverloadedError, match="no connection to 127"):
                await provider.sample(ask(user("go")))
            result = await Agent("looker", tools=[look]).run("look", provider=provider)
    assert (result.stop, len(result.messages)) == (Stop.FAILED, 1)
    assert (result.error or "").startswith("overloaded: no connection to 127.0.0.1:")


TO_BE_KILLED = """
import json, socket, time
from agentloop.testing.backend import Call, Says
from agentloop.testing.chat_api import ChatBackend

whole = json.dumps(ChatBackend().reply(Says(thinking="hm", calls=(Call("look"),)), {})).encode()
head = b"HTTP/1.1 200 OK\\r\\ncontent-type: application/json\\r\\nconnection: close\\r\\n"
with socket.create_server(("127.0.0.1", 0)) as server:
    print(server.getsockname()[1], flush=True)
    for part in (whole, whole[:60]):
        connection, _ = server.accept()
        connection.recv(1 << 20)
        connection.sendall(head + b"content-length: %d\\r\\n\\r\\n" % len(whole) + part)
        if part is whole:
            connection.close()
    print("in the middle", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("comes_back", [True, False])
async def test_a_server_that_is_killed_in_the_middle_of_its_second_answer(comes_back: bool) -> None:
    """The run goes on where the server comes back, and ends with all it has where it does not."""
    looks: list[int] = []

    @tool(description=described("look"))
    def look() -> str:
        looks.append(1)
        return "saw it"

    backend = ChatBackend()
    backend.says(Says(text="It is there."))
    process = await anyio.open_process([sys.executable, "-c", TO_BE_KILLED], stderr=None)
    assert process.stdout is not None
    said = BufferedByteReceiveStream(process.stdout)
    port = int(await said.receive_until(b"\n", 100))
    result: list[Any] = []

    async def run() -> None:
        url = f"http://127.0.0.1:{port}/v1"
        async with OpenAIChatProvider(
            "m", base_url=url, api_key=backend.key, retry=Retry(attempts=5, max_wait=0.5)
        ) as provider:
            result.append(await Agent("looker", tools=[look]).run("look", provider=provider))

    with anyio.fail_after(60), ExitStack() as stack:
        async with anyio.create_task_group() as group:
            group.start_soon(run)
            try:
                assert await said.receive_until(b"\n", 100) == b"in the middle"
            finally:
                process.kill()  # SIGKILL: no goodbye
                await process.aclose()
            if comes_back:
                stack.enter_context(Server(port=port)).show(backend)
    assert looks == [1]
    [ended] = result
    assert [m.role for m in ended.messages[:3]] == ["user", "assistant", "user"]
    if comes_back:
        assert (ended.stop, ended.text) == (Stop.DONE, "It is there.")
        assert "saw it" in backend.raw[0].decode()
    else:
        assert (ended.stop, len(ended.messages)) == (Stop.FAILED, 3)
        assert ended.error.startswith(f"unreachable: http://127.0.0.1:{port}/v1 could not be")


async def test_a_server_that_comes_back_is_found_again() -> None:
    backend = ChatBackend()
    backend.says(Says(text="hi"))
    with served(backend) as url:
        port = int(url.rpartition(":")[2])
        provider = OpenAIChatProvider(
            "m", api_key=backend.key, base_url=f"{url}/v1", retry=Retry(max_wait=0.0)
        )
        await provider.sample(ask(user("go")))
    with pytest.raises(UnreachableError):
        await provider.sample(ask(user("go")))
    with Server(port=port) as server:
        server.show(backend)
        await provider.sample(ask(user("go")))
        await provider.aclose()


@pytest.mark.parametrize("serve", [drips, says_nothing])
async def test_a_request_ends_when_its_time_is_up(serve: Callable[[socket.socket], None]) -> None:
    with listening(serve) as url:
        provider = OpenAIChatProvider("m", base_url=url, timeout=0.3, retry=ONCE)
        began = time.monotonic()
        with pytest.raises(AskTimeoutError, match="no answer"):
            await provider.sample(ask(user("go")))
        assert time.monotonic() - began < 2
        await provider.aclose()


async def test_the_time_that_an_agent_grants_an_ask_counts() -> None:
    with listening(says_nothing) as url:
        async with OpenAIChatProvider("m", base_url=url) as provider:
            agent = Agent("any", limits=Limits(ask_seconds=0.3))
            result = await agent.run("go", provider=provider)
    assert (result.stop, result.error) == (Stop.FAILED, "timeout: no answer within 0.3 s")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


async def test_nobody_there() -> None:
    port = free_port()
    provider = OpenAIChatProvider("m", base_url=f"http://u:secret@127.0.0.1:{port}/v1", retry=ONCE)
    with pytest.raises(UnreachableError, match=f"http://127.0.0.1:{port}/v1 could not") as caught:
        await provider.sample(ask(user("go")))
    assert "secret" not in str(caught.value) + repr(provider) + provider.name
    result = await Agent("any").run("go", provider=provider)
    assert (result.error or "").startswith(f"unreachable: http://127.0.0.1:{port}/v1 could not be")
    await provider.aclose()


async def test_another_provider_answers_where_nobody_is_there() -> None:
    async with AnthropicProvider(
        "m", api_key="k", base_url=f"http://127.0.0.1:{free_port()}", retry=ONCE
    ) as away:
        result = await Agent("any").run("go", provider=Fallback(away, ScriptedProvider("here")))
    assert (result.stop, result.text) == (Stop.DONE, "here")


async def test_a_server_that_may_be_starting_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the end its address is named, also where it stood in the environment."""
    monkeypatch.setenv("OPENAI_BASE_URL", url := f"http://127.0.0.1:{free_port()}/v1")
    with capture_logs() as lines:
        async with OpenAIProvider("m", api_key="k", retry=Retry(attempts=3, max_wait=0.0)) as away:
            with pytest.raises(UnreachableError, match=url):
                await away.sample(ask(user("go")))
    assert [line["error"] for line in lines] == ["unreachable"] * 2


@pytest.mark.parametrize("key", ["sk\nsecret", "sk-sécret", "sk secret"])
def test_a_key_that_no_header_can_hold(key: str) -> None:
    """It would be refused at the first request, by code that logs it."""
    with pytest.raises(DefinitionError, match="key") as caught:
        OpenAIChatProvider("m", base_url="http://x", api_key=key)
    assert "cret" not in str(caught.value)


@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_one_provider_serves_event_loops_one_after_another() -> None:
    """Also where nobody closed it: connections of a loop that is over are not used again."""
    backend = ChatBackend()
    backend.says(Says(text="hi"))
    with served(backend) as url:
        provider = OpenAIChatProvider("m", api_key=backend.key, base_url=f"{url}/v1")

        async def once() -> list[Any]:
            return blocks_of(await provider.sample(ask(user("go"))))

        kinds = ("asyncio", "asyncio", "trio", "asyncio")
        said = [anyio.run(once, backend=kind) for kind in kinds]
        gc.collect()
    assert said == [[TextContent(text="hi")]] * 4


async def test_a_guard_keeps_requests_in(connect: Callable[..., Any]) -> None:
    backend = ChatBackend()
    backend.says(Says(text="hi"))
    provider = connect(OpenAIChatProvider, backend)
    with no_real_requests(), pytest.raises(RealRequestError, match="openai-chat:model-1"):
        await provider.sample(ask(user("go")))
    assert backend.requests == []


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_there_is_always_a_timeout(timeout: float) -> None:
    with pytest.raises(DefinitionError, match="timeout"):
        OpenAIChatProvider("m", base_url="http://x", timeout=timeout)
