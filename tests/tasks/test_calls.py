"""Calls that go on as tasks, on each host: what clients may rely on, requirement by requirement."""

from __future__ import annotations

import secrets
from typing import Any

import anyio
import pytest
from mcp import MCPError
from mcp.server.extension import Extension, MethodBinding
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    CreateMessageRequestParams,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    InputRequiredResult,
    RequestParams,
)
from pydantic import BaseModel, ConfigDict

from agentloop import Agent, Limits, ask_user, gather, tool
from agentloop.errors import DefinitionError
from agentloop.mcp import Tasks, detach, mount, resumable
from agentloop.mcp.request import IDEMPOTENCY_KEY
from agentloop.store import MemoryStore
from agentloop.testing import MockClient
from agentloop_providers import ScriptedProvider
from agentloop_providers.scripted import use
from tests.tasks.kit import HOSTS, JSON, answers_of, calling, on_mcpserver, refused, served

EXTENSION = "io.modelcontextprotocol/tasks"
GO = {"prompt": "go"}
NO_ROOM = {"reason": "too_many_tasks", "retryable": True}
every_host = pytest.mark.parametrize("host", HOSTS)
every_way = pytest.mark.parametrize("over", ["memory", "http"])

# The SDK's HTTP server and client leave generators behind that trio complains about.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <async_generator object")


SCHEMA = {"type": "object", "properties": {}}


class _AnyParams(RequestParams):
    model_config = ConfigDict(extra="allow")


class Person(BaseModel):
    name: str


async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def calc(**options: Any) -> Agent[Any]:
    return Agent("calc", tools=[add], **options)


def tasks_of(store: MemoryStore | None = None, **options: Any) -> Tasks:
    return Tasks(store or MemoryStore(), **{"look_every": 0.05, **options})


def steps_of(number: int) -> ScriptedProvider:
    """A model that takes so many steps, each with two tool calls, and then answers."""
    calls = [[use("add", a=n, b=1), use("add", a=n, b=2)] for n in range(number - 1)]
    return ScriptedProvider(*calls, "through")


# --- the requirements of SEP-2663 --------------------------------------------------------------


@every_host
@every_way
async def test_X1_no_client_gets_a_task_that_did_not_declare_them(host: str, over: str) -> None:
    """It is served as without tasks; where that cannot be, the error names what is missing."""
    server = HOSTS[host](tasks_of())
    mount(server, calc(), name="always", task="always")
    mount(server, calc(), name="required", task="required")

    with served(server, over) as at:
        async with calling(at, tasks=False) as client:
            assert (await client.call("always", GO))["resultType"] == "input_required"
            for asked in (
                client.call("required", GO),
                client.get("x"),
                client.update("x", {}),
                client.cancel("x"),
            ):
                error = await refused(asked)
                assert error.code == MISSING_REQUIRED_CLIENT_CAPABILITY
                assert error.data == {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}
        async with calling(at) as client:
            assert (await client.call("required", GO))["resultType"] == "task"


@every_host
@every_way
async def test_X2_a_task_is_there_before_its_id_is(host: str, over: str) -> None:
    store = MemoryStore()
    server = HOSTS[host](tasks_of(store))
    mount(server, calc(), task="always")
    with served(server, over) as at:
        async with calling(at) as client:
            id = await client.task("calc", GO)
            assert await store.tasks.read(id) is not None
            assert (await client.get(id))["taskId"] == id


@every_host
@every_way
async def test_X3_keys_are_never_used_twice_and_thirty_asks_are_no_problem(
    host: str, over: str
) -> None:
    """There is no cap on the rounds of a task: the limit of rounds does not count here."""
    server = HOSTS[host](tasks_of())
    mount(server, calc(limits=Limits(steps=40)), task="always")
    model = steps_of(30)
    seen: list[str] = []
    with served(server, over) as at:
        async with calling(at) as client:
            id = await client.task("calc", GO)
            while (news := await client.until(id, "input_required", "completed"))["status"] != (
                "completed"
            ):
                assert (await client.get(id))["inputRequests"] == news["inputRequests"]
                seen.extend(news["inputRequests"])
                await client.update(id, await answers_of(model, news["inputRequests"]))
        model.finish()
        assert len(seen) == len(set(seen)) == 30
        assert news["result"]["structuredContent"] == {"result": "through"}
        assert "inputRequests" not in news


