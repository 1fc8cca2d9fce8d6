"""A canary in exceptions, the environment, headers, arguments and answers; and where it is not."""

from __future__ import annotations

import functools
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
import structlog
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp_types import CallToolRequestParams, CallToolResult, ElicitResult, TextContent
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import BaseModel

from agentloop import Agent, RunResult, ToolError, ask_url, ask_user, keep_secret, tool
from agentloop.errors import DefinitionError, ProviderError
from agentloop.events import Event, RunEnded, all_of
from agentloop.logs import StructLog
from agentloop.mcp import resumable
from agentloop.mcp.callback import sampling_callback
from agentloop.results import to_result
from agentloop.run import Run
from agentloop.secret import HIDDEN, forget_secret, hidden, hidden_from_model
from agentloop.store import MemoryStore
from agentloop.telemetry import OpenTelemetry
from agentloop_providers import (
    AnthropicProvider,
    OpenAIChatProvider,
    OpenAIProvider,
    ScriptedProvider,
)
from agentloop_providers.retry import Retry
from agentloop_providers.scripted import use
from tests.faults.http import post_of, result_of, serving_http
from tests.faults.kit import (
    GO,
    PROVIDER,
    PUSH,
    STORED,
    Model,
    Played,
    calls,
    play,
    says,
    serving,
)
from tests.faults.wire import PEOPLE, Rejected, connected

pytestmark = pytest.mark.usefixtures("no_leaks")

CANARY = "hunter2-c4n4ry"


class Watch:
    """Everything that may be read of a run, but for its own transcript."""

    def __init__(
        self,
        logs: list[Any],
        folder: Path,
        caplog: pytest.LogCaptureFixture,
        capsys: pytest.CaptureFixture[str],
        *,
        content: bool = False,
    ) -> None:
        self._logs, self._folder, self._caplog, self._capsys = logs, folder, caplog, capsys
        caplog.set_level(logging.INFO)
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._runs: list[Run] = []
        self.sink: Callable[[Event], None] = all_of(
            StructLog(content=content),
            OpenTelemetry(tracer_provider=provider, content=content),
            self._keep,
        )

    def _keep(self, event: Event) -> None:
        if isinstance(event, RunEnded):
            self._runs.append(event.run)

    def told(self) -> str:
        """What operators read: log lines, spans, output."""
        out, err = self._capsys.readouterr()
        spans = [span.to_json() for span in self._exporter.get_finished_spans()]
        assert spans
        assert self._logs
        errors = [repr(line.get("exc_info")) for line in self._logs]
        return "\n".join([out, err, self._caplog.text, *map(str, self._logs), *errors, *spans])

    def kept(self, played: Played) -> str:
        """What models, clients and readers of transcripts read."""
        files: list[str] = []
        for number, run in enumerate(self._runs):
            file = self._folder / f"{number}.jsonl"
            RunResult[Any](run).save(file)
            files += [file.read_text(), json.dumps(run.to_json())]
        written = played.wire.written if played.wire else []
        requests = [request.model_dump_json() for request in played.requests]
        return "\n".join([*files, *written, *requests, json.dumps(played.result)])


@pytest.fixture
def watching(
    logs: list[Any],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., Watch]:
    return functools.partial(Watch, logs, tmp_path, caplog, capsys)


@pytest.fixture
def watch(watching: Callable[..., Watch]) -> Watch:
    return watching()


class Odd(Exception):
    def __init__(self) -> None:
        super().__init__(CANARY)
        self.url = f"https://me:{CANARY}@example.com"
        self.add_note(CANARY)


async def raises() -> str:
    raise ValueError(CANARY)


async def raises_with_a_cause() -> str:
    try:
        os.environ["nothing like " + CANARY]
    except KeyError as error:
        raise Odd from error
    return "never"


def raises_in_a_thread() -> str:
    raise RuntimeError(CANARY) from ValueError(CANARY)


async def leaves() -> str:
    sys.exit(CANARY)


async def says_more() -> str:
    raise ToolError("I cannot.") from ValueError(CANARY)


async def gives_an_object() -> Any:
    return object.__new__(Odd)


FAILING = [raises, raises_with_a_cause, raises_in_a_thread, leaves, says_more, gives_an_object]


