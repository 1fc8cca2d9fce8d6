"""Tasks of 2025-11-25 (SEP-1686): its requirements, each by its id, and what a client gets."""

from __future__ import annotations

import math
import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any

import anyio
import pytest
from mcp import Client, MCPError
from mcp.client import ClientRequestContext
from mcp.server.lowlevel import Server
from mcp.server.mcpserver import Context, MCPServer
from mcp_types import (
    CallToolResult,
    CreateMessageRequestParams,
    CreateTaskResult,
    GetTaskPayloadRequest,
    GetTaskPayloadRequestParams,
    GetTaskRequest,
    GetTaskRequestParams,
    GetTaskResult,
)
from pydantic import BaseModel

from agentloop import Agent, ToolError, ask_user, tool
from agentloop.mcp import Tasks, mount, resumable
from agentloop.mcp.callback import TOOLS, sampling_callback
from agentloop.mcp.tasks.call import low_level
from agentloop.mcp.tasks.legacy.methods import PAGE
from agentloop.mcp.tasks.legacy.wire import RELATED_TASK
from agentloop.mcp.tasks.principal import acting_for
from agentloop.provider import Provider
from agentloop.sql_store import SQLiteStore, SQLStore
from agentloop.store import MemoryStore, Store
from agentloop.task import Task
from agentloop.testing import MockClient
from agentloop_providers import ScriptedProvider
from agentloop_providers.scripted import use
from tests.faults.http import serving_http
from tests.faults.wire import JSON, PEOPLE, Refuse, Rejected, Wire, connected
from tests.test_streams import Events

pytestmark = pytest.mark.anyio

Answer = JSON | Refuse
DAY = 86_400_000


@tool
async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class Word(BaseModel):
    word: str


class Person(BaseModel):
    name: str


def agent() -> Agent[Any]:
    return Agent("adder", "Add.", tools=[add])


SUM = (use("add", id="s", a=1, b=2), "It is 3.")


class Model:
    """What a client answers: its model's words, and a person's name."""

    def __init__(self, *lines: Any, person: Answer | None = None) -> None:
        self._answer = sampling_callback(ScriptedProvider(*lines, repeat=True))
        self._person = person or {"action": "accept", "content": {"name": "Ada"}}

    async def __call__(self, method: str, params: JSON) -> Any:
        if method == "elicitation/create":
            return self._person
        assert method == "sampling/createMessage"
        context: Any = None
        said = await self._answer(context, CreateMessageRequestParams.model_validate(params))
        return said.model_dump(mode="json", by_alias=True, exclude_none=True)


async def refuses(method: str, params: JSON) -> Any:
    return Refuse()


async def is_silent(method: str, params: JSON) -> Any:
    await anyio.sleep(math.inf)


def a_server(
    store: Store | None = None, provider: Provider | None = None, **options: Any
) -> MCPServer:
    """Tools whose results are of every kind."""
    tasks = Tasks(store or MemoryStore(), poll=0.05, look_every=0.05, **options)
    server = MCPServer("tasks", extensions=[tasks], lifespan=tasks.lifespan())
    mount(server, agent())
    mount(server, Agent("typed", output=Word))
    mount(server, Agent("listed", output=list[int]), task="always")
    mount(server, Agent("sure"), task="required")
    mount(server, Agent("quick"), task="never")
    mount(server, Agent("own"), provider=ScriptedProvider("Mine.", repeat=True))

    @server.tool()
    @resumable
    async def greet(ctx: Context[Any, Any]) -> str:
        return "Hello " + (await ask_user("Who are you?", Person)).name

    @server.tool()
    @resumable
    async def fail(ctx: Context[Any, Any]) -> str:
        raise ToolError("It cannot be done.")

    @server.tool()
    async def foreign() -> str:
        return "no task"

    return server


@asynccontextmanager
async def wired(
    server: Any, model: Any = None, *, modern: bool = False, capabilities: JSON = PEOPLE
) -> AsyncGenerator[Wire]:
    answers = model or Model(*SUM)
    inner = low_level(server)
    async with connected(inner, answers, modern=modern, capabilities=capabilities) as wire:
        yield wire