async def test_X3_all_that_is_open_is_asked_at_once() -> None:
    """Agents that wait at the same time, and a question to a person, are asked together."""
    server = on_mcpserver(tasks_of())

    @server.tool()
    @resumable(task="always")
    async def both(ctx: Context) -> str:
        one, other, person = await gather(
            calc().run("one"), calc().run("other"), ask_user("Who?", Person)
        )
        return f"{one.text} {other.text} {person.name}"

    async with calling(server) as client:
        id = await client.task("both")
        asked = await client.asked(id)
        kinds = sorted(ask["method"] for ask in asked.values())
        assert kinds == ["elicitation/create", *["sampling/createMessage"] * 2]
        answers = {
            key: {"action": "accept", "content": {"name": "Ada"}}
            if ask["method"].startswith("elicitation")
            else (await answers_of(ScriptedProvider("done"), {key: ask}))[key]
            for key, ask in asked.items()
        }
        await client.update(id, answers)
        news = await client.until(id, "completed")
    assert news["result"]["structuredContent"] == {"result": "done done Ada"}


@every_host
@every_way
async def test_X4_answers_count_once_and_those_that_nobody_wants_are_ignored(
    host: str, over: str
) -> None:
    """The same update five times, keys that were never asked, and garbage under them."""
    asks: list[str] = []
    server = HOSTS[host](tasks_of())
    mount(server, calc(), task="always")

    def note(request: CreateMessageRequestParams) -> Any:
        asks.append(request.messages[-1].role)
        return "done" if len(asks) > 1 else use("add", a=1, b=1)

    model = ScriptedProvider(note, repeat=True)
    with served(server, over) as at:
        async with calling(at) as client:
            id = await client.task("calc", GO)
            first = await answers_of(model, await client.asked(id))
            ignored = {"never": {"x": 1}, "asked": None, "0:7": "text"}
            assert (await client.update(id, ignored))["resultType"] == "complete"
            assert list(await client.asked(id)) == list(first)
            for _ in range(5):
                await client.update(id, {**first, **ignored})
            second = await client.asked(id)
            assert not second.keys() & first.keys()
            await client.update(id, first)
            assert await client.asked(id) == second
            news = await client.finish(id, model)
            await client.update(id, first)
            assert (await client.get(id))["result"] == news["result"]
        assert news["result"]["_meta"]["dev.agentloop/result"]["steps"] == 2
        assert news["result"]["_meta"]["dev.agentloop/result"]["tool_calls"] == 1


async def test_X4_a_part_of_the_answers_leaves_the_rest_open() -> None:
    server = on_mcpserver(tasks_of())

    @server.tool()
    @resumable(task="always")
    async def two(ctx: Context) -> str:
        one, other = await gather(calc().run("one"), calc().run("other"))
        return one.text + other.text

    async with calling(server) as client:
        id = await client.task("two")
        asked = await client.asked(id)
        one, other = asked
        await client.update(id, await answers_of(ScriptedProvider("A"), {one: asked[one]}))
        left = await client.get(id)
        assert left["status"] == "input_required"
        assert left["inputRequests"] == {other: asked[other]}
        # Who has answered once does not get to change the answer.
        again = await answers_of(ScriptedProvider("Z"), {one: asked[one]})
        last = await answers_of(ScriptedProvider("B"), {other: asked[other]})
        await client.update(id, {**again, **last})
        news = await client.until(id, "completed")
    assert sorted(news["result"]["structuredContent"]["result"]) == ["A", "B"]