@pytest.mark.fault("B25")
async def test_what_is_in_exceptions_stays_there(carrier: str, watch: Watch) -> None:
    agent = Agent("worker", tools=FAILING)
    uses = [use(fn.__name__) for fn in FAILING]
    played = await play(carrier, agent, uses, "sorry", on_event=watch.sink)
    assert all(is_error for _, is_error in played.results)
    assert "ValueError" in played.results[0][0]
    assert CANARY not in watch.kept(played)
    assert CANARY not in watch.told()


@pytest.mark.fault("B25")
async def test_arguments_and_results_are_for_the_model_alone(carrier: str, watch: Watch) -> None:
    """What the model says and what a tool gives it are in the transcript, and nowhere else."""

    async def look_up(token: str) -> str:
        return f"it is {token}"

    agent = Agent("worker", f"Use {CANARY}.", tools=[look_up])
    script = [[use("look_up", token=CANARY)], [use("look_up", wrong=CANARY)], f"so: {CANARY}"]
    played = await play(carrier, agent, *script, on_event=watch.sink, prompt=CANARY)
    assert CANARY in played.results[0][0]
    assert CANARY not in watch.told()
    if played.wire:
        progress = [line for line in played.wire.written if "notifications/" in line]
        assert CANARY not in str(progress)


@pytest.fixture
def kept() -> Iterator[None]:
    """Forgets the canary after the test."""
    yield
    forget_secret(CANARY, ODD)


ODD = 'a "quoted"/\ncanary\u00e9'
"""A secret that is written otherwise in JSON, in URLs and in tracebacks."""


@tool
async def leaks() -> str:
    return f"the key is {CANARY}{ODD}"


@tool
async def leaks_structured() -> CallToolResult:
    data = {"key": CANARY, ODD: [ODD]}
    return CallToolResult(content=[TextContent(text="see")], structured_content=data)


@tool
async def leaks_json() -> dict[str, str]:
    return {"key": CANARY, "url": f"https://example.com/?k={quote(ODD)}", "odd": ODD}


@tool(reveal_errors=True)
async def leaks_an_error() -> str:
    raise ValueError(f"{CANARY} {ODD}")


@tool
async def tells_the_error() -> str:
    raise ToolError(f"no entry with {CANARY}{ODD}")


@tool(max_bytes=256)
async def leaks_at_the_cut() -> str:
    return f"{'x' * 110}{CANARY * 3}{'y' * 1000}"


LEAKING = [
    leaks, leaks_structured, leaks_json, leaks_an_error, tells_the_error, leaks_at_the_cut,
]  # fmt: skip


def pieces(text: str) -> list[str]:
    """What of the secrets stands in ``text``."""
    telling = [CANARY, CANARY[:8], "quoted", quote(ODD), quote("canary\u00e9")]
    return [piece for piece in telling if piece in text]


@pytest.mark.fault("B42")
@pytest.mark.parametrize("from_model", [False, True])
async def test_a_registered_secret(
    carrier: str,
    from_model: bool,
    kept: None,
    watching: Callable[..., Watch],
) -> None:
    """It is in no log line, although content is logged; and where asked, not before the model."""
    keep_secret(CANARY, ODD, from_model=from_model)
    watch = watching(content=True)
    agent = Agent("worker", tools=LEAKING)
    uses = [use(tool.name) for tool in LEAKING]
    played = await play(carrier, agent, uses, use("leaks", key=CANARY), "ok", on_event=watch.sink)
    assert "the key is" in played.results[0][0]
    assert pieces(watch.told()) == []
    results = str([message for message in played.run.messages if message.role == "user"])
    assert bool(pieces(results)) is not from_model
    if from_model:
        assert HIDDEN in played.results[0][0]
        assert pieces("".join(text for text, _ in played.results)) == []


@pytest.mark.fault("B42")
async def test_a_registered_secret_in_what_a_model_s_error_says(
    carrier: str, kept: None, watch: Watch
) -> None:
    keep_secret(CANARY)
    agent = Agent("worker", provider=ScriptedProvider(ProviderError(f"bad key {CANARY}")))
    if carrier == PROVIDER:
        result = await agent.run("Go", on_event=watch.sink)
        assert result.error == f"provider: bad key {HIDDEN}"
        assert CANARY not in watch.kept(Played())
        return
    server = serving(agent, carrier, on_event=watch.sink)
    async with connected(server, Model().answer, modern=carrier != PUSH, capabilities={}) as wire:
        result = await wire.call("worker", GO)
        assert HIDDEN in str(result)
        assert CANARY not in str(wire.written) + watch.kept(Played())