async def begin(wire: Wire, name: str, arguments: JSON | None = None, **task: Any) -> JSON:
    """Call a tool as a task; what the server says of the task."""
    params: JSON = {"name": name, "arguments": arguments or {"prompt": "go"}, "task": task}
    params["_meta"] = {"progressToken": "p"}
    return (await wire.request("tools/call", params))["task"]


async def result(wire: Wire, task: JSON) -> JSON:
    return await wire.request("tasks/result", {"taskId": task["taskId"]})


async def get(wire: Wire, task: JSON) -> JSON:
    return await wire.request("tasks/get", {"taskId": task["taskId"]})


async def until(wire: Wire, task: JSON, status: str) -> JSON:
    with anyio.fail_after(10):
        while (seen := await get(wire, task))["status"] != status:  # noqa: ASYNC110
            await anyio.sleep(0.01)
    return seen


async def asked(wire: Wire) -> None:
    """Wait until the server has asked something."""
    with anyio.fail_after(5):
        while not wire.asked:  # noqa: ASYNC110
            await anyio.sleep(0.01)


async def error_of(request: Any) -> Rejected:
    with pytest.raises(Rejected) as rejected:
        await request
    return rejected.value


def plain(result: JSON) -> JSON:
    """A result without what differs from one call to the next, and without its task."""
    meta = {key: value for key, value in result.get("_meta", {}).items() if key != RELATED_TASK}
    for story in meta.values():
        story.pop("run_id", None)
    return {key: value for key, value in result.items() if key != "_meta"} | {"meta": meta}


def acting(who: str | None) -> AbstractContextManager[None]:
    return acting_for(who and {"client_id": "app", "scopes": [], "subject": who})  # type: ignore[arg-type]


# --- what a task gives --------------------------------------------------------------------------

CASES: dict[str, tuple[str, JSON, Callable[[], Any]]] = {
    "words": ("adder", {"prompt": "go"}, lambda: Model(*SUM)),
    "an object": ("typed", {"prompt": "go"}, lambda: Model([use("final_answer", word="yes")])),
    "a list": ("listed", {"prompt": "go"}, lambda: Model([use("final_answer", result=[1])])),
    "the server's own model": ("own", {"prompt": "go"}, lambda: Model("Theirs.")),
    "a person's answer": ("greet", {}, lambda: Model("-")),
    "a person's no": ("greet", {}, lambda: Model("-", person={"action": "decline"})),
    "nobody to ask": ("greet", {}, lambda: Model("-", person=Refuse())),
    "an error of the tool's": ("fail", {}, lambda: Model("-")),
    "a client that refuses": ("adder", {"prompt": "go"}, lambda: refuses),
    "wrong arguments": ("adder", {"wrong": 1}, lambda: Model("-")),
}


@pytest.mark.parametrize("case", CASES)
async def test_k3_the_result_of_a_task_is_that_of_the_call(case: str) -> None:
    name, arguments, model = CASES[case]
    async with wired(a_server(), model()) as wire:
        called = await wire.round(name, arguments)
        asked, wire.asked[:] = [method for method, _ in wire.asked], []
        task = await begin(wire, name, arguments)
        assert plain(await result(wire, task)) == plain(called)
        assert [method for method, _ in wire.asked] == asked
        assert plain(await result(wire, task)) == plain(called)  # as often as it is asked for
        ended = await get(wire, task)
    assert ended["status"] == ("failed" if called["isError"] else "completed")


async def test_k3_the_error_of_a_task_is_that_of_the_call() -> None:
    async with wired(a_server(), capabilities={}) as wire:
        called = await error_of(wire.round("adder", {"prompt": "go"}))
        task = await begin(wire, "adder")
        error = await error_of(result(wire, task))
        assert (error.code, error.message, error.data) == (
            called.code,
            called.message,
            called.data,
        )
        assert (await get(wire, task))["status"] == "failed"


async def test_k3_the_result_is_waited_for() -> None:
    release = anyio.Event()
    server = a_server()

    @server.tool()
    @resumable
    async def wait(ctx: Context[Any, Any]) -> str:
        await release.wait()
        return "waited"

    async with wired(server) as wire:
        task = await begin(wire, "wait", {})
        waiting = await wire.begin("tasks/result", {"taskId": task["taskId"]})
        await anyio.sleep(0.3)
        assert waiting not in wire._answers
        release.set()
        assert (await wire.answer_to(waiting))["content"][0]["text"] == "waited"