async def test_X4_what_is_no_answer_to_what_was_asked_is_refused() -> None:
    """The task goes on waiting; an answer of another kind is the run's to deal with."""
    server = on_mcpserver(tasks_of())
    mount(server, calc(), task="always")
    async with calling(server) as client:
        id = await client.task("calc", GO)
        [key] = await client.asked(id)
        for nonsense in ({"no": "answer"}, None, 3, []):
            error = await refused(client.update(id, {key: nonsense}))
            assert error.code == INVALID_PARAMS
            assert key in error.message
        assert list(await client.asked(id)) == [key]


async def test_X5_only_errors_of_the_protocol_fail_a_task() -> None:
    """What a tool reports as its error is the result of a task that completed."""
    tools: Any = {"breaks": "always", "refuses": "always", "unknown": "always"}
    server = on_mcpserver(tasks_of(tools=tools))

    @server.tool()
    async def breaks() -> str:
        raise ToolError("it broke")

    @server.tool()
    async def refuses() -> str:
        raise MCPError(code=-32050, message="no", data={"why": "so"})

    async with calling(server) as client:
        broken = await client.until(await client.task("breaks"), "completed", "failed")
        refusal = await client.until(await client.task("refuses"), "completed", "failed")
    assert (broken["status"], broken["result"]["isError"]) == ("completed", True)
    assert "it broke" in broken["result"]["content"][0]["text"]
    assert "error" not in broken
    assert refusal["status"] == "failed"
    assert refusal["error"] == {"code": -32050, "message": "no", "data": {"why": "so"}}
    assert "result" not in refusal


@every_host
@every_way
async def test_X6_ids_cannot_be_guessed_and_unknown_ones_are_all_the_same(
    host: str, over: str
) -> None:
    server = HOSTS[host](tasks_of(ttl=0.1))
    mount(server, calc(), task="always")
    with served(server, over) as at:
        async with calling(at) as client:
            ids = [await client.task("calc", GO) for _ in range(5)]
            assert len(set(ids)) == 5
            assert min(len(id) for id in ids) >= len(secrets.token_urlsafe(16)), "128 bits"
            assert not {id[:6] for id in ids[1:]} & {ids[0][:6]}
            await anyio.sleep(0.15)
            for id in (ids[0], "never", "", "\u2603" * 1000):
                for asked in (client.get(id), client.update(id, {}), client.cancel(id)):
                    error = await refused(asked)
                    assert (error.code, error.message) == (INVALID_PARAMS, "there is no such task")


@every_host
@every_way
async def test_X7_tasks_say_nothing_but_what_they_are_asked_for(host: str, over: str) -> None:
    """No progress, no log messages; what was there in 2025-11-25 is not."""
    heard: list[Any] = []

    async def hear(message: Any) -> None:
        heard.append(message)

    server = HOSTS[host](tasks_of())
    mount(server, calc(), task="always")
    mount(server, calc(), name="sync", task="never")
    with served(server, over) as at:
        async with calling(at, message_handler=hear) as client:
            handle = await client.client.session.call_tool(
                "calc",
                GO,
                progress_callback=lambda *_: heard.append("progress"),
                allow_claimed=True,
            )
            await client.finish(handle.task_id, steps_of(3))  # type: ignore[union-attr]
            for removed in ("tasks/result", "tasks/list"):
                assert (await refused(client.request(removed, taskId="x"))).code == METHOD_NOT_FOUND
            hinted = await client.request(
                "tools/call", name="sync", arguments=GO, task={"ttl": 60_000}, taskId="sync"
            )
            assert hinted["resultType"] == "input_required"
        assert heard == []


@every_host
@every_way
async def test_X8_rounds_come_before_the_task(host: str, over: str) -> None:
    """What is asked by rounds is settled first; the handle says nothing of it."""
    server = HOSTS[host](tasks_of())
    limits = Limits(steps=20, rounds=2)
    mount(server, calc(limits=limits), task="when_needed")
    model = steps_of(6)
    with served(server, over) as at:
        async with calling(at) as client:
            came = await client.call("calc", GO)
            for _ in range(2):
                assert came["resultType"] == "input_required"
                assert "taskId" not in came
                answers = await answers_of(model, came["inputRequests"])
                came = await client.call("calc", GO, answers=answers, state=came["requestState"])
            assert came["resultType"] == "task"
            assert not came.keys() & {"requestState", "inputRequests", "result", "error"}
            news = await client.finish(came["taskId"], model)
        model.finish()
        assert news["result"]["_meta"]["dev.agentloop/result"]["steps"] == 6
        assert news["result"]["structuredContent"] == {"result": "through"}


