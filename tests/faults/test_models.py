"""Models over HTTP that are busy, broken, slow, or say nothing of use."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, NamedTuple

import pytest

from agentloop import Agent, Limits, RunResult
from agentloop.errors import ProviderError
from agentloop.run import Stop
from agentloop.testing.asks import ask, user
from agentloop.testing.backend import Backend, Call, Line, Refuses, Says, Sends, served
from agentloop.testing.chat_api import ChatBackend
from agentloop.testing.messages_api import MessagesBackend
from agentloop.testing.responses_api import ResponsesBackend
from agentloop_providers import AnthropicProvider, OpenAIChatProvider, OpenAIProvider
from agentloop_providers.retry import Retry
from tests.faults.kit import PROVIDER, PUSH, ROUNDS, STORED, Model, check_history, play, serving
from tests.faults.wire import Silence, connected

pytestmark = pytest.mark.usefixtures("no_leaks")


class API(NamedTuple):
    """A model behind HTTP, and how it is asked."""

    backend: Backend
    provider: Callable[..., Any]
    path: str

    def open(self, **options: Any) -> Any:
        options.setdefault("base_url", self.backend.url + self.path)
        options.setdefault("api_key", self.backend.key)
        return self.provider(self.backend.model, **options)


KINDS: dict[str, tuple[type[Backend], Callable[..., Any], str]] = {
    "messages": (MessagesBackend, AnthropicProvider, ""),
    "chat": (ChatBackend, OpenAIChatProvider, "/v1"),
    "responses": (ResponsesBackend, OpenAIProvider, "/v1"),
}


@pytest.fixture(scope="module")
def backends() -> Iterator[dict[str, Backend]]:
    """A server for each API, for all tests."""
    backends = {kind: KINDS[kind][0]() for kind in KINDS}
    with ExitStack() as stack:
        for backend in backends.values():
            stack.enter_context(served(backend))
        yield backends


@pytest.fixture(params=KINDS)
def api(request: pytest.FixtureRequest, backends: dict[str, Backend]) -> API:
    backend = backends[request.param]
    backend.clear()
    for kept in (backend.requests, backend.raw, backend.spoken, backend.problems):
        kept.clear()
    _, provider, path = KINDS[request.param]
    return API(backend, provider, path)


class Looker:
    """An agent with a tool, and how often that ran."""

    def __init__(self, **limits: Any) -> None:
        self.looks: list[int] = []

        async def look(at: int) -> str:
            """The tool called look."""
            self.looks.append(at)
            return f"saw {at}"

        self.agent = Agent("looker", tools=[look], limits=Limits(**limits))

    async def ask(self, api: API, *lines: Line, **options: Any) -> RunResult[str]:
        api.backend.says(*lines)
        async with api.open(**options) as provider:
            result = await self.agent.run("Look.", provider=provider)
        assert api.backend.problems == []
        check_history(result.messages)
        return result


def failed(result: RunResult[str]) -> str:
    """The stable code with which a run failed."""
    assert result.stop is Stop.FAILED, result.story()
    return (result.error or "").partition(":")[0]


LOOK = Says(calls=(Call("look", {"at": 1}),))


# --- busy --------------------------------------------------------------------------------------


def in_two_seconds() -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)


@pytest.mark.fault("B46")
async def test_retry_after_in_seconds_is_honoured(carrier: str, api: API) -> None:
    looker = Looker()
    busy = Refuses(429, "busy", headers={"retry-after": "0.3"})
    began = time.monotonic()
    result = await looker.ask(api, busy, LOOK, busy, Says(text="seen"))
    assert (result.stop, result.text, looker.looks) == (Stop.DONE, "seen", [1])
    assert time.monotonic() - began >= 0.6


@pytest.mark.fault("B46")
@pytest.mark.parametrize("api", ["messages"], indirect=True)
async def test_retry_after_as_a_date_is_honoured(carrier: str, api: API) -> None:
    busy = Refuses(429, "busy", headers={"retry-after": in_two_seconds()})
    began = time.monotonic()
    result = await Looker().ask(api, busy, Says(text="seen"))
    assert result.text == "seen"
    assert time.monotonic() - began >= 0.9  # dates have no parts of seconds


@pytest.mark.fault("B46")
@pytest.mark.parametrize("after", ["86400", "Fri, 31 Dec 2199 23:59:59 GMT"])
@pytest.mark.parametrize("limit", ["ask_seconds", "seconds"])
async def test_a_wait_past_the_deadline_is_not_begun(
    carrier: str, api: API, after: str, limit: str
) -> None:
    busy = Refuses(429, "busy", headers={"retry-after": after})
    began = time.monotonic()
    result = await Looker(**{limit: 1.0}).ask(api, busy)
    assert failed(result) == "overloaded"
    assert time.monotonic() - began < 1
    assert len(api.backend.requests) == 1


@pytest.mark.fault("B46")
@pytest.mark.parametrize("after", ["soon", "-5", "", "nan", "9" * 400])
async def test_junk_for_retry_after(carrier: str, api: API, after: str) -> None:
    busy = Refuses(429, "busy", headers={"retry-after": after})
    result = await Looker().ask(api, busy, Says(text="seen"), retry=Retry(max_wait=0.1))
    assert result.text == "seen"


@pytest.mark.fault("B47")
@pytest.mark.parametrize("status", [503, 529])
async def test_an_overload_passes(carrier: str, api: API, status: int) -> None:
    looker = Looker()
    result = await looker.ask(api, Refuses(status), LOOK, Refuses(status), Says(text="seen"))
    assert (result.stop, looker.looks) == (Stop.DONE, [1])


@pytest.mark.fault("B47")
@pytest.mark.parametrize("api", ["messages"], indirect=True)
@pytest.mark.timeout(30)
@pytest.mark.parametrize("host", ["127.0.0.1", "nowhere.invalid"])
async def test_nobody_is_there(carrier: str, api: API, host: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options: Any = {"base_url": f"http://{host}:{port}", "retry": Retry(attempts=2, max_wait=0.05)}
    result = await Looker(ask_seconds=20.0).ask(api, Says(text="never"), **options)
    assert failed(result) in ("unreachable", "timeout")


@pytest.mark.fault("B48")
async def test_an_error_for_ever(carrier: str, api: API) -> None:
    line = Refuses(500, "broken", headers={"retry-after": "0", "request-id": "req-7"})
    began = time.monotonic()
    result = await Looker().ask(api, line)
    assert failed(result) == "overloaded"
    assert "500" in (result.error or "")
    assert len(api.backend.requests) == Retry().attempts
    assert time.monotonic() - began < 4
    api.backend.clear()
    api.backend.says(line)
    async with api.open(retry=Retry(attempts=1)) as provider:
        with pytest.raises(ProviderError) as raised:
            await provider.sample(ask(user("go")))
    assert (raised.value.status, raised.value.request_id) == (500, "req-7")


# --- silent ------------------------------------------------------------------------------------


@pytest.mark.fault("B49", on=(PROVIDER,))
async def test_an_endpoint_that_hangs(carrier: str, api: API) -> None:
    result = await Looker().ask(api, Sends(hangs=True), timeout=0.2, retry=Retry(attempts=1))
    assert failed(result) == "timeout"
    result = await Looker(ask_seconds=0.2).ask(api, Sends(hangs=True))
    assert failed(result) == "timeout"


@pytest.mark.fault("B49", on=(PUSH,))
async def test_a_client_that_never_answers(carrier: str) -> None:
    looker = Looker(ask_seconds=0.2)
    played = await play(carrier, looker.agent, Silence)
    assert (played.stop, played.error) == (Stop.FAILED, "timeout")
    assert played.wire is not None
    cancelled = [note for note in played.wire.notes if note["method"] == "notifications/cancelled"]
    assert len(cancelled) == 1


@pytest.mark.fault("B49", on=(ROUNDS, STORED))
async def test_a_client_that_never_comes_back(carrier: str) -> None:
    """Nothing waits for it: that is what ``no_leaks`` looks at."""
    server = serving(Looker().agent, carrier)
    async with connected(server, Model().answer, modern=True) as wire:
        for _ in range(20):
            first = await wire.round("looker", {"prompt": "Look."})
            assert first["resultType"] == "input_required"


# --- partial -----------------------------------------------------------------------------------


@pytest.mark.fault("B50")
async def test_a_connection_that_breaks_in_the_body(carrier: str, api: API) -> None:
    looker = Looker()
    cut = Sends(body=json.dumps({"text": "x" * 100_000}), breaks_off=True)
    result = await looker.ask(api, cut, LOOK, cut, Says(text="seen"))
    assert (result.stop, looker.looks) == (Stop.DONE, [1])


def streamed(backend: MessagesBackend, body: Any) -> str:
    """A streamed reply that calls ``look``."""
    reply = backend.reply(LOOK, body)
    backend.spoken.pop()
    return backend.stream(reply).decode()


@pytest.mark.fault("B50")
@pytest.mark.parametrize("api", ["messages"], indirect=True)
@pytest.mark.parametrize("damage", ["cut", "doubled", "shuffled", "no end"])
async def test_a_stream_that_is_damaged(carrier: str, api: API, damage: str) -> None:
    looker = Looker()
    looker.agent = Agent("looker", tools=list(looker.agent.tools.values()), max_tokens=40_000)
    assert isinstance(api.backend, MessagesBackend)
    body = {"tools": [{"name": "look", "description": "The tool called look."}]}
    events = streamed(api.backend, body).removesuffix("\n\n").split("\n\n")
    damaged = {
        "cut": events[:3],
        "doubled": [event for event in events for _ in range(2)],
        "shuffled": events[::-1],
        "no end": events[:-1],
    }[damage]
    text = "".join(f"{event}\n\n" for event in damaged)
    sends = Sends(body=text, headers={"content-type": "text/event-stream"})
    result = await looker.ask(api, sends, Says(text="seen"))
    assert looker.looks in ([], [1])
    assert result.stop in (Stop.DONE, Stop.FAILED)
    if damage in ("cut", "no end"):
        assert (looker.looks, result.text) == ([], "seen")


PAGE = "<html><head><title>Hello</title></head><body>nginx</body></html>"


@pytest.mark.fault("B51")
@pytest.mark.parametrize(
    "body", [PAGE, "[]", "null", "{}", '{"error": {"message": "no"}}', '"text"', "", "[" * 9999]
)
async def test_a_reply_that_is_none(carrier: str, api: API, body: str) -> None:
    result = await Looker().ask(api, Sends(body=body, headers={"content-type": "text/html"}))
    assert failed(result) == "malformed_reply"
    assert "nginx" not in (result.error or "")
    assert len(api.backend.requests) == 1


@pytest.mark.fault("B52")
async def test_a_context_that_overflows(carrier: str, api: API) -> None:
    looker = Looker()
    over = Refuses(400, "prompt is too long: 210000 tokens > 200000 maximum context length")
    result = await looker.ask(api, LOOK, over)
    assert failed(result) == "context_overflow"
    assert len(api.backend.requests) == 2
    assert looker.looks == [1]
    assert "saw 1" in str(list(result.messages))


@pytest.mark.fault("B56")
@pytest.mark.parametrize("status", [401, 402, 403])
async def test_a_key_that_is_refused(carrier: str, api: API, status: int, logs: list[Any]) -> None:
    result = await Looker().ask(api, Refuses(status, f"bad key {api.backend.key}"))
    assert failed(result) == "authentication"
    assert len(api.backend.requests) == 1
    assert api.backend.key not in f"{result.error}{result.to_json()}{logs}"