async def test_a_secret_in_a_huge_result(kept: None) -> None:
    """It is found before the text is cut, and the search costs little."""
    keep_secret(CANARY, from_model=True)
    huge = f"{CANARY}{'x' * 20_000_000}{CANARY}"
    began = time.process_time()
    (block,) = to_result("c", huge).content
    assert time.process_time() - began < 1
    assert block.type == "text"
    assert block.text.startswith(HIDDEN)
    assert block.text.endswith(f"x{HIDDEN}")


async def test_a_secret_that_is_no_utf_8() -> None:
    """As a variable of the environment may be."""
    odd = "caf\udce9 and more"
    keep_secret(odd, from_model=True)
    try:
        (block,) = to_result("c", f"a {odd} b").content
        assert block.type == "text"
        assert block.text == f"a {HIDDEN} b"
    finally:
        forget_secret(odd)


@pytest.mark.parametrize("wrong", ["", "short", 1234567, None])
async def test_what_cannot_be_kept_secret(wrong: Any) -> None:
    with pytest.raises(DefinitionError, match="at least 6"):
        keep_secret(wrong)


async def test_a_secret_that_begins_another_and_one_that_is_forgotten(kept: None) -> None:
    keep_secret("secret", "secret-of-more", from_model=True)
    keep_secret("secret")
    try:
        assert hidden_from_model("a secret-of-more b") == f"a {HIDDEN} b"
        assert hidden({"secret": ["secret"]}) == {HIDDEN: [HIDDEN]}
    finally:
        forget_secret("secret", "secret-of-more", "never-kept")
    assert hidden("secret-of-more") == "secret-of-more"


@pytest.mark.fault("B25")
async def test_the_environment_is_nobodys_business(
    carrier: str,
    watch: Watch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "DATABASE_URL"):
        monkeypatch.setenv(name, CANARY)

    async def look() -> str:
        return "saw"

    played = await play(carrier, Agent("w", tools=[look]), [use("look")], "ok", on_event=watch.sink)
    assert CANARY not in watch.kept(played) + watch.told()


@pytest.mark.fault("B25", on=(PROVIDER,))
@pytest.mark.parametrize("provider", [AnthropicProvider, OpenAIChatProvider, OpenAIProvider])
async def test_a_key_and_a_password_in_the_address(
    carrier: str,
    provider: Any,
    watch: Watch,
) -> None:
    model = provider(
        "model-1",
        api_key=f"sk-{CANARY}",
        base_url=f"http://me:{CANARY}@127.0.0.1:9/v1?key={CANARY}",
        retry=Retry(attempts=2, max_wait=0.01),
    )
    async with model:
        result = await Agent("worker").run("Go", provider=model, on_event=watch.sink)
    shown = f"{result!r}{result.error}{model!r}{model.name}"
    assert CANARY not in shown + watch.kept(Played(runs={"0": result.run}))
    assert CANARY not in watch.told()


# The SDK's HTTP server and client leave generators behind that trio complains about.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <async_generator object")
@pytest.mark.fault("B25", on=(STORED,))
@pytest.mark.timeout(10)
async def test_headers_of_a_request(carrier: str, watch: Watch) -> None:
    server = serving(Agent("worker", tools=[raises]), carrier, on_event=watch.sink)
    with serving_http(server.streamable_http_app) as url:
        async with httpx2.AsyncClient() as client:
            request = post_of("worker", GO)
            request["headers"] |= {
                "authorization": f"Bearer {CANARY}",
                "cookie": f"session={CANARY}",
                "x-api-key": CANARY,
            }
            first = result_of(await client.post(url, **request))
            answers = {"0:0": says(calls("raises"))}
            again = post_of("worker", GO, answers=answers, state=first["requestState"])
            again["headers"] |= request["headers"]
            second = result_of(await client.post(url, **again))
    logging.getLogger("httpx2").debug("done")
    assert CANARY not in json.dumps([first, second]) + watch.kept(Played())
    assert CANARY not in watch.told()