# --- when a call becomes a task ----------------------------------------------------------------


@every_host
@pytest.mark.parametrize(
    ("task", "kind"),
    [("never", "input_required"), ("when_needed", "input_required"), ("always", "task")],
)
@pytest.mark.parametrize("stored", [False, True])
async def test_the_author_says_when_a_call_becomes_a_task(
    host: str, task: Any, kind: str, stored: bool
) -> None:
    """With a store of its own, or with that of the tasks."""
    server = HOSTS[host](tasks_of())
    mount(server, calc(), task=task, store=MemoryStore() if stored else None)
    async with calling(server) as client:
        assert (await client.call("calc", GO))["resultType"] == kind
    with steps_of(3) as model:
        async with MockClient(server, model, carrier="task") as mock:
            result = await mock.call_tool("calc", GO)
    assert result.structured_content == {"result": "through"}
    assert bool(mock.news) == (kind == "task")


@pytest.mark.parametrize("stored", [False, True])
async def test_a_run_that_must_never_be_a_task_ends_within_its_rounds(stored: bool) -> None:
    """And one that may becomes one after them, without having been told to hurry."""
    server = on_mcpserver(tasks_of())
    limits = Limits(steps=30, rounds=4)
    store = MemoryStore() if stored else None
    mount(server, calc(limits=limits), name="never", task="never", store=store)
    mount(server, calc(limits=limits), name="needed", store=store)
    hurry = ScriptedProvider(
        lambda request: "in a hurry" if _no_more_tools(request) else use("add", a=1, b=2),
        repeat=True,
    )
    with steps_of(12) as model:
        async with MockClient(server, hurry, carrier="task") as mock:
            hurried = await mock.call_tool("never", GO)
            assert (mock.rounds, mock.news) == (4, [])
        async with MockClient(server, model, carrier="task") as mock:
            result = await mock.call_tool("needed", GO)
            assert mock.rounds == 4
            assert mock.news
    assert hurried.structured_content == {"result": "in a hurry"}
    assert result.structured_content == {"result": "through"}


def _no_more_tools(request: CreateMessageRequestParams) -> bool:
    return request.tool_choice is not None and request.tool_choice.mode == "none"


@pytest.mark.parametrize("stored", [False, True])
async def test_a_function_detaches_where_the_long_part_begins(stored: bool) -> None:
    """What was asked before is answered by rounds, and is known in the task."""
    server = on_mcpserver(tasks_of())

    @server.tool()
    @resumable(store=MemoryStore() if stored else None)
    async def work(ctx: Context) -> str:
        person = await ask_user("Who?", Person)
        await detach()
        await detach()  # the second one has nothing left to do
        return f"{person.name}: {(await calc().run('go')).text}"

    async with calling(server) as client:
        came = await client.call("work")
        [key] = came["inputRequests"]
        answer = ElicitResult(action="accept", content={"name": "Ada"})
        answered: Any = {"answers": {key: answer}, "state": came["requestState"]}
        handle = await client.call("work", **answered)
        assert handle["resultType"] == "task"
        # A client that never got the handle sends the round again, and gets the same task.
        assert (await client.call("work", **answered))["taskId"] == handle["taskId"]
        news = await client.finish(handle["taskId"], ScriptedProvider("done"))
        assert news["result"]["structuredContent"] == {"result": "Ada: done"}
    async with calling(server, tasks=False) as client:  # which cannot have it: nothing happens
        came = await client.call("work")
        came = await client.call("work", answers={key: answer}, state=came["requestState"])
        assert came["resultType"] == "input_required"
        assert [ask["method"] for ask in came["inputRequests"].values()] == [
            "sampling/createMessage"
        ]


