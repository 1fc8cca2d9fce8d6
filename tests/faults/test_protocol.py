"""What the specifications ask for, where no fault is needed to see it; see ``requirements.py``."""

from __future__ import annotations

import ast
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import anyio
import httpx2
import pytest
from mcp import Client
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import InvalidSignature
from mcp.server.streamable_http import EventMessage, EventStore
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    CompleteRequestParams,
    CreateMessageRequest,
    CreateMessageRequestParams,
    InputRequiredResult,
    ListToolsResult,
    PaginatedRequestParams,
    SamplingMessage,
    TextContent,
    ToolAnnotations,
)
from mcp_types import Tool as ListedTool
from pydantic import BaseModel, Field

import agentloop
from agentloop import Agent, Limits, Tool, ask_url, ask_user, tool
from agentloop.errors import DefinitionError
from agentloop.mcp import mount, resumable, seal, tools_from
from agentloop.run import Stop
from agentloop.testing import MockClient
from agentloop_providers import ScriptedProvider
from agentloop_providers.scripted import use
from tests.faults.http import (
    envelope,
    events_of,
    line,
    post_of,
    result_of,
    serving_http,
    session_of_2025,
)
from tests.faults.kit import (
    GO,
    PUSH,
    ROUNDS,
    Model,
    Raw,
    calls,
    each,
    each_client,
    in_rounds,
    play,
    says,
    serving,
    text,
)
from tests.faults.wire import PEOPLE, SAMPLING, Refuse, Rejected, connected

pytestmark = pytest.mark.usefixtures("no_leaks")

# The SDK's HTTP server and client leave generators behind that trio complains about.
over_http = pytest.mark.filterwarnings("ignore:Exception ignored in. <async_generator object")


@tool
async def add(a: int) -> int:
    """Add one."""
    return a + 1


class Form(BaseModel):
    city: str


@tool
async def where() -> str:
    """Ask where to."""
    return (await ask_user("Where to?", Form)).city


@tool
async def sign_in() -> str:
    """Ask to sign in."""
    await ask_url("Sign in", "https://example.com/connect?state=abc")
    return "signed in"


async def person(params: Any) -> Any:
    content = {"city": "Rome"} if params.mode == "form" else None
    return Raw({"action": "accept"} | ({"content": content} if content else {}))


WORDS = text("ok")


# --- sampling ----------------------------------------------------------------------------------


@each_client
async def test_S9_includeContext_is_never_on_the_wire(carrier: str) -> None:
    played = await play(carrier, Agent("worker", "Help.", tools=[add]), [use("add", a=1)], "ok")
    assert played.wire is not None
    asked = [params for method, params in played.wire.asked if method.startswith("sampling/")]
    assert len(asked) == 2
    assert all("maxTokens" in params and "includeContext" not in params for params in asked)


@each
async def test_S13_no_rule_is_in_the_system_prompt_alone(carrier: str) -> None:
    """What bounds a run is said in messages, tools and tool choice, and holds in any case."""
    agent = Agent("worker", "Help.", tools=[add], limits=Limits(steps=3))
    played = await play(carrier, agent, *[[use("add", a=n)] for n in (1, 2)], "ok")
    assert {request.system_prompt for request in played.requests} == {"Help."}
    said = [str(request.messages[-1]) for request in played.requests]
    assert ["last step" in words for words in said] == [False, False, True]
    assert played.requests[-1].tool_choice is not None
    assert played.requests[-1].tool_choice.mode == "none"


@each_client
@pytest.mark.parametrize("content", [WORDS, [WORDS]])
async def test_S15_one_block_and_a_list_of_one(carrier: str, content: Any) -> None:
    reply = Raw({"role": "assistant", "model": "m", "content": content})
    played = await play(carrier, Agent("worker", tools=[add]), reply)
    assert (played.stop, played.run.text) == (Stop.DONE, "ok")


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        (Refuse(-1, "User rejected sampling request"), "denied"),
        (Refuse(-32602, "tool result missing in request"), "bad_request"),
        (Refuse(-32603, "rate limit exceeded"), "overloaded"),
        (Refuse(-32603, "something else"), "provider"),
    ],
)
async def test_S17_errors_of_a_client_have_their_kinds(refusal: Refuse, code: str) -> None:
    played = await play(PUSH, Agent("worker"), refusal)
    assert (played.error, len(played.requests)) == (code, 1)