# --- its life -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_k1_tasks_begin_working_and_end_once(kind: str, tmp_path: Any) -> None:
    store = MemoryStore() if kind == "memory" else SQLiteStore(tmp_path / "tasks.db")
    async with wired(a_server(store)) as wire:
        begun = [await begin(wire, "adder") for _ in range(3)]
        assert [task["status"] for task in begun] == ["working"] * 3
        assert len({task["taskId"] for task in begun}) == 3
        for task in begun:
            await until(wire, task, "input_required")
            await result(wire, task)
            ended = await get(wire, task)
            assert ended["status"] == "completed"
            await error_of(wire.request("tasks/cancel", {"taskId": task["taskId"]}))
            assert await get(wire, task) == ended
        told = [note["params"] for note in wire.notes if "tasks/status" in note["method"]]
        assert {note["status"] for note in told} <= {"working", "input_required", "completed"}
        assert [note["status"] for note in told].count("completed") == 3
        assert {note["taskId"] for note in told} == {task["taskId"] for task in begun}
    if isinstance(store, SQLiteStore):
        await store.close()


async def test_k2_every_answer_has_the_times_and_the_actual_ttl() -> None:
    async with wired(a_server(ttl=90.0)) as wire:
        task = await begin(wire, "adder", ttl=60_000)
        await result(wire, task)
        for seen in (task, await get(wire, task)):
            assert seen["createdAt"] <= seen["lastUpdatedAt"]
            assert (seen["ttl"], seen["pollInterval"]) == (60_000, 50)
        GetTaskResult.model_validate(await get(wire, task))
        assert (await begin(wire, "adder"))["ttl"] == 90_000
    async with wired(a_server(ttl=None)) as wire:
        assert (await begin(wire, "adder"))["ttl"] is None


async def test_k4_whatever_belongs_to_a_task_says_so() -> None:
    server = a_server()

    @server.tool()
    @resumable
    async def both(ctx: Context[Any, Any]) -> str:
        person = await ask_user("Who are you?", Person)
        await anyio.sleep(1.2)
        return (await agent().run(person.name)).text

    async with wired(server) as wire:
        params = {"name": "both", "arguments": {}, "task": {}, "_meta": {"progressToken": "p"}}
        created = await wire.request("tools/call", params)
        task = created["task"]
        ended = await result(wire, task)
        related = {"taskId": task["taskId"]}
        assert created["_meta"][RELATED_TASK] == ended["_meta"][RELATED_TASK] == related
        assert [method for method, _ in wire.asked] == [
            "elicitation/create",
            "sampling/createMessage",
            "sampling/createMessage",
        ]
        assert all(params["_meta"][RELATED_TASK] == related for _, params in wire.asked)
        for seen in (
            await get(wire, task),
            *(note["params"] for note in wire.notes if "tasks/status" in note["method"]),
        ):
            assert RELATED_TASK not in seen.get("_meta", {})


async def test_k4_progress_goes_on_with_the_token_of_the_call() -> None:
    server, calls = a_server(), [[use("slow", id=str(number))] for number in range(5)]

    @tool
    async def slow() -> str:
        """Take some time."""
        await anyio.sleep(0.7)
        return "slow"

    mount(server, Agent("slow", tools=[slow]), provider=ScriptedProvider(*calls, "Done."))
    async with wired(server, capabilities={}) as wire:
        task = await begin(wire, "slow")
        with anyio.move_on_after(2):
            await result(wire, task)
        await result(wire, task)
        progress = [note["params"] for note in wire.notes if "progress" in note["method"]]
    assert {note["progressToken"] for note in progress} == {"p"}
    assert {note["_meta"][RELATED_TASK]["taskId"] for note in progress} == {task["taskId"]}
    done = [note["progress"] for note in progress]
    assert done
    assert done == sorted(done)


