"""The life of a task: cancelled at any time, taken over, parked, and nothing of it left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp_types import INTERNAL_ERROR, INVALID_PARAMS
from pydantic import AnyHttpUrl

from agentloop import Agent
from agentloop.mcp import Tasks, mount
from agentloop.mcp.tasks.worker import MOST_ATTEMPTS
from agentloop.store import MemoryStore
from agentloop.strays import left_behind
from agentloop.task import Task, parked, released, taken
from agentloop.testing import MockClient
from agentloop_providers import ScriptedProvider
from agentloop_providers.scripted import use
from tests.faults.http import ACCEPT, MODERN, envelope, result_of, serving_http
from tests.faults.wire import Rejected
from tests.tasks.kit import HOSTS, Caller, answers_of, calling, on_mcpserver

GO = {"prompt": "go"}
EXTENSION = "io.modelcontextprotocol/tasks"
every_host = pytest.mark.parametrize("host", HOSTS)

# The SDK's HTTP server and client leave generators behind that trio complains about.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <async_generator object")


class Lab:
    """An agent with a tool that takes as long as it is let, and a record of what it did."""

    def __init__(self) -> None:
        self.begun = anyio.Event()
        self.let = anyio.Event()
        self.told: list[str] = []

    async def work(self) -> str:
        """Work."""
        self.told.append("begun")
        self.begun.set()
        try:
            await self.let.wait()
        except BaseException:
            self.told.append("stopped")
            raise
        self.told.append("done")
        return "worked"

    def agent(self) -> Agent[Any]:
        return Agent("worker", tools=[self.work])

    def server(self, store: MemoryStore, host: str = "MCPServer", **options: Any) -> Any:
        server = HOSTS[host](Tasks(store, **{"look_every": 0.05, **options}))
        mount(server, self.agent(), task="always")
        return server


async def begin(client: Caller, lab: Lab) -> str:
    """A task whose tool is at work."""
    id = await client.task("worker", GO)
    asked = await client.asked(id)
    await client.update(id, await answers_of(ScriptedProvider(use("work")), asked))
    with anyio.fail_after(5):
        await lab.begun.wait()
    return id


async def stopped(lab: Lab) -> None:
    with anyio.fail_after(1):
        await until(lambda: "stopped" in lab.told)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  what is waited for has no event
        await anyio.sleep(0.01)


@every_host
async def test_a_cancelled_task_is_cancelled_in_whatever_state_it_was(host: str) -> None:
    """Its tools are stopped within a second; once it has ended a cancellation changes nothing."""
    lab = Lab()
    server = lab.server(MemoryStore(), host)
    async with calling(server) as client:
        waiting = await client.task("worker", GO)
        [key] = await client.asked(waiting)
        working = await begin(client, lab)
        for id in (waiting, working):
            assert (await client.cancel(id)).keys() <= {"resultType", "_meta"}
            assert (await client.get(id))["status"] == "cancelled"
        await stopped(lab)
        await client.update(waiting, {key: {}})
        for id in (waiting, working):
            await client.cancel(id)
            news = await client.get(id)
            assert news["status"] == "cancelled"
            assert not news.keys() & {"inputRequests", "result", "error"}
        lab.let.set()
        done = await client.finish(await client.task("worker", GO), ScriptedProvider("done"))
        await client.cancel(done["taskId"])
        assert await client.get(done["taskId"]) == done
    assert lab.told == ["begun", "stopped"]


async def test_a_task_is_cancelled_through_a_server_that_does_not_work_on_it() -> None:
    """The other one learns of it when it renews its lease."""
    store, lab = MemoryStore(lease=0.6), Lab()
    async with calling(lab.server(store)) as client:
        id = await begin(client, lab)
        async with calling(Lab().server(store)) as other:
            await other.cancel(id)
        await stopped(lab)
        assert (await client.get(id))["status"] == "cancelled"


async def test_what_is_parked_goes_on_on_another_server() -> None:
    """Answers may be brought to any, and a server that was stopped is not waited for."""
    store, model = MemoryStore(), ScriptedProvider(use("work"), "done")
    lab = Lab()
    lab.let.set()
    async with calling(lab.server(store)) as client:
        id = await client.task("worker", GO)
        answers = await answers_of(model, await client.asked(id))
    async with calling(lab.server(store)) as client:
        await client.update(id, answers)
        news = await client.finish(id, model)
    assert news["result"]["structuredContent"] == {"result": "done"}
    assert lab.told == ["begun", "done"]


async def test_a_server_that_stops_gives_back_what_it_is_not_through_with() -> None:
    """Another one takes it up at once, long before the lease runs out, and runs the tool again."""
    store, first, second = MemoryStore(lease=60), Lab(), Lab()
    async with calling(first.server(store)) as client:
        id = await begin(client, first)
    assert first.told == ["begun", "stopped"]
    second.let.set()
    async with calling(second.server(store)) as client:
        news = await client.finish(id, ScriptedProvider("done"))
    assert news["status"] == "completed"
    assert second.told == ["begun", "done"]


@pytest.mark.parametrize("grace", [0.0, 5.0])
async def test_a_server_that_stops_while_it_takes_a_task_up_does_not_sit_on_it(
    grace: float,
) -> None:
    """What a database has handed out in this moment is given back, or done within the grace."""
    taken = anyio.Event()

    class Slow(MemoryStore):
        def __init__(self) -> None:
            super().__init__(lease=60)
            take = self.tasks.take

            async def slow_take(**given: Any) -> Any:
                found = await take(**given)
                if found is not None:
                    taken.set()
                    await anyio.sleep(0.1)
                return found

            self.tasks.take = slow_take  # type: ignore[method-assign]

    store = Slow()
    async with calling(Lab().server(store, grace=grace)) as client:
        id = await client.task("worker", GO)
        await taken.wait()
    task = await store.tasks.read(id)
    assert task is not None
    assert (task.epoch, task.leased_until) == (1, 0.0)


async def test_a_server_that_is_given_grace_is_through_before_it_stops() -> None:
    """It takes up nothing new meanwhile; what asks is parked and needs no grace."""
    store, lab = MemoryStore(), Lab()
    async with calling(lab.server(store, grace=5)) as client:
        id = await begin(client, lab)
        parked = await client.task("worker", GO)
        await client.asked(parked)
        lab.let.set()
    task = await store.tasks.read(id)
    assert task is not None
    assert (task.status, task.leased_until) == ("input_required", 0.0)
    assert lab.told == ["begun", "done"]


async def test_grace_is_not_for_ever() -> None:
    store, lab = MemoryStore(), Lab()
    async with calling(lab.server(store, grace=0.1)) as client:
        id = await begin(client, lab)
        left = time.monotonic()
    assert time.monotonic() - left < 3
    task = await store.tasks.read(id)
    assert task is not None
    assert (task.status, task.leased_until) == ("working", 0.0)
    assert lab.told == ["begun", "stopped"]


async def test_as_many_tasks_are_worked_on_as_there_may_be() -> None:
    """The others wait for their turn, and get it."""
    lab = Lab()
    server = on_mcpserver(Tasks(MemoryStore(), at_once=2, look_every=0.05))
    mount(server, lab.agent(), task="always", provider=ScriptedProvider(_works_once, repeat=True))
    async with calling(server, sampling=False) as client:
        ids = [await client.task("worker", GO) for _ in range(5)]
        with anyio.fail_after(5):
            await until(lambda: len(lab.told) == 2)
        await anyio.sleep(0.15)
        assert lab.told == ["begun", "begun"]
        lab.let.set()
        for id in ids:
            await client.until(id, "completed")
    assert lab.told.count("done") == 5


def _works_once(request: Any) -> Any:
    return use("work") if len(request.messages) == 1 else "done"


async def test_nothing_is_left_behind() -> None:
    """No task of the event loop, no thread, no lease: after results, cancellations and a stop."""
    store, lab = MemoryStore(), Lab()
    threads, loop_tasks = threading.active_count(), _loop_tasks()
    async with calling(lab.server(store)) as client:
        done = await client.task("worker", GO)
        await client.finish(done, ScriptedProvider("done"))
        await client.cancel(await client.task("worker", GO))
        await client.task("worker", GO)
        await begin(client, lab)
    await anyio.sleep(0.05)
    assert left_behind() == 0
    assert threading.active_count() <= threads
    assert _loop_tasks() <= loop_tasks
    assert [task.leased_until for task in await store.tasks.list()] == [0.0] * 4


def _loop_tasks() -> int:
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        import trio.lowlevel

        root: Any = trio.lowlevel.current_root_task()
        found, todo = 0, [root]
        while todo:
            task = todo.pop()
            found += 1
            todo.extend(child for nursery in task.child_nurseries for child in nursery.child_tasks)
        return found


# --- over HTTP ---------------------------------------------------------------------------------


class Tokens:
    """Alice and Bob."""

    async def verify_token(self, token: str) -> AccessToken | None:
        if token not in ("alice", "bob"):
            return None
        return AccessToken(token=token, client_id="app", scopes=["use"], subject=token)


def post(url: str, method: str, params: dict[str, Any], token: str | None = None) -> Any:
    """Send one request of a client that can deal with tasks, and has no model."""
    capabilities = {"elicitation": {}, "extensions": {EXTENSION: {}}}
    name = params.get("taskId") or params.get("name")
    headers = ACCEPT | {"mcp-protocol-version": MODERN, "mcp-method": method}
    headers |= {"mcp-name": name} if name else {}
    headers |= {"authorization": f"Bearer {token}"} if token else {}
    body = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": method,
        "params": {**params, "_meta": envelope(capabilities)},
    }
    return result_of(httpx2.post(url, json=body, headers=headers, timeout=10))


def guarded(lab: Lab, tasks: Tasks) -> Any:
    """The app of a server for Alice and Bob alone."""
    url = AnyHttpUrl("http://127.0.0.1/")
    settings = AuthSettings(
        issuer_url=url,
        resource_server_url=url,
        required_scopes=["use"],
        validate_token_resource=False,
    )
    server = HOSTS["low-level"](tasks)
    mount(server, lab.agent(), task="always", provider=ScriptedProvider(_works_once, repeat=True))
    return server.streamable_http_app(auth=settings, token_verifier=Tokens())


def test_whoever_has_as_many_tasks_as_one_may_have_gets_no_other_one() -> None:
    """Whoever the token names, on whichever connection; the others do not notice."""
    store, lab = MemoryStore(), Lab()
    named = {"name": "worker", "arguments": GO}
    with serving_http(lambda: guarded(lab, Tasks(store, most_open_per_principal=2))) as url:
        first, _ = (post(url, "tools/call", named, "alice")["taskId"] for _ in range(2))
        with pytest.raises(Rejected, match="as many open tasks as one may have: 2") as rejected:
            post(url, "tools/call", named, "alice")
        assert rejected.value.code == INTERNAL_ERROR
        assert post(url, "tools/call", named, "bob")["resultType"] == "task"
        post(url, "tasks/cancel", {"taskId": first}, "alice")
        assert post(url, "tools/call", named, "alice")["resultType"] == "task"


def test_X6_the_tasks_of_others_are_not_there() -> None:
    """For another principal a task is unknown, whatever is asked of it; idempotency keys, too."""
    store = MemoryStore()
    lab = Lab()

    named = {"name": "worker", "arguments": GO}
    with serving_http(lambda: guarded(lab, Tasks(store))) as url:
        id = post(url, "tools/call", named, "alice")["taskId"]
        asks = [
            ("tasks/get", {"taskId": id}),
            ("tasks/update", {"taskId": id, "inputResponses": {"0:0": {}}}),
            ("tasks/cancel", {"taskId": id}),
        ]
        for method, params in asks:
            with pytest.raises(Rejected, match="there is no such task") as rejected:
                post(url, method, params, "bob")
            assert rejected.value.code == INVALID_PARAMS
        assert post(url, "tasks/get", {"taskId": id}, "alice")["status"] == "working"
        post(url, "tasks/cancel", {"taskId": id}, "alice")
        assert post(url, "tasks/get", {"taskId": id}, "alice")["status"] == "cancelled"
    [task] = anyio.run(_listed, store)
    assert task.principal is not None
    assert "alice" in task.principal
    assert "token" not in (task.caller or {})


async def _listed(store: MemoryStore) -> Any:
    return await store.tasks.list()


def test_a_request_that_is_routed_by_another_task_is_refused() -> None:
    """``Mcp-Name`` is what load balancers go by, so it must be the task, and be there."""
    with serving_http(lambda: Lab().server(MemoryStore()).streamable_http_app()) as url:
        id = post(url, "tools/call", {"name": "worker", "arguments": GO})["taskId"]
        body = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tasks/get",
            "params": {"taskId": id, "_meta": envelope({"extensions": {EXTENSION: {}}})},
        }
        headers = ACCEPT | {"mcp-protocol-version": MODERN, "mcp-method": "tasks/get"}
        for wrong in ({}, {"mcp-name": "another"}):
            answer = httpx2.post(url, json=body, headers=headers | wrong, timeout=10)
            assert answer.status_code == 400
            assert answer.json()["error"]["code"] == -32020
        assert result_of(httpx2.post(url, json=body, headers=headers | {"mcp-name": id}))


@every_host
async def test_tasks_over_real_http(host: str) -> None:
    """The SDK's client, every host: asks with tools are answered, and the result comes."""

    def app() -> Any:
        async def work() -> str:
            """Work."""
            return "worked"

        server = HOSTS[host](Tasks(MemoryStore(), look_every=0.05))
        mount(server, Agent("worker", tools=[work]), task="always")
        return server.http_app() if host == "FastMCP" else server.streamable_http_app()

    with (
        serving_http(app) as url,
        ScriptedProvider([use("work"), use("work")], "done") as model,
    ):
        async with MockClient(url, model, carrier="task") as client:
            result = await client.call_tool("worker", GO)
            assert client.news
    assert result.structured_content == {"result": "done"}