@over_http
@pytest.mark.timeout(10)
async def test_S19_asks_arrive_on_the_stream_of_their_call() -> None:
    """There is no other stream open that they could take."""
    agent = Agent("worker", tools=[where])
    with serving_http(serving(agent, PUSH).streamable_http_app) as url:
        async with httpx2.AsyncClient() as client:
            headers = await session_of_2025(client, url, PEOPLE)
            answers = iter(
                [says(calls("where")), {"action": "accept", "content": {"city": "Rome"}}]
            )
            asked: list[str] = []
            request = line("tools/call", {"name": "worker", "arguments": GO}, id=2)
            async with client.stream("POST", url, content=request, headers=headers) as stream:
                async for _, message in events_of(stream):
                    if "method" not in message:
                        break
                    asked.append(message["method"])
                    answer = next(answers, says(WORDS))
                    reply = {"jsonrpc": "2.0", "id": message["id"], "result": answer}
                    await client.post(url, content=json.dumps(reply), headers=headers)
    assert message["result"]["structuredContent"] == {"result": "ok"}
    assert asked == ["sampling/createMessage", "elicitation/create", "sampling/createMessage"]


@in_rounds
async def test_S20_N3_H7_M11_E8_what_a_server_writes(carrier: str) -> None:
    """In 2026-07-28: progress and results, each with its kind. No request, log or cancellation."""
    agent = Agent("worker", tools=[add, where, sign_in])
    uses = [use("add", a=1), use("where"), use("sign_in"), use("nothing")]
    played = await play(carrier, agent, uses, "ok", user=person, capabilities=PEOPLE)
    assert played.wire is not None
    written = [json.loads(line) for line in played.wire.written]
    results = [message["result"] for message in written if "result" in message]
    assert [result["resultType"] for result in results] == ["input_required"] * 3 + ["complete"]
    assert all("result" in message or "method" in message for message in written)
    assert {m["method"] for m in written if "method" in m} <= {"notifications/progress"}
    assert not any("-32042" in line or "-32002" in line for line in played.wire.written)


# --- tools -------------------------------------------------------------------------------------


def with_schema(**schema: Any) -> Tool:
    return Tool(
        name="t",
        description="",
        input_schema={"type": "object", **schema},
        fn=add.fn,
        check=lambda arguments: arguments,
    )


@pytest.mark.parametrize(
    ("dialect", "known"),
    [
        ("https://json-schema.org/draft/2020-12/schema", True),
        ("https://json-schema.org/draft/2020-12/schema#", True),
        ("http://json-schema.org/draft-07/schema#", True),
        ("http://json-schema.org/draft-03/schema#", False),
        ("https://example.com/mine", False),
        ("", False),
        (7, False),
    ],
)
async def test_T2_dialects_of_schemas(dialect: Any, known: bool) -> None:
    if known:
        assert with_schema(**{"$schema": dialect}).offer().input_schema["$schema"] == dialect
        return
    with pytest.raises(DefinitionError, match=r"tool 't'.*dialect.*2020-12"):
        with_schema(**{"$schema": dialect})


async def test_T4_a_listed_schema_that_nests_too_deeply() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(40):
        schema = {"type": "object", "properties": {"a": schema}}
    server: Server[Any] = Server("remote")

    async def on_list(ctx: ServerRequestContext[Any, Any], params: Any) -> ListToolsResult:
        return ListToolsResult(tools=[ListedTool(name="look", input_schema=schema)])

    server.add_request_handler("tools/list", PaginatedRequestParams, on_list)
    async with Client(server) as client:
        with pytest.raises(DefinitionError, match="nests too deeply"):
            await tools_from(client)


@each_client
async def test_T6_wrong_input_of_a_mounted_agent(carrier: str) -> None:
    """An error of the tool, that a model can read, and not one of the protocol."""
    said: list[str] = []
    for wrong in ({}, {"prompt": 7}):
        server = serving(Agent("worker"), carrier)
        async with connected(server, Model().answer, modern=carrier != PUSH) as wire:
            result = await wire.call("worker", wrong)
        assert result["isError"]
        said.append(result["content"][0]["text"])
    assert said == ["prompt: required, a text"] * 2


@each_client
async def test_T7_an_unknown_tool_is_invalid_params(carrier: str) -> None:
    server = serving(Agent("worker"), carrier)
    async with connected(server, Model().answer, modern=carrier != PUSH) as wire:
        with pytest.raises(Rejected, match="Unknown tool") as rejected:
            await wire.call("nothing")
    assert rejected.value.code == -32602