async def test_k5_a_cancelled_task_stays_cancelled_and_one_that_ended_is_not() -> None:
    begun, undone = anyio.Event(), anyio.Event()
    server = a_server()

    @server.tool()
    @resumable
    async def wait(ctx: Context[Any, Any]) -> str:
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            undone.set()

    async with wired(server) as wire:
        task = await begin(wire, "wait", {})
        await begun.wait()
        waiting = await wire.begin("tasks/result", {"taskId": task["taskId"]})
        seen = await wire.request("tasks/cancel", {"taskId": task["taskId"]})
        assert (seen["status"], seen["taskId"]) == ("cancelled", task["taskId"])
        with anyio.fail_after(5):
            await undone.wait()
            assert (await error_of(wire.answer_to(waiting))).code == -32800
        again = await error_of(wire.request("tasks/cancel", {"taskId": task["taskId"]}))
        assert again.code == -32602
        assert (await get(wire, task))["status"] == "cancelled"


async def test_k5_whether_the_cancellation_or_the_end_comes_first_it_stays() -> None:
    server, ends, codes = a_server(), set[str](), set[int]()

    @server.tool()
    @resumable
    async def nap(seconds: float, ctx: Context[Any, Any]) -> str:
        await anyio.sleep(seconds)
        return "rested"

    async with wired(server) as wire:
        for number in range(30):
            task = await begin(wire, "nap", {"seconds": number / 1000})
            await anyio.sleep(0.015)
            try:
                said = await wire.request("tasks/cancel", {"taskId": task["taskId"]})
            except Rejected as error:
                codes.add(error.code)
                said = await get(wire, task)
            ends.add(said["status"])
            await anyio.sleep(0.01)
            assert (await get(wire, task))["status"] == said["status"]
    assert ends <= {"cancelled", "completed"}
    assert "cancelled" in ends
    assert codes <= {-32602}


async def test_k5_a_task_that_waits_for_its_client_can_be_cancelled() -> None:
    async with wired(a_server(), is_silent) as wire:
        task = await begin(wire, "adder")
        await until(wire, task, "input_required")
        waiting = await wire.begin("tasks/result", {"taskId": task["taskId"]})
        await asked(wire)
        with anyio.fail_after(5):
            await wire.request("tasks/cancel", {"taskId": task["taskId"]})
            assert (await error_of(wire.answer_to(waiting))).code == -32800
        # Nobody wants the answer any more, and the client knows.
        assert "notifications/cancelled" in {note["method"] for note in wire.notes}


# --- whose it is --------------------------------------------------------------------------------


async def test_k6_a_task_is_its_callers_alone() -> None:
    async with wired(a_server()) as wire:
        with acting("alice"):
            task = await begin(wire, "adder")
        for who in ("bob", None):
            for method in ("tasks/get", "tasks/result", "tasks/cancel"):
                with acting(who):
                    error = await error_of(wire.request(method, {"taskId": task["taskId"]}))
                assert (error.code, error.message) == (-32602, "there is no such task")
        with acting("alice"):
            assert (await result(wire, task))["content"][0]["text"] == "It is 3."


async def test_k6_tasks_are_listed_for_those_who_are_known() -> None:
    async with wired(a_server()) as wire:
        assert (await error_of(wire.request("tasks/list", {}))).code == -32601
        with acting("alice"):
            mine = [(await begin(wire, "own"))["taskId"] for _ in range(PAGE + 3)]
        with acting("bob"):
            his = await begin(wire, "own")
            listed = await wire.request("tasks/list", {})
            assert [task["taskId"] for task in listed["tasks"]] == [his["taskId"]]
            assert "nextCursor" not in listed
        with acting("alice"):
            first = await wire.request("tasks/list", {})
            rest = await wire.request("tasks/list", {"cursor": first["nextCursor"]})
            assert "nextCursor" not in rest
            found = [task["taskId"] for page in (first, rest) for task in page["tasks"]]
            assert sorted(found) == sorted(mine)
            bad = await error_of(wire.request("tasks/list", {"cursor": "nonsense"}))
            assert bad.code == -32602


@pytest.mark.parametrize("kind", ["memory", "sqlite", "postgres"])
async def test_k6_each_store_lists_page_by_page(
    kind: str, tmp_path: Any, request: pytest.FixtureRequest
) -> None:
    store: Any = MemoryStore()
    if kind == "sqlite":
        store = SQLiteStore(tmp_path / "tasks.db")
    elif kind == "postgres":
        store = SQLStore(request.getfixturevalue("postgres"))
    who = secrets.token_hex(8)
    made = [
        await store.tasks.create(
            Task(id=f"{who}{n}", call=f"{who}{n}", request={"name": "x"}, principal=who)
        )
        for n in range(7)
    ]
    found, before = list[str](), None
    while page := await store.tasks.list(principal=who, before=before, limit=3):
        found += [task.id for task in page]
        before = (page[-1].created, page[-1].id)
    newest_first = sorted(made, key=lambda task: (task.created, task.id), reverse=True)
    assert found == [task.id for task in newest_first]
    if kind != "memory":
        await store.close()