@pytest.mark.parametrize("stored", [False, True])
async def test_a_call_that_became_a_task_is_kept_as_long_as_the_task(stored: bool) -> None:
    """However short calls are kept that wait for their client by rounds."""
    store = MemoryStore(keep=0.1)
    server = on_mcpserver(tasks_of(store))

    @server.tool()
    @resumable(store=store if stored else None)
    async def work(ctx: Context) -> str:
        await detach()
        one, other = await gather(calc().run("one"), ask_user("Who?", Person))
        return f"{one.text} {other.name}"

    async with calling(server) as client:
        id = await client.task("work")
        asked = await client.asked(id)
        await anyio.sleep(0.25)
        await store.sweep()
        answers = await answers_of(ScriptedProvider("done"), asked)
        for key, ask in asked.items():
            if ask["method"] == "elicitation/create":
                answers[key]["content"] = {"name": "Ada"}
        await client.update(id, answers)
        news = await client.until(id, "completed", "failed")
    assert news["status"] == "completed", news
    assert news["result"]["structuredContent"] == {"result": "done Ada"}


async def test_the_same_key_is_the_same_task() -> None:
    """Also from another connection; with other arguments it is another one."""
    server = on_mcpserver(tasks_of())
    mount(server, calc(), task="always")
    named = {"meta": {IDEMPOTENCY_KEY: "k"}}
    async with calling(server) as client:
        first = await client.task("calc", GO, **named)
        assert await client.task("calc", GO, **named) == first
        await client.finish(first, ScriptedProvider("done"))
        assert await client.task("calc", GO, **named) == first
        assert await client.task("calc", {"prompt": "other"}, **named) != first
    async with calling(server) as client:
        assert await client.task("calc", GO, **named) == first


@every_host
@every_way
async def test_a_call_that_there_is_no_room_for_is_told_so_and_may_come_again(
    host: str, over: str
) -> None:
    """Nothing is kept of it. A call that is a task already needs no room."""
    store = MemoryStore()
    server = HOSTS[host](tasks_of(store, most_open=1))
    mount(server, calc(), task="always")
    named = {"meta": {IDEMPOTENCY_KEY: "k"}}
    with served(server, over) as at:
        async with calling(at) as client:
            first = await client.task("calc", GO, **named)
            error = await refused(client.call("calc", GO))
            assert (error.code, error.data) == (INTERNAL_ERROR, NO_ROOM)
            assert error.message == (
                "as many tasks are open as there may be: 1; "
                "send the same request again when some have ended"
            )
            assert [task.id for task in await store.tasks.list()] == [first]
            assert await client.task("calc", GO, **named) == first
            await client.cancel(first)
            assert await client.task("calc", GO) != first


@pytest.mark.parametrize("stored", [False, True])
async def test_a_run_that_outgrew_its_rounds_loses_nothing_where_there_is_no_room(
    stored: bool,
) -> None:
    """The round that would have made it a task may be sent again until there is room."""
    server = on_mcpserver(tasks_of(most_open=1))
    mount(server, calc(), name="first", task="always")
    store = MemoryStore() if stored else None
    mount(server, calc(limits=Limits(rounds=1)), name="long", store=store)
    with steps_of(3) as model:
        async with calling(server) as client:
            first = await client.task("first", GO)
            came = await client.call("long", GO)
            answers = await answers_of(model, came["inputRequests"])
            again: Any = {"answers": answers, "state": came["requestState"]}
            for _ in range(2):
                error = await refused(client.call("long", GO, **again))
                assert (error.code, error.data) == (INTERNAL_ERROR, NO_ROOM)
            await client.cancel(first)
            news = await client.finish(await client.task("long", GO, **again), model)
    assert news["result"]["structuredContent"] == {"result": "through"}


@pytest.mark.parametrize("name", ["most_open", "most_open_per_principal"])
async def test_there_is_room_for_one_task_at_least(name: str) -> None:
    with pytest.raises(DefinitionError, match=f"^{name}=0 is not 1 or more$"):
        tasks_of(**{name: 0})