async def test_T8_a_result_that_violates_its_schema() -> None:
    server = MCPServer("host", log_level="CRITICAL")

    @server.tool()
    @resumable
    async def report(ctx: Context) -> Form:
        return {"town": "Rome"}  # type: ignore[return-value]

    async with MockClient(server, ScriptedProvider()) as client:
        result = await client.call_tool("report")
    assert result.is_error
    assert result.structured_content is None


@each_client
async def test_T10_listed_the_same_every_time(carrier: str) -> None:
    """On each connection, whoever asks and whatever happened before."""
    server = serving(Agent("worker", tools=[add]), carrier)
    mount(server, Agent("other", output=Form))
    listed: set[str] = set()
    for capabilities in (SAMPLING, PEOPLE, {}):
        model = Model("ok")
        modern = carrier != PUSH
        async with connected(
            server, model.answer, modern=modern, capabilities=capabilities
        ) as wire:
            for _ in range(30):
                listed.add(json.dumps((await wire.request("tools/list", {}))["tools"]))
            if capabilities == SAMPLING:
                await wire.call("worker", GO)
                listed.add(json.dumps((await wire.request("tools/list", {}))["tools"]))
    (only,) = listed
    assert [each["name"] for each in json.loads(only)] == ["worker", "other"]


async def test_T11_annotations_of_another_server_change_nothing() -> None:
    def remote(annotations: ToolAnnotations | None) -> MCPServer:
        server = MCPServer("remote", log_level="CRITICAL")

        @server.tool(annotations=annotations)
        async def delete(what: str) -> str:
            return f"deleted {what}"

        return server

    harmless = ToolAnnotations(read_only_hint=True, idempotent_hint=True, destructive_hint=False)
    (plain,) = await tools_from(remote(None))
    (claimed,) = await tools_from(remote(harmless))
    apart = ("fn", "check", "name")
    assert {k: v for k, v in vars(plain).items() if k not in apart} == {
        k: v for k, v in vars(claimed).items() if k not in apart
    }
    assert not claimed.idempotent


HEADER = Field(json_schema_extra={"items": {"type": "string", "x-mcp-header": "Name"}})


async def test_T14_a_header_of_a_parameter_inside_another() -> None:
    """The SDK refuses it for a resumable tool as for any other."""
    server = MCPServer("host", log_level="CRITICAL")

    @resumable
    async def report(names: Annotated[list[str], HEADER], ctx: Context) -> str:
        return "never"

    with pytest.raises(InvalidSignature, match="x-mcp-header"):
        server.add_tool(report)


# --- rounds ------------------------------------------------------------------------------------


async def test_M1_no_rounds_for_another_method() -> None:
    server: Server[Any] = Server("host")

    @resumable
    async def complete(ctx: ServerRequestContext[Any, Any], params: CompleteRequestParams) -> Any:
        return await Agent("worker").run("Go")

    server.add_request_handler("completion/complete", CompleteRequestParams, complete)
    seal(server)
    async with connected(server, Model().answer, modern=True) as wire:
        with pytest.raises(Rejected):
            await wire.request(
                "completion/complete",
                {
                    "ref": {"type": "ref/prompt", "name": "p"},
                    "argument": {"name": "a", "value": ""},
                },
            )
        assert "input_required" not in str(wire.written)


@in_rounds
async def test_M2_keys_and_kinds_of_what_is_asked(carrier: str) -> None:
    """Approvals, forms and pages of one turn leave together; no key is ever used twice."""
    pay = tool(name="pay", approve=True)(add.fn)
    agent = Agent("worker", tools=[where, sign_in, pay])
    model = Model([use("where"), use("sign_in"), use("pay", a=1), use("pay", a=2)], "ok")
    asked: list[dict[str, Any]] = []
    async with connected(
        serving(agent, carrier), model.answer, modern=True, capabilities=PEOPLE
    ) as wire:

        async def answers(method: str, params: Any) -> Any:
            if method != "elicitation/create":
                return await model.answer(method, params)
            content = {"city": "Rome"} if params["message"] == "Where to?" else None
            return {"action": "accept"} | ({"content": content} if content else {})

        wire.answers = answers
        result = await wire.round("worker", GO)
        while result["resultType"] == "input_required":
            assert result["requestState"]
            asked.append(result["inputRequests"])
            result = await wire.go_on(result, "worker", GO)
    assert result["structuredContent"] == {"result": "ok"}
    keys = [key for requests in asked for key in requests]
    assert len(keys) == len(set(keys)) == 6
    methods = [[request["method"] for request in requests.values()] for requests in asked]
    sampled = ["sampling/createMessage"]
    assert methods == [sampled, ["elicitation/create"] * 4, sampled]