@pytest.mark.parametrize("who", ["alice", None])
async def test_k6_listing_is_declared_to_those_who_are_known(who: str | None) -> None:
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c"}}
    hello["clientInfo"]["version"] = "1"  # type: ignore[index]
    async with wired(a_server()) as wire:
        with acting(who):
            declared = (await wire.request("initialize", hello))["capabilities"]["tasks"]
    assert ("list" in declared) == (who is not None)
    assert declared["requests"] == {"tools": {"call": {}}}
    assert declared["cancel"] == {}


# --- what is too much ---------------------------------------------------------------------------


async def test_k7_no_client_keeps_tasks_for_longer_than_the_server_does() -> None:
    async with wired(a_server(ttl=2.0)) as wire:
        assert (await begin(wire, "adder", ttl=10 * DAY))["ttl"] == 2000
        assert (await begin(wire, "adder", ttl=0))["ttl"] == 1000


async def test_k7_a_task_whose_time_is_over_is_forgotten() -> None:
    store = MemoryStore()
    async with wired(a_server(store, ttl=1.0), is_silent) as wire:
        task = await begin(wire, "adder")
        waiting = await wire.begin("tasks/result", {"taskId": task["taskId"]})
        with anyio.fail_after(5):
            assert (await error_of(wire.answer_to(waiting))).code == -32602
        assert (await error_of(get(wire, task))).code == -32602
        await begin(wire, "own")
        assert sum((await store.tasks.count()).values()) == 1


async def test_k7_a_flood_of_tasks_is_worked_on_a_few_at_a_time() -> None:
    now, most = 0, 0
    server = a_server(at_once=3)

    @server.tool()
    @resumable
    async def crowd(ctx: Context[Any, Any]) -> str:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await anyio.sleep(0.01)
        now -= 1
        return "through"

    async with wired(server) as wire:
        tasks = [await begin(wire, "crowd", {}) for _ in range(30)]
        for task in tasks:
            assert (await result(wire, task))["content"][0]["text"] == "through"
    assert most == 3


async def test_k7_who_has_as_many_tasks_as_one_may_have_is_told_so() -> None:
    async with wired(a_server(most_open=3, most_open_per_principal=2), is_silent) as wire:
        with acting("alice"):
            tasks = [await begin(wire, "adder") for _ in range(2)]
            error = await error_of(begin(wire, "adder"))
            assert (error.code, error.data) == (
                -32603,
                {"reason": "too_many_tasks", "retryable": True},
            )
            assert str(error).startswith("the caller has as many open tasks as one may have: 2;")
        with acting("bob"):
            await begin(wire, "adder")
            assert str(await error_of(begin(wire, "adder"))).startswith(
                "as many tasks are open as there may be: 3;"
            )
            # What becomes no task needs no room.
            made = await wire.request("tools/call", {"name": "foreign", "arguments": {}})
            assert made["content"][0]["text"] == "no task"
        with acting("alice"):
            await wire.request("tasks/cancel", {"taskId": tasks[0]["taskId"]})
            await begin(wire, "adder")


async def test_k8_only_tasks_cancel_cancels_a_task() -> None:
    silent, model = True, Model(*SUM)

    async def answers(method: str, params: JSON) -> Any:
        return await (is_silent if silent else model)(method, params)

    async with wired(a_server(), answers) as wire:
        id = await wire.begin(
            "tools/call", {"name": "adder", "arguments": {"prompt": "go"}, "task": {}}
        )
        task = (await wire.answer_to(id))["task"]
        await wire.cancel(id)
        waiting = await wire.begin("tasks/result", {"taskId": task["taskId"]})
        await asked(wire)
        await wire.cancel(waiting)
        silent = False
        with anyio.fail_after(5):
            ended = await result(wire, task)  # and the client is asked again
    assert ended["content"][0]["text"] == "It is 3."