class Form(BaseModel):
    city: str


@pytest.mark.fault("B25")
async def test_what_a_person_says_is_for_the_tool_alone(carrier: str, watch: Watch) -> None:
    """The tool got it, and said nothing of it; a secret is given on a page, and never comes by."""
    got: list[str] = []

    @tool
    async def deliver() -> str:
        got.append((await ask_user("Where to?", Form)).city)
        await ask_url("Sign in", "https://example.com/connect?state=abc")
        return "delivered"

    async def user(params: Any) -> ElicitResult:
        if params.mode == "url":
            return ElicitResult(action="accept", content={"password": CANARY})
        return ElicitResult(action="accept", content={"city": CANARY})

    agent = Agent("worker", tools=[deliver])
    played = await play(
        carrier, agent, [use("deliver")], "ok",
        on_event=watch.sink, user=user, capabilities=PEOPLE,
    )  # fmt: skip
    assert played.results == [("delivered", False)]
    assert got[-1] == CANARY
    assert CANARY not in watch.kept(played) + watch.told()


@pytest.mark.fault("B25", on=(PROVIDER,))
async def test_what_breaks_in_a_sink_or_a_provider(
    carrier: str, logs: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    def sink(event: Event) -> None:
        raise ValueError(CANARY)

    broken = ScriptedProvider(ValueError(CANARY))
    result = await Agent("worker").run("Go", provider=broken, on_event=sink)
    assert CANARY not in f"{result.error}{logs}{caplog.text}"
    assert {"event_sink_failed", "provider_broke_its_contract"} <= {line["event"] for line in logs}

    answered = await sampling_callback(ScriptedProvider(ValueError(CANARY)))(
        None,  # type: ignore[arg-type]
        (await _request()),
    )
    assert CANARY not in f"{answered!r}{logs}"


async def _request() -> Any:
    provider = ScriptedProvider("hi")
    await Agent("worker").run("Go", provider=provider)
    return provider.requests[0]


@pytest.mark.fault("B25", on=(STORED,))
async def test_what_breaks_in_a_reconcile(carrier: str, logs: list[Any]) -> None:
    async def lost(key: str) -> str:
        raise ValueError(CANARY)

    @tool(reconcile=lost)
    async def pay() -> str:
        raise AssertionError("claimed before, so not to be run")

    class Claimed(MemoryStore):
        async def claim(self, round: Any, key: str) -> Any:
            await super().claim(round, key)
            return await super().claim(round, key)

    server = serving(Agent("worker", tools=[pay]), carrier, store=Claimed())
    model = Model([use("pay")], "ok")
    async with connected(server, model.answer, modern=True) as wire:
        await wire.call("worker", GO)
        assert CANARY not in f"{wire.written}{logs}"
    assert "Unknown outcome" in str(model.requests[-1])
    assert "reconcile_failed" in {line["event"] for line in logs}


@pytest.mark.fault("B25", on=(PUSH,))
async def test_what_a_handler_raises_is_not_for_its_client(carrier: str, logs: list[Any]) -> None:
    server: Server[Any] = Server("faults")

    @resumable
    async def function(
        ctx: ServerRequestContext[Any, Any], params: CallToolRequestParams
    ) -> CallToolResult:
        raise ValueError(CANARY)

    server.add_request_handler("tools/call", CallToolRequestParams, function)
    for modern in (False, True):
        async with connected(server, Model().answer, modern=modern, capabilities={}) as wire:
            with pytest.raises(Rejected) as rejected:
                await wire.round("function")
            assert rejected.value.code == -32603
            assert CANARY not in f"{wire.written}{logs}"


async def test_structlog_as_it_comes_prints_no_canary(capsys: pytest.CaptureFixture[str]) -> None:
    """Without any configuration structlog prints every level."""
    structlog.reset_defaults()
    provider = ScriptedProvider([use("raises"), use("leaves")], "sorry")
    agent = Agent("worker", tools=[raises, leaves])
    await agent.run("Go", provider=provider, on_event=StructLog())
    out, err = capsys.readouterr()
    assert "tool_failed" in out + err
    assert CANARY not in out + err