@contextmanager
def process(database: Path) -> Iterator[tuple[str, int]]:
    """A server in a process of its own, which is killed."""
    command = [sys.executable, "-m", "tests.tasks.process", str(database)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(server.stdout.readline())}/mcp", server.pid
        finally:
            server.kill()


def test_X2_a_task_survives_the_death_of_its_server(tmp_path: Path) -> None:
    """Killed at the moment when the client has its handle: another server has the task."""
    database = tmp_path / "tasks.db"
    with process(database) as (url, pid):
        id = post(url, "tools/call", {"name": "echo", "arguments": GO})["taskId"]
        os.kill(pid, signal.SIGKILL)
    with process(database) as (url, _):
        give_up = time.monotonic() + 20
        while (news := post(url, "tasks/get", {"taskId": id}))["status"] == "working":
            assert time.monotonic() < give_up
            time.sleep(0.05)
    assert news["status"] == "completed"
    assert news["result"]["structuredContent"] == {"result": "echoed"}


async def test_a_task_that_ends_every_server_that_takes_it_up_is_given_up() -> None:
    lab, store = Lab(), MemoryStore(lease=0.05)
    server = lab.server(store)
    async with calling(server) as client:
        task = await begin(client, lab)
        for _ in range(MOST_ATTEMPTS):  # as servers would that are never heard of again
            await store.tasks.change(task, lambda task, now: taken(task, now, lease=0))
        found = await client.until(task, "failed")
    assert found["status"] == "failed"
    assert "not heard of again" in found["error"]["message"]


async def test_each_thing_that_a_task_comes_to_gives_it_new_attempts() -> None:
    task = Task(id="t", call="c", request={})
    for _ in range(3):
        task = taken(task, 0, lease=0)
    assert task.attempts == 3
    assert released(task).attempts == 2  # given back in good order
    assert parked(task, 0, asks={}, state=None).attempts == 0