async def test_M9_the_mock_client_echoes_the_state_under_a_new_id() -> None:
    seen: list[tuple[Any, Any]] = []
    server = serving(Agent("worker"), ROUNDS)  # which lists the tool; the call is served here

    async def on_call(ctx: ServerRequestContext[Any, Any], params: CallToolRequestParams) -> Any:
        seen.append((ctx.request_id, params.request_state))
        if len(seen) == 4:
            done = {"result": "done"}
            return CallToolResult(content=[TextContent(text="done")], structured_content=done)
        ask = CreateMessageRequest(
            params=CreateMessageRequestParams(
                messages=[SamplingMessage(role="user", content=TextContent(text="?"))],
                max_tokens=9,
            )
        )
        state = None if len(seen) == 2 else f"state {len(seen)} é"
        return InputRequiredResult(input_requests={"k": ask}, request_state=state)

    server.add_request_handler("tools/call", CallToolRequestParams, on_call)
    async with MockClient(server, ScriptedProvider("a", repeat=True), carrier="rounds") as client:
        await client.call_tool("worker", GO)
    ids, states = zip(*seen, strict=True)
    assert len(set(ids)) == 4
    assert states == (None, "state 1 é", None, "state 3 é")


# --- cancellation ------------------------------------------------------------------------------


@each_client
async def test_N1_N3_nothing_comes_for_a_cancelled_request(carrier: str) -> None:
    begun, ended = anyio.Event(), anyio.Event()

    @tool
    async def slow() -> str:
        begun.set()
        try:
            await anyio.sleep(30)
        finally:
            ended.set()
        return "never"

    model = Model([use("slow")])
    server = serving(Agent("worker", tools=[slow]), carrier)
    async with connected(server, model.answer, modern=carrier != PUSH) as wire:
        params: dict[str, Any] = {"name": "worker", "arguments": GO}
        if carrier != PUSH:
            first = await wire.round("worker", GO)
            params["inputResponses"] = await wire.answers_to(first)
            params["requestState"] = first["requestState"]
        params["_meta"] = {"progressToken": "p"}
        id = await wire.begin("tools/call", params)
        await begun.wait()
        await anyio.wait_all_tasks_blocked()
        before = len(wire.written)
        await wire.cancel(id)
        await ended.wait()
        await anyio.sleep(0.05)
        after = [json.loads(line) for line in wire.written[before:]]
    assert [message for message in after if "result" in message or "method" in message] == []
    if carrier != PUSH:
        assert after == []


# --- elicitation -------------------------------------------------------------------------------


@each_client
async def test_E8_only_2025_has_ids_for_urls(carrier: str) -> None:
    agent = Agent("worker", tools=[sign_in])
    played = await play(carrier, agent, [use("sign_in")], "ok", user=person, capabilities=PEOPLE)
    assert played.results == [("signed in", False)]
    assert played.wire is not None
    (params,) = [params for method, params in played.wire.asked if method == "elicitation/create"]
    assert params["mode"] == "url"
    assert bool(params.get("elicitationId")) is (carrier == PUSH)


# --- HTTP --------------------------------------------------------------------------------------


class Events(EventStore):
    """The events of all streams, in their order."""

    def __init__(self) -> None:
        self._events: list[tuple[str, Any]] = []

    async def store_event(self, stream_id: str, message: Any) -> str:
        self._events.append((stream_id, message))
        return str(len(self._events) - 1)

    async def replay_events_after(self, last_event_id: str, send_callback: Any) -> str | None:
        stream, _ = self._events[int(last_event_id)]
        for number, (of, message) in enumerate(self._events):
            if number > int(last_event_id) and of == stream and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream


@over_http
@pytest.mark.timeout(10)
async def test_H1_H2_a_stream_that_broke_is_taken_up_again() -> None:
    """A call whose stream breaks while its ask waits: the rest comes on another, and only that."""
    server = serving(Agent("worker"), PUSH)
    with serving_http(lambda: server.streamable_http_app(event_store=Events())) as url:
        async with httpx2.AsyncClient() as client:
            headers = await session_of_2025(client, url, SAMPLING)
            asks: dict[str, Any] = {}
            cursors: dict[str, str] = {}
            for number, prompt in enumerate(("one", "two"), 2):
                params = {"name": "worker", "arguments": {"prompt": prompt}}
                request = line("tools/call", params, id=number)
                async with client.stream("POST", url, content=request, headers=headers) as stream:
                    async for id, message in events_of(stream):
                        if not message:
                            primed = id
                            continue
                        cursors[prompt], asks[prompt] = id, message
                        break
                assert primed, "an event with an id and no data comes first"
            for prompt, number in (("two", 3), ("one", 2)):
                result = says(text(f"answer to {prompt}"))
                reply = {"jsonrpc": "2.0", "id": asks[prompt]["id"], "result": result}
                await client.post(url, content=json.dumps(reply), headers=headers)
                again = headers | {"last-event-id": cursors[prompt]}
                async with client.stream("GET", url, headers=again) as stream:
                    async for _, message in events_of(stream):
                        if message:
                            break
                assert message["id"] == number
                assert message["result"]["structuredContent"] == {"result": f"answer to {prompt}"}


@asynccontextmanager
async def served() -> AsyncGenerator[tuple[str, Any]]:
    """The address of a server with an agent that has a tool, and a client."""
    server = serving(Agent("worker", tools=[add]), ROUNDS)
    with serving_http(server.streamable_http_app) as url:
        async with httpx2.AsyncClient() as client:
            yield url, client


@over_http
@pytest.mark.timeout(10)
async def test_H3_a_request_of_another_origin() -> None:
    async with served() as (url, client):
        for name, value in (("origin", "https://evil.example"), ("host", "evil.example")):
            request = post_of("worker", GO)
            request["headers"] |= {name: value}
            answer = await client.post(url, **request)
            assert answer.status_code in (403, 421)
        assert (await client.post(url, **post_of("worker", GO))).status_code == 200


@over_http
@pytest.mark.timeout(10)
async def test_S2_H4_errors_over_http() -> None:
    async with served() as (url, client):

        async def code_of(request: dict[str, Any]) -> tuple[int, int]:
            answer = await client.post(url, **request)
            with pytest.raises(Rejected) as rejected:
                result_of(answer)
            return answer.status_code, rejected.value.code

        assert await code_of(post_of("worker", GO, capabilities={})) == (400, -32021)
        assert await code_of(post_of("worker", GO, capabilities={"sampling": {}})) == (400, -32021)
        for header, value in (("mcp-name", "other"), ("mcp-method", "tools/list")):
            request = post_of("worker", GO)
            request["headers"] |= {header: value}
            assert await code_of(request) == (400, -32020)
        for missing in envelope():
            if missing.endswith("clientInfo"):  # which is a SHOULD
                continue
            request = post_of("worker", GO)
            body = json.loads(request["content"])
            del body["params"]["_meta"][missing]
            request["content"] = json.dumps(body)
            assert await code_of(request) == (400, -32602)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_H5_no_error_code_is_invented() -> None:
    """All codes of the protocol's ranges come from the SDK by name; -32000 to -32768 are its."""
    files = list(Path(agentloop.__file__).parent.rglob("*.py"))
    found = [
        f"{file.name}:{node.lineno}"
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and node.value in range(32_000, 32_769)
    ]
    assert len(files) > 50
    assert found == []


@in_rounds
async def test_H9_two_calls_side_by_side_keep_apart(carrier: str) -> None:
    """Of the same tool, on the same connection, with the same arguments: the state tells them."""
    server = serving(Agent("worker", tools=[add]), carrier)
    async with connected(server, Model().answer, modern=True) as wire:
        first, second = [(await wire.round("worker", GO))["requestState"] for _ in range(2)]

        async def bring(state: str, key: str, *blocks: Any) -> Any:
            return await wire.round("worker", GO, answers={key: says(*blocks)}, state=state)

        second = (await bring(second, "0:0", calls("add", a=1)))["requestState"]
        done = await bring(first, "0:0", text("first"))
        assert done["structuredContent"] == {"result": "first"}
        done = await bring(second, "0:1", text("second"))
        assert done["structuredContent"] == {"result": "second"}