async def test_nobody_at_work_is_the_authors_mistake(caplog: pytest.LogCaptureFixture) -> None:
    """A server without the lifespan gives no handle to a task that nobody would go on with."""
    server = MCPServer("host", extensions=[tasks_of()])
    mount(server, calc(), task="always")
    async with calling(server) as client:
        assert (await client.call("calc", GO))["isError"]
    assert "lifespan=tasks.lifespan()" in caplog.text


# --- what goes on in a task --------------------------------------------------------------------


@every_host
async def test_approvals_reach_the_person_behind_the_task(host: str) -> None:
    sent: list[str] = []

    @tool(approve=True)
    async def send(to: str) -> str:
        """Send it."""
        sent.append(to)
        return "sent"

    server = HOSTS[host](tasks_of())
    mount(server, Agent("sender", tools=[send]), task="always")

    async def agrees(params: Any) -> ElicitResult:
        return ElicitResult(action="accept", content={})

    with ScriptedProvider([use("send", to="Ada"), use("send", to="Bob")], "done") as model:
        async with MockClient(server, model, carrier="task", user=agrees) as mock:
            result = await mock.call_tool("sender", GO)
    assert result.structured_content == {"result": "done"}
    assert (sorted(sent), len(mock.questions)) == (["Ada", "Bob"], 2)


async def test_a_client_that_denies_an_ask_has_cancelled_the_task() -> None:
    store = MemoryStore()
    server = on_mcpserver(tasks_of(store))
    mount(server, calc(), task="always")
    async with MockClient(server, steps_of(3), carrier="task", denies={2}) as mock:
        with pytest.raises(MCPError, match=r"rejected|denied|declined"):
            await mock.call_tool("calc", GO)
    [task] = await store.tasks.list()
    assert task.status == "cancelled"


async def test_a_provider_of_the_servers_answers_in_the_task() -> None:
    """Then there is nothing to ask, and the call goes on by itself."""
    server = on_mcpserver(tasks_of())
    with steps_of(4) as model:
        mount(server, calc(), task="always", provider=model)
        async with MockClient(server, carrier="task") as mock:
            result = await mock.call_tool("calc", GO)
    assert result.structured_content == {"result": "through"}


@pytest.mark.parametrize("host", ["MCPServer", "FastMCP"])
async def test_progress_is_the_status_message(host: str) -> None:
    """What a tool says of its progress, and what a run does, is what the task is doing."""
    server = HOSTS[host](tasks_of(tools={"slow": "always"}))
    go_on = anyio.Event()

    async def wait() -> str:
        """Wait."""
        await go_on.wait()
        return "waited"

    mount(server, Agent("waiter", tools=[wait]), task="always")
    if host == "MCPServer":

        @server.tool()
        async def slow(ctx: Context) -> str:
            await ctx.report_progress(1, 2, "half of it is done")
            await go_on.wait()
            return "done"
    else:
        from fastmcp import Context as TheirContext

        async def slow(ctx: TheirContext) -> str:  # type: ignore[no-redef]
            await ctx.report_progress(1, 2, "half of it is done")
            await go_on.wait()
            return "done"

        slow.__annotations__["ctx"] = TheirContext
        server.tool(slow)

    async with calling(server) as client:
        task, run = await client.task("slow"), await client.task("waiter", GO)
        await client.update(
            run, await answers_of(ScriptedProvider(use("wait")), await client.asked(run))
        )
        messages: dict[str, str] = {}
        with anyio.fail_after(5):
            while len(messages) < 2:
                for id in (task, run):
                    news = await client.get(id)
                    if message := news.get("statusMessage"):
                        messages[id] = message
                await anyio.sleep(0.05)
        go_on.set()
        assert (await client.until(task, "completed"))["result"]["content"][0]["text"] == "done"
    assert messages[task] == "half of it is done"
    assert messages[run]


