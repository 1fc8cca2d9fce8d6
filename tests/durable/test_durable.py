"""Durable runs in one process: what users of them rely on."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import anyio.to_thread
import pytest
from dbos import DBOS
from mcp_types import (
    CreateMessageRequestParams,
    CreateMessageResultWithTools,
    TextContent,
    ToolResultContent,
)
from pydantic import BaseModel
from sqlalchemy import create_engine, make_url, text

from agentloop import Agent, Limits, Stop, gather, idempotency_key, tool
from agentloop.durable import Durable, DurableAgent, RunState
from agentloop.durable.claims import Claims
from agentloop.durable.engine import takes_sqlite
from agentloop.durable.records import Order
from agentloop.errors import DefinitionError, OverloadedError, RunCancelled, StateError
from agentloop.machine import start
from agentloop.store import MemoryStore
from agentloop.tools import Effect
from agentloop_providers.scripted import ScriptedProvider, use

LEASE = 0.4


class Asked:
    """A model that answers by a function of how often it was asked in this run, and by whom."""

    name = "asked"

    def __init__(self, say: Any) -> None:
        self.say = say
        self.asks: Counter[str] = Counter()

    async def sample(self, request: CreateMessageRequestParams) -> CreateMessageResultWithTools:
        turn = sum(message.role == "assistant" for message in request.messages)
        who = request.system_prompt or ""
        self.asks[f"{who}:{turn}"] += 1
        said = self.say(who, turn, request)
        said = await said if asyncio.iscoroutine(said) else said
        blocks = [TextContent(text=said)] if isinstance(said, str) else said
        return CreateMessageResultWithTools(role="assistant", content=blocks, model="asked")


async def until(true: Callable[[], bool]) -> None:
    with anyio.fail_after(20):
        while not true():  # noqa: ASYNC110  what is waited for is in the program's own hands
            await anyio.sleep(0.01)


def plain(database: str, agent: Agent[Any], **options: Any) -> tuple[Durable, DurableAgent[Any]]:
    durable = Durable(database, lease=LEASE, grace=0)
    return durable, durable.agent(agent, **options)


async def test_the_same_id_is_the_same_run_also_in_the_next_process(database: str) -> None:
    class City(BaseModel):
        name: str

    script = ScriptedProvider([use("final_answer", name="Bern")])
    agent = Agent("guide", output=City)
    durable, guide = plain(database, agent, provider=script)
    async with durable:
        first = await guide.run("Which city?", id="order/17")
        again = await guide.run("Another one?", id="order/17")
        assert first.output == again.output == City(name="Bern")
        assert first.run.id == again.run.id
        assert first.messages == again.messages
    durable, guide = plain(database, agent, provider=ScriptedProvider([]))
    async with durable:
        late = await guide.get("order/17").result()
        assert late.output == City(name="Bern")
        assert (late.run.id, late.run.began) == (first.run.id, first.run.began)


async def test_a_durable_run_gives_what_a_plain_one_gives(sqlite: str) -> None:
    @tool
    async def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    def script() -> ScriptedProvider:
        calls = [use("add", id="1", a=1, b=2), use("nope", id="2"), use("add", id="3", a="x", b=1)]
        return ScriptedProvider([calls, "three"])

    agent = Agent("sums", "Add up.", tools=[add])
    wanted = await agent.run("go", provider=script())
    durable, sums = plain(sqlite, agent, provider=script())
    async with durable:
        result = await sums.run("go")
    assert result.messages == wanted.messages
    assert (result.usage, result.steps, result.stop) == (wanted.usage, wanted.steps, wanted.stop)


async def test_errors_of_a_provider_end_the_run_as_ever(sqlite: str) -> None:
    def broken(who: str, turn: int, request: Any) -> Any:
        raise OverloadedError("too many", status=529) if "busy" in who else RuntimeError("a secret")

    durable = Durable(sqlite, lease=LEASE, grace=0)
    busy = durable.agent(Agent("busy", "busy"), provider=Asked(broken))
    rude = durable.agent(Agent("rude", "rude"), provider=Asked(broken))
    async with durable:
        result = await busy.run("go")
        assert (result.stop, result.error) == (Stop.FAILED, "overloaded: too many")
        result = await rude.run("go")
        assert (result.stop, result.error) == (Stop.FAILED, "provider: asked raised RuntimeError")


async def test_calls_are_replayed_in_their_order_however_they_ended(sqlite: str) -> None:
    """More calls than may run at once, of which later ones end sooner."""
    begun: list[int] = []
    held = anyio.Event()

    @tool
    async def nap(number: int) -> str:
        """Nap."""
        begun.append(number)
        if number == 6 and not held.is_set():
            await anyio.sleep_forever()
        await anyio.sleep(0.02 * (number % 3))
        return f"nap {number} {idempotency_key()}"

    def say(who: str, turn: int, request: Any) -> Any:
        return [use("nap", id=f"n{n}", number=n) for n in range(7)] if turn == 0 else "awake"

    agent = Agent("sleeper", tools=[nap], limits=Limits(parallel=2))
    model = Asked(say)
    durable, sleeper = plain(sqlite, agent, provider=model)
    async with durable:
        await sleeper.start("go", id="s")
        await until(lambda: 6 in begun)
        await anyio.sleep(0.2)
    held.set()
    durable, sleeper = plain(sqlite, agent, provider=model)
    async with durable:
        result = await sleeper.get("s").result()
    assert result.text == "awake"
    assert Counter(begun) == {**dict.fromkeys(range(6), 1), 6: 2}
    texts = [block.content[0].text for block in result.messages[2].content_as_list]  # type: ignore[union-attr]
    assert texts == [f"nap {n} {result.run.id}:0/1.{n}" for n in range(7)]
    assert model.asks == {":0": 1, ":1": 1}


@pytest.mark.parametrize("parallel", [True, False])
async def test_agents_inside_are_durable_runs_of_their_own(database: str, parallel: bool) -> None:
    """Three of them at once, two of which ended before the process went away."""
    used: list[str] = []
    away = anyio.Event()

    @tool(once=True)
    async def pay(what: str) -> str:
        """Pay."""
        used.append(f"{what} {idempotency_key()}")
        return f"paid {what}"

    @tool
    async def wait(what: str) -> str:
        """Wait."""
        if what == "c" and not away.is_set():
            await anyio.sleep_forever()
        return "waited"

    def say(who: str, turn: int, request: Any) -> Any:
        prompt = request.messages[0].content_as_list[0].text
        if who == "boss":
            return [use("ask_all", id="x")] if turn == 0 else "all done"
        tools = ["pay", "wait"]
        return [use(tools[turn], id=f"t{turn}", what=prompt)] if turn < 2 else f"{prompt} is done"

    worker = Agent("worker", "worker", tools=[pay, wait])

    @tool
    async def ask_all() -> list[str]:
        """Ask all."""
        return [done.text for done in await gather(*(worker.run(what) for what in "abc"))]

    inside = worker.as_tool(name="ask")

    def say_parallel(who: str, turn: int, request: Any) -> Any:
        if who == "boss" and turn == 0:
            return [use("ask", id=what, prompt=what) for what in "abc"]
        return say(who, turn, request)

    model = Asked(say_parallel if parallel else say)
    boss = Agent("boss", "boss", tools=[inside] if parallel else [inside, ask_all])

    durable, chief = plain(database, boss, provider=model)
    async with durable:
        await chief.start("go", id="b")
        await until(lambda: model.asks["worker:2"] == 2 and model.asks["worker:1"] == 3)
        await anyio.sleep(0.2)
        assert [info.id for info in await durable.runs()] == ["b"]
    away.set()
    durable, chief = plain(database, boss, provider=model)
    async with durable:
        result = await chief.get("b").result()
    assert result.text == "all done"
    assert "c is done" in str(result.messages[2].content)
    assert model.asks == {
        "boss:0": 1, "boss:1": 1, "worker:0": 3, "worker:1": 3, "worker:2": 3
    }  # fmt: skip
    assert len(used) == len(set(used)) == 3
    assert result.usage.asks == 11


async def test_on_leaving_runs_may_finish_with_what_they_begin_meanwhile(sqlite: str) -> None:
    asked = anyio.Event()
    leave = anyio.Event()

    async def say(who: str, turn: int, request: Any) -> Any:
        if who == "boss" and turn == 0:
            asked.set()
            await leave.wait()
            return [use("worker", id="w", prompt="go")]
        return f"{who} is done"

    boss = Agent("boss", "boss", tools=[Agent("worker", "worker").as_tool()])
    model = Asked(say)
    durable = Durable(sqlite, lease=LEASE, grace=10)
    chief = durable.agent(boss, provider=model)
    async with anyio.create_task_group() as group, durable:
        await chief.start("go", id="b")
        await asked.wait()

        async def later() -> None:
            await anyio.sleep(0.2)
            leave.set()

        group.start_soon(later)
    assert model.asks == {"boss:0": 1, "worker:0": 1, "boss:1": 1}
    durable, chief = plain(sqlite, boss, provider=model)
    async with durable:
        assert (await chief.get("b").result()).text == "boss is done"


async def test_a_database_that_is_away_for_a_while_loses_nothing(new_database: Any) -> None:
    url = make_url(new_database())
    server = create_engine(url.set(database="postgres"), isolation_level="AUTOCOMMIT")

    def away(yes: bool) -> None:
        with server.connect() as connection:
            connection.execute(text(f"ALTER DATABASE {url.database} ALLOW_CONNECTIONS {not yes}"))
            if yes:
                ends = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :n"
                connection.execute(text(ends), {"n": url.database})

    paid: list[str] = []

    @tool(once=True)
    async def pay(what: str) -> str:
        """Pay."""
        paid.append(what)
        if what == "1":
            await anyio.to_thread.run_sync(away, True)
        return f"paid {what}"

    def say(who: str, turn: int, request: Any) -> Any:
        return [use("pay", id=str(turn), what=str(turn))] if turn < 3 else "done"

    durable = Durable(url.render_as_string(hide_password=False), lease=10)
    clerk = durable.agent(Agent("clerk", tools=[pay]), provider=Asked(say))
    async with durable:
        run = await clerk.start("go")
        await until(lambda: paid == ["0", "1"])
        await anyio.sleep(1.0)
        away(False)
        result = await run.result()
    server.dispose()
    assert (result.text, paid) == ("done", ["0", "1", "2"])
    assert "paid 1" in str(result.messages[4].content)


async def test_a_run_whose_agent_has_changed_is_refused(sqlite: str) -> None:
    away = anyio.Event()

    async def say(who: str, turn: int, request: Any) -> str:
        if not away.is_set():
            await anyio.sleep_forever()
        return "late"

    durable, agent = plain(sqlite, Agent("poet", "Rhyme."), provider=Asked(say))
    async with durable:
        await agent.start("go", id="p")
        await anyio.sleep(0.2)
    away.set()
    durable, agent = plain(sqlite, Agent("poet", "Do not rhyme."), provider=Asked(say))
    async with durable:
        with pytest.raises(StateError, match="another definition of agent 'poet'"):
            await agent.get("p").result()
        assert (await agent.get("p").info()).state is RunState.FAILED
        assert (await agent.run("go", id="q")).text == "late"


async def test_a_run_is_cancelled_with_the_runs_inside_of_it(database: str) -> None:
    ended: list[str] = []

    async def say(who: str, turn: int, request: Any) -> Any:
        if who == "boss":
            return [use("worker", id="w", prompt="go")]
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(who)

    boss = Agent("boss", "boss", tools=[Agent("worker", "worker").as_tool()])
    model = Asked(say)
    durable, chief = plain(database, boss, provider=model)
    async with durable:
        run = await chief.start("go", id="c")
        await until(lambda: model.asks["worker:0"] > 0)
        await run.cancel()
        with pytest.raises(RunCancelled), anyio.fail_after(5):
            await run.result()
        await until(lambda: ended == ["worker"])
        assert (await run.info()).state is RunState.CANCELLED
        assert [i.id for i in await durable.runs(state=RunState.CANCELLED)] == ["c"]
        with pytest.raises(RunCancelled):
            await chief.run("go", id="c")
        with pytest.raises(StateError, match="no run 'd'"):
            await chief.get("d").cancel()


async def test_who_stops_waiting_does_not_stop_the_run(sqlite: str) -> None:
    async def say(who: str, turn: int, request: Any) -> Any:
        await anyio.sleep(0.3)
        return "here I am"

    durable, agent = plain(sqlite, Agent("slow"), provider=Asked(say))
    async with durable:
        with anyio.move_on_after(0.1):
            await agent.run("go", id="s")
        assert (await agent.get("s").result()).text == "here I am"


async def test_a_deadline_ends_the_run_with_what_there_is(sqlite: str) -> None:
    async def say(who: str, turn: int, request: Any) -> Any:
        if turn == 0:
            return [use("look", id="1")]
        return await anyio.sleep_forever()

    @tool
    async def look() -> str:
        """Look."""
        return "seen"

    durable, agent = plain(sqlite, Agent("late", tools=[look]), provider=Asked(say))
    async with durable:
        result = await agent.run("go", deadline=0.5)
    assert result.stop is Stop.FAILED
    assert result.error == "deadline: the time for this run was over before the model answered"
    assert "seen" in str(result.messages[2].content)


async def test_concurrency_bounds_what_one_process_works_on(database: str) -> None:
    now, most = 0, 0

    async def say(who: str, turn: int, request: Any) -> Any:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await anyio.sleep(0.05)
        now -= 1
        return "done"

    durable, agent = plain(database, Agent("few"), provider=Asked(say), concurrency=2)
    async with durable:
        runs = [await agent.start("go", id=f"r{n}") for n in range(6)]
        states = {info.state for info in await durable.runs()}
        assert RunState.QUEUED in states
        assert [(await run.result()).text for run in runs] == ["done"] * 6
    assert most == 2


async def test_old_runs_are_forgotten_with_all_that_was_kept_of_them(database: str) -> None:
    @tool(once=True)
    def pay() -> str:
        """Pay."""
        return "paid"

    def say(who: str, turn: int, request: Any) -> Any:
        return [use("pay", id="1")] if turn == 0 else "done"

    durable, agent = plain(database, Agent("clerk", tools=[pay]), provider=Asked(say))
    async with durable:
        await agent.run("go", id="a")
        assert await durable.forget(older_than=60) == 0
        assert await durable.forget(older_than=-5) == 1
        assert await durable.runs() == []
        with pytest.raises(StateError, match="no run 'a'"):
            await agent.get("a").result()


async def test_what_ended_long_enough_ago_is_forgotten_by_itself(database: str) -> None:
    """And what goes on is not, however long ago it began."""
    open_gate = anyio.Event()

    async def say(who: str, turn: int, request: Any) -> Any:
        if "wait" in str(request.messages):
            await open_gate.wait()
        return "done"

    agent, model = Agent("clerk"), Asked(say)
    durable, clerk = plain(database, agent, provider=model)
    async with durable:
        await clerk.run("go", id="old")
        waits = await clerk.start("wait", id="waits")
        await until(lambda: model.asks.total() > 1)
    await anyio.sleep(1.5)  # the engine keeps times in whole seconds on SQLite
    durable = Durable(database, lease=LEASE, keep=0.1)
    clerk = durable.agent(agent, provider=model)
    async with durable:
        waits = clerk.get("waits")
        with anyio.fail_after(20):
            while [info.id for info in await durable.runs()] != ["waits"]:  # noqa: ASYNC110
                await anyio.sleep(0.05)
        open_gate.set()
        assert (await waits.result()).text == "done"


async def test_five_hundred_runs_at_once(sqlite: str) -> None:
    @tool
    async def look(number: int) -> int:
        """Look."""
        await anyio.sleep(0.01)
        return number

    def say(who: str, turn: int, request: Any) -> Any:
        return [use("look", id=f"{n}", number=n) for n in range(2)] if turn == 0 else "seen"

    durable = Durable(sqlite)
    agent = durable.agent(Agent("many", tools=[look]), provider=Asked(say))
    async with durable:
        results = await gather(*(agent.run("go", id=f"r{n}") for n in range(500)))
    assert {result.text for result in results} == {"seen"}
    assert len({result.run.id for result in results}) == 500


async def test_what_cannot_be_is_said_at_once(sqlite: str) -> None:
    agent = Agent("one")
    durable, one = plain(sqlite, agent, provider=ScriptedProvider([]))
    with pytest.raises(DefinitionError, match="async with durable"):
        await one.run("go")
    with pytest.raises(DefinitionError, match="async with durable"):
        await one.get("a").result()
    with pytest.raises(DefinitionError, match="async with durable"):
        await durable.runs()
    with pytest.raises(DefinitionError, match="two durable agents are called 'one'"):
        durable.agent(Agent("one"))
    with pytest.raises(DefinitionError, match="two durable agents are called 'one'"):
        durable.agent(Agent("boss", tools=[Agent("one").as_tool()]))
    with pytest.raises(DefinitionError, match="concurrency=0"):
        durable.agent(Agent("two"), concurrency=0)
    with pytest.raises(DefinitionError, match="no agent is named"):
        async with Durable(sqlite):
            pass
    async with durable:
        with pytest.raises(DefinitionError, match="before you enter"):
            durable.agent(Agent("two"))
        with pytest.raises(DefinitionError, match="without '//'"):
            await one.start("go", id="a//b")
        with pytest.raises(DefinitionError, match="the prompt is empty"):
            await one.start([])
        other, _ = plain(sqlite, agent, provider=ScriptedProvider([]))
        with pytest.raises(DefinitionError, match="one in a process"):
            async with other:
                pass
    # Leaving gives the loop's threads back.
    assert await asyncio.to_thread(time.monotonic) > 0


async def test_a_program_that_runs_the_engine_itself_keeps_it(sqlite: str) -> None:
    DBOS(config={"name": "own", "system_database_url": sqlite, "log_level": "CRITICAL"})
    try:
        DBOS.launch()
        durable, _ = plain(sqlite, Agent("one"), provider=ScriptedProvider([]))
        with pytest.raises(DefinitionError, match="a DBOS of its own"):
            async with durable:
                pass
        assert await DBOS.list_workflows_async() == []
    finally:
        await anyio.to_thread.run_sync(DBOS.destroy)
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor())


async def test_a_process_leaves_the_runs_of_agents_that_it_does_not_know(sqlite: str) -> None:
    away = anyio.Event()

    async def say(who: str, turn: int, request: Any) -> str:
        if not away.is_set():
            await anyio.sleep_forever()
        return "found"

    model = Asked(say)
    durable, agent = plain(sqlite, Agent("known"), provider=model)
    async with durable:
        await agent.start("go", id="k")
        await until(lambda: model.asks.total() == 1)
    away.set()
    other, _ = plain(sqlite, Agent("another"), provider=model)
    async with other:
        await anyio.sleep(LEASE * 3)
    assert model.asks.total() == 1
    durable, agent = plain(sqlite, Agent("known"), provider=model)
    async with durable:
        assert (await agent.get("k").result()).text == "found"


async def test_an_ask_that_takes_too_long_ends_the_run_as_ever(sqlite: str) -> None:
    async def say(who: str, turn: int, request: Any) -> Any:
        await anyio.sleep_forever()

    durable, agent = plain(
        sqlite, Agent("slow", limits=Limits(ask_seconds=0.2)), provider=Asked(say)
    )
    async with durable:
        result = await agent.run("go")
    assert (result.stop, result.error) == (Stop.FAILED, "timeout: no answer within 0.2 s")


async def test_a_run_goes_on_from_a_history(sqlite: str) -> None:
    durable, agent = plain(sqlite, Agent("talk"), provider=Asked(lambda *_: "and so on"))
    async with durable:
        first = await agent.run("Begin.")
        second = await agent.run("Go on.", history=first.messages)
    assert [m.role for m in second.messages] == ["user", "assistant"] * 2
    assert list(second.messages[:2]) == list(first.messages)


async def test_an_execution_that_lost_the_run_claims_nothing(sqlite: str) -> None:
    """Also where it raises the epoch after the new owner did, as it may when it wakes up."""
    store = MemoryStore()
    owner = "old"

    def claims(name: str) -> Claims:
        async def check() -> None:
            if owner != name:
                raise LookupError(name)

        return Claims(store, "run", check)

    @tool(once=True)
    async def pay() -> str:
        """Pay."""
        return "paid"

    async def perform() -> ToolResultContent:
        performed.append(owner)
        return ToolResultContent(tool_use_id="1", content=[])

    performed: list[str] = []
    old, new, late = claims("old"), claims("new"), claims("old")
    await old.perform(Effect(pay, "a", "1", {}), perform)
    owner = "new"
    await new.hold()
    with pytest.raises(LookupError):
        await old.perform(Effect(pay, "b", "1", {}), perform)
    with pytest.raises(LookupError):
        await late.perform(Effect(pay, "b", "1", {}), perform)
    await new.perform(Effect(pay, "b", "1", {}), perform)
    await new.perform(Effect(pay, "a", "1", {}), perform)
    assert performed == ["old", "new"]


def test_records_of_other_versions_and_damaged_ones_are_refused() -> None:
    agent = Agent("one")
    order = Order(run=start(agent.definition, "go", id="1"), until=5.0).to_json()
    read = Order.from_json(order, agent.definition)
    assert (read.run.id, read.until, read.run.messages) == ("1", 5.0, start(
        agent.definition, "go", id="1").messages)  # fmt: skip
    for wrong in ({**order, "v": 2}, None, {"v": 1}, {**order, "limits": {"steps": 0}}):
        with pytest.raises(StateError):
            Order.from_json(wrong, agent.definition)
    with pytest.raises(StateError, match="damaged"):
        Order.from_json({**order, "run": {**order["run"], "messages": []}}, agent.definition)


async def test_a_tool_that_is_stopped_stops_the_run_inside_of_it(sqlite: str) -> None:
    async def say(who: str, turn: int, request: Any) -> Any:
        if who == "worker":
            await anyio.sleep_forever()
        return [use("worker", id="w", prompt="go")] if turn == 0 else "never mind"

    boss = Agent("boss", "boss", tools=[Agent("worker", "worker").as_tool(timeout=0.5)])
    durable, chief = plain(sqlite, boss, provider=Asked(say))
    async with durable:
        result = await chief.run("go", id="b")
        assert "Timed out" in str(result.messages[2].content)
        with pytest.raises(RunCancelled):
            await chief.get("b//0/1.0/0").result()


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_trio_is_refused(tmp_path: Any) -> None:
    durable, _ = plain(f"sqlite:///{tmp_path / 'runs.db'}", Agent("one"))
    with pytest.raises(DefinitionError, match="asyncio"):
        async with durable:
            pass


def test_from_python_3_12_on_the_engine_needs_sqlite_3_42() -> None:
    assert takes_sqlite((3, 11), (3, 40, 1))
    assert not takes_sqlite((3, 12), (3, 41, 2))
    assert takes_sqlite((3, 12), (3, 42, 0))


@pytest.mark.skipif(takes_sqlite(), reason="the SQLite of this Python is new enough")
async def test_a_sqlite_that_is_too_old_for_the_engine_is_said_at_once(tmp_path: Any) -> None:
    durable, _ = plain(f"sqlite:///{tmp_path}/a.db", Agent("one"), provider=ScriptedProvider([]))
    with pytest.raises(DefinitionError, match=r"durable runs need SQLite 3\.42"):
        async with durable:
            pass