async def test_a_client_that_only_asks_for_the_status_is_asked_all_the_same() -> None:
    async with wired(a_server()) as wire:
        task = await begin(wire, "adder")
        assert (await until(wire, task, "completed"))["taskId"] == task["taskId"]
        assert len(wire.asked) == 2
        assert all(params["_meta"][RELATED_TASK] for _, params in wire.asked)
        assert (await result(wire, task))["content"][0]["text"] == "It is 3."


async def test_whoever_comes_for_the_result_is_asked_there_alone() -> None:
    silent, model = anyio.Event(), Model(*SUM)

    async def answers(method: str, params: JSON) -> Any:
        if silent.is_set():
            return await model(method, params)
        silent.set()
        return await is_silent(method, params)

    async with wired(a_server(), answers) as wire:
        task = await begin(wire, "adder")
        await until(wire, task, "input_required")
        await get(wire, task)
        await silent.wait()  # it was asked beside, where it does not answer
        with anyio.fail_after(5):
            assert (await result(wire, task))["content"][0]["text"] == "It is 3."
        assert len(wire.asked) == 3
        assert [note["method"] for note in wire.notes].count("notifications/cancelled") == 1


async def test_nobody_is_asked_twice_who_comes_for_the_result() -> None:
    async with wired(a_server()) as wire:
        task = await begin(wire, "adder")
        await until(wire, task, "input_required")
        await result(wire, task)
        assert len(wire.asked) == 2


# --- who may ------------------------------------------------------------------------------------


async def test_the_authors_setting_is_what_clients_are_told() -> None:
    async with wired(a_server(tools={"foreign": "always"})) as wire:
        listed = (await wire.request("tools/list", {}))["tools"]
    support = {tool["name"]: tool.get("execution", {}).get("taskSupport") for tool in listed}
    assert support == {
        "adder": "optional",
        "typed": "optional",
        "listed": "optional",
        "own": "optional",
        "greet": "optional",
        "fail": "optional",
        "sure": "required",
        "quick": "forbidden",
        "foreign": "optional",
    }


async def test_what_is_forbidden_or_required_is_method_not_found() -> None:
    async with wired(a_server(), Model("Yes.")) as wire:
        for name in ("quick", "foreign", "nobody"):
            assert (await error_of(begin(wire, name))).code == -32601
        assert (await error_of(wire.round("sure", {"prompt": "go"}))).code == -32601
        assert (await result(wire, await begin(wire, "sure")))["content"][0]["text"] == "Yes."
        assert not (await wire.round("quick", {"prompt": "go"}))["isError"]
        wrong = {"name": "adder", "arguments": {"prompt": "go"}, "task": {"ttl": "long"}}
        assert (await error_of(wire.request("tools/call", wrong))).code == -32602
        assert (await error_of(wire.request("tasks/get", {}))).code == -32602


async def test_a_tool_of_the_authors_own_becomes_a_task_where_tasks_are_told() -> None:
    async with wired(a_server(tools={"foreign": "always"})) as wire:
        task = await begin(wire, "foreign", {})
        assert (await result(wire, task))["content"][0]["text"] == "no task"


async def test_each_revision_has_methods_of_its_own() -> None:
    store = MemoryStore()
    async with wired(a_server(store)) as wire:
        task = await begin(wire, "fail", {})
        assert (await result(wire, task))["isError"]
        assert (await get(wire, task))["status"] == "failed"
        update: JSON = {"taskId": task["taskId"], "inputResponses": {}}
        assert (await error_of(wire.request("tasks/update", update))).code == -32601
    tasks: JSON = {"extensions": {"io.modelcontextprotocol/tasks": {}}}
    async with wired(a_server(store), modern=True, capabilities=tasks) as wire:
        # The same task, and there a tool's error is a result.
        seen = await get(wire, task)
        assert (seen["status"], seen["result"]["isError"]) == ("completed", True)
        assert (await error_of(result(wire, task))).code == -32601


async def test_an_older_client_is_told_nothing_of_tasks() -> None:
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "c"}}
    hello["clientInfo"]["version"] = "1"  # type: ignore[index]
    async with wired(a_server(), Model("Yes.")) as wire:
        declared = await wire.request("initialize", hello)
        assert "tasks" not in declared["capabilities"]
        listed = (await wire.request("tools/list", {}))["tools"]
        assert not any("execution" in tool for tool in listed)
        assert (await error_of(wire.request("tasks/get", {"taskId": "x"}))).code == -32601