async def test_a_tool_that_is_no_agent_asks_with_a_state_of_its_own() -> None:
    """Its own ``InputRequiredResult`` is asked through the task, and its state comes back."""
    server = on_mcpserver(tasks_of(tools={"survey": "always"}))

    @server.tool()
    async def survey(ctx: Context) -> InputRequiredResult | str:
        so_far = ctx.request_state or ""
        for answer in (ctx.input_responses or {}).values():
            assert isinstance(answer, ElicitResult)
            so_far += str((answer.content or {})["name"])
        if len(so_far) >= 3:
            return f"surveyed {so_far}"
        params = ElicitRequestFormParams(
            message="Who?",
            requested_schema={"type": "object", "properties": {"name": {"type": "string"}}},
        )
        key = f"q{len(so_far)}"
        return InputRequiredResult(
            input_requests={key: ElicitRequest(params=params)}, request_state=so_far
        )

    async with calling(server) as client:
        id = await client.task("survey")
        for name in "abc":
            [key] = await client.asked(id)
            await client.update(id, {key: {"action": "accept", "content": {"name": name}}})
        news = await client.until(id, "completed", "failed")
    assert news["status"] == "completed", news
    assert news["result"]["content"][0]["text"] == "surveyed abc"


async def test_a_function_that_was_changed_meanwhile_fails_with_a_reason() -> None:
    """A deploy between two rounds never mixes two versions of an agent."""
    store = MemoryStore()
    before, after = on_mcpserver(tasks_of(store)), on_mcpserver(tasks_of(store))
    mount(before, Agent("calc", "Add.", tools=[add]), task="always")
    mount(after, Agent("calc", "Add well.", tools=[add]), task="always")
    async with calling(before) as client:
        id = await client.task("calc", GO)
        answers = await answers_of(steps_of(2), await client.asked(id))
    async with calling(after) as client:
        await client.update(id, answers)
        news = await client.until(id, "completed", "failed")
    told = str(news.get("error") or news["result"]["content"])
    assert "have changed" in told
    assert "start the call again" in told


@every_host
async def test_an_unknown_tool_is_no_task(host: str) -> None:
    server = HOSTS[host](tasks_of(tools={"gone": "always"}))
    mount(server, calc(), task="always")
    async with calling(server) as client:
        news = await client.until(await client.task("gone"), "completed", "failed")
    assert "gone" in str(news.get("error") or news["result"])


class Slow(Extension):
    """Tasks of a server that takes a while to know what it was told."""

    identifier = EXTENSION

    def __init__(self) -> None:
        self.updates: list[JSON] = []
        self._asked = 0

    def methods(self) -> list[MethodBinding]:
        return [
            MethodBinding("tasks/get", _AnyParams, self._get),
            MethodBinding("tasks/update", _AnyParams, self._update),
        ]

    async def intercept_tool_call(self, params: Any, ctx: Any, call_next: Any) -> JSON:
        return {"resultType": "task", **self._now("working")}

    async def _get(self, ctx: Any, params: Any) -> JSON:
        self._asked += 1
        if self._asked > 4:
            return {**self._now("completed"), "result": {"content": []}}
        form = {"message": "?", "mode": "form", "requestedSchema": SCHEMA}
        ask = {"method": "elicitation/create", "params": form}
        return {**self._now("input_required"), "inputRequests": {"k": ask}}

    async def _update(self, ctx: Any, params: Any) -> JSON:
        self.updates.append(params.model_dump(by_alias=True)["inputResponses"])
        return {}

    def _now(self, status: str) -> JSON:
        then = "2026-01-01T00:00:00Z"
        return {
            "taskId": "t",
            "status": status,
            "createdAt": then,
            "lastUpdatedAt": then,
            "ttlMs": None,
        }


async def test_a_client_answers_once_what_a_slow_server_asks_on() -> None:
    """The person is not asked again while the answer is on its way."""
    slow = Slow()
    server = MCPServer("slow", extensions=[slow], log_level="CRITICAL")

    @server.tool()
    async def anything() -> str:
        return ""

    async def agrees(params: Any) -> ElicitResult:
        return ElicitResult(action="accept", content={})

    async with MockClient(server, carrier="task", user=agrees) as mock:
        result = await mock.call_tool("anything")
    assert result.content == []
    assert len(mock.questions) == 1
    assert list(slow.updates[0]) == ["k"]
    assert len(slow.updates) == 1