# --- where --------------------------------------------------------------------------------------


async def test_another_server_with_the_same_store_answers_for_a_task(tmp_path: Any) -> None:
    first, second = (SQLiteStore(tmp_path / "tasks.db") for _ in range(2))
    async with wired(a_server(first)) as wire:
        task = await begin(wire, "adder")
        await until(wire, task, "input_required")
    async with wired(a_server(second)) as wire:
        assert (await result(wire, task))["content"][0]["text"] == "It is 3."
    for store in (first, second):
        await store.close()


@pytest.mark.parametrize("host", ["low-level", "fastmcp"])
async def test_the_other_hosts_have_them_too(host: str) -> None:
    tasks = Tasks(MemoryStore(), poll=0.05, look_every=0.05)
    server: Any
    if host == "fastmcp":
        import fastmcp

        server = fastmcp.FastMCP("tasks", lifespan=tasks.lifespan())
    else:
        server = Server("tasks", lifespan=tasks.lifespan())
    tasks.add_to(server)
    mount(server, agent())
    mount(server, Agent("quick"), task="never")
    async with wired(server) as wire:
        listed = (await wire.request("tools/list", {}))["tools"]
        support = {tool["name"]: tool["execution"]["taskSupport"] for tool in listed}
        assert support == {"adder": "optional", "quick": "forbidden"}
        task = await begin(wire, "adder")
        assert (await result(wire, task))["content"][0]["text"] == "It is 3."
        assert (await error_of(begin(wire, "quick"))).code == -32601


# The SDK's HTTP server and client leave generators behind that trio complains about.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <async_generator object")
@pytest.mark.parametrize("transport", ["memory", "http"])
async def test_the_sdks_own_client_calls_a_tool_as_a_task(transport: str) -> None:
    if transport == "memory":
        return await _use(a_server())
    server = a_server()
    with serving_http(server.streamable_http_app) as url:
        return await _use(url)


async def _use(server: Any, *, pause: float = 0.0) -> None:
    answer = sampling_callback(ScriptedProvider(*SUM))

    async def model(context: ClientRequestContext, params: CreateMessageRequestParams) -> Any:
        await anyio.sleep(pause)
        return await answer(context, params)

    async with Client(
        server,
        mode="legacy",
        sampling_callback=model,
        sampling_capabilities=TOOLS,
    ) as client:
        declared = client.server_capabilities
        assert declared is not None
        assert declared.tasks is not None
        assert declared.tasks.requests is not None
        session = client.session
        # It takes nothing but a tool's result for a tool call, so that one is made below it.
        call = {"name": "adder", "arguments": {"prompt": "go"}, "task": {"ttl": 60_000}}
        raw = await session._dispatcher.send_raw_request("tools/call", call)  # pyright: ignore[reportPrivateUsage]
        made = CreateTaskResult.model_validate(raw)
        payload = GetTaskPayloadRequest(
            params=GetTaskPayloadRequestParams(task_id=made.task.task_id)
        )
        ended = await session.send_request(payload, CallToolResult)
        assert ended.content[0].text == "It is 3."  # type: ignore[union-attr]
        request = GetTaskRequest(params=GetTaskRequestParams(task_id=made.task.task_id))
        assert (await session.send_request(request, GetTaskResult)).status == "completed"
        request = GetTaskRequest(params=GetTaskRequestParams(task_id="nobody's"))
        with pytest.raises(MCPError, match="no such task"):
            await session.send_request(request, GetTaskResult)


@pytest.mark.filterwarnings("ignore:Exception ignored in. <async_generator object")
async def test_waiting_for_a_result_outlasts_its_streams() -> None:
    events = Events()
    server = a_server(stream_seconds=0.2)

    def app() -> Any:
        return server.streamable_http_app(event_store=events, retry_interval=30)

    with serving_http(app) as url:
        await _use(url, pause=0.5)
    assert max(map(events.streams, "345")) > 1


async def test_a_client_without_tasks_is_served_as_ever() -> None:
    async with MockClient(a_server(), ScriptedProvider(*SUM), carrier="push") as client:
        called = await client.call_tool("adder", {"prompt": "go"})
    assert called.content[0].text == "It is 3."  # type: ignore[union-attr]
