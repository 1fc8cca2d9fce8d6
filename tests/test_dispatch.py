"""A turn's tool calls: together, bounded, each with a result whatever happens in it."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import math
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from mcp_types import TextContent, ToolResultContent, ToolUseContent
from structlog.testing import capture_logs

from agentloop import Agent, Limits, Stop, Tool, ToolError, tool
from agentloop.events import Event, RunEnded, ToolEnded, ToolStarted
from agentloop.strays import left_behind
from agentloop.threads import MAX_STUCK, MAX_THREADS, stuck
from agentloop_providers import ScriptedProvider
from agentloop_providers.scripted import use

pytestmark = pytest.mark.timeout(60)


async def results_of(
    calls: list[ToolUseContent],
    *tools: Tool | Callable[..., Any],
    limits: Limits | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> list[ToolResultContent]:
    """The results of one turn of ``calls``, after which the run must go on to its end."""
    agent = Agent("agent", tools=tools, limits=limits)
    with ScriptedProvider([*calls], "done") as provider:
        result = await agent.run("go", provider=provider, on_event=on_event)
    assert result.text == "done", result
    results = [b for b in result.messages[2].content_as_list if b.type == "tool_result"]
    assert len(results) == len(calls)
    return results


async def result_of(call: ToolUseContent, *tools: Any) -> ToolResultContent:
    return (await results_of([call], *tools))[0]


def text_of(result: ToolResultContent) -> str:
    return "|".join(block.text for block in result.content if block.type == "text")


async def until(so: Callable[[], bool]) -> None:
    """Wait until it is so."""
    with anyio.fail_after(5):
        while not so():  # noqa: ASYNC110  what is waited for knows of no event
            await anyio.sleep(0.01)


# --- together ----------------------------------------------------------------------------------


class Gauge:
    """How many of something run at the same time."""

    def __init__(self) -> None:
        self.now = self.most = self.ran = 0

    def __enter__(self) -> None:
        self.now += 1
        self.ran += 1
        self.most = max(self.most, self.now)

    def __exit__(self, *_: object) -> None:
        self.now -= 1


@pytest.mark.parametrize(("parallel", "most"), [(1, 1), (4, 4), (16, 16), (1000, 40)])
async def test_calls_run_together_but_no_more_than_the_cap(parallel: int, most: int) -> None:
    gauge = Gauge()

    @tool
    async def wait(n: int) -> int:
        """Wait."""
        with gauge:
            await anyio.sleep(0.01)
        return n

    calls = [use("wait", n=n) for n in range(40)]
    results = await results_of(calls, wait, limits=Limits(parallel=parallel))
    assert (gauge.most, gauge.ran) == (most, 40)
    assert [text_of(r) for r in results] == [str(n) for n in range(40)]


async def test_results_stand_in_the_order_of_the_calls_not_of_their_ends() -> None:
    ended: list[int] = []

    @tool
    async def wait(n: int) -> int:
        """Wait."""
        await anyio.sleep(0.05 * (4 - n))
        ended.append(n)
        return n

    results = await results_of([use("wait", n=n) for n in range(4)], wait)
    assert ended == [3, 2, 1, 0]
    assert [text_of(r) for r in results] == ["0", "1", "2", "3"]


async def test_a_worker_that_is_free_takes_the_next_call() -> None:
    @tool
    async def wait(seconds: float) -> None:
        """Wait."""
        await anyio.sleep(seconds)

    calls = [use("wait", seconds=0.3), *[use("wait", seconds=0.05) for _ in range(5)]]
    began = time.monotonic()
    await results_of(calls, wait, limits=Limits(parallel=2))
    assert (
        time.monotonic() - began < 0.5
    )  # in fixed pairs it would be at least 0.4, one by one 0.55


async def test_an_exclusive_tool_runs_alone_after_the_others_and_nobody_waits_for_it() -> None:
    log: list[str] = []

    @tool
    async def read(n: int) -> None:
        """Read."""
        log.append(f"read {n}")
        await anyio.sleep(0.03)
        log.append(f"read {n} ended")

    @tool(exclusive=True)
    async def write(n: int) -> None:
        """Write."""
        log.append(f"write {n}")
        await anyio.sleep(0.01)
        log.append(f"write {n} ended")

    calls = [use("write", n=1), use("read", n=1), use("write", n=2), use("read", n=2)]
    await results_of(calls, read, write)
    assert sorted(log[:2]) == ["read 1", "read 2"]
    assert sorted(log[2:4]) == ["read 1 ended", "read 2 ended"]
    assert log[4:] == ["write 1", "write 1 ended", "write 2", "write 2 ended"]


async def test_a_reply_of_ten_thousand_calls_is_quick_and_bounded() -> None:
    gauge = Gauge()

    @tool
    async def wait() -> None:
        """Wait."""
        with gauge:
            await anyio.sleep(0.001)

    began = time.monotonic()
    results = await results_of([use("wait") for _ in range(10_000)], wait)
    assert time.monotonic() - began < 5
    assert (gauge.ran, gauge.most) == (64, 16)
    assert sum(bool(r.is_error) for r in results) == 10_000 - 64


# --- functions that block ----------------------------------------------------------------------


async def lag_during(work: Callable[[], Awaitable[Any]]) -> float:
    """The longest time for which the event loop was held while ``work`` went on.

    The best of three, as other processes may hold the whole machine.
    """
    best = math.inf
    for _ in range(3):
        longest = 0.0

        async def watch() -> None:
            nonlocal longest
            while True:
                before = time.monotonic()
                await anyio.sleep(0.005)
                longest = max(longest, time.monotonic() - before - 0.005)

        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            await work()
            group.cancel_scope.cancel()
        best = min(best, longest)
        if best < 0.1:
            break
    return best


async def test_a_run_in_which_nothing_waits_lets_others_run_and_can_be_cancelled() -> None:
    calls = 0

    @tool
    async def count(n: int) -> int:
        """Count."""
        nonlocal calls
        calls = n
        time.sleep(0.001)  # noqa: ASYNC251  as code that works for a millisecond would
        return n

    agent = Agent("counter", tools=[count], limits=Limits(steps=None, tool_calls=None))
    provider = ScriptedProvider([use("count", n=n) for n in range(2000)])
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: agent.run("go", provider=provider))
        await until(lambda: calls > 0)
        group.cancel_scope.cancel()
    assert calls < 1000


async def test_functions_that_block_run_in_threads_together_and_do_not_hold_the_loop() -> None:
    threads: set[int] = set()

    def block(seconds: float) -> str:
        """Block."""
        threads.add(threading.get_ident())
        time.sleep(seconds)
        return "awake"

    async def work() -> None:
        began = time.monotonic()
        results = await results_of([use("block", seconds=0.4) for _ in range(8)], block)
        assert time.monotonic() - began < 1.5
        assert [text_of(r) for r in results] == ["awake"] * 8

    assert await lag_during(work) < 0.1
    assert len(threads) >= 8
    assert threading.get_ident() not in threads


async def test_a_function_that_never_returns_is_left_behind_and_a_few_of_them_are_enough() -> None:
    release, begun = threading.Event(), Gauge()

    @tool(timeout=0.1)
    def hang() -> str:
        """Hang."""
        begun.ran += 1
        release.wait()
        return "late"

    agent = Agent("agent", tools=[hang], limits=Limits(calls_per_reply=100, errors=None))
    try:
        provider = ScriptedProvider([use("hang") for _ in range(100)], "done")
        result = await agent.run("go", provider=provider)
        told = [text_of(b) for b in result.messages[2].content_as_list if b.type == "tool_result"]
        late = [text for text in told if text.startswith("Timed out after 0.1 s. It could not")]
        refused = [text for text in told if text.startswith("Not run: ")]
        assert len(late) + len(refused) == 100
        assert len(late) == begun.ran
        assert MAX_STUCK <= begun.ran <= MAX_STUCK + agent.definition.limits.parallel
        assert result.text == "done"

        async def again() -> None:
            await agent.run("go", provider=ScriptedProvider([use("hang")], "done"))

        assert await lag_during(again) < 0.1
    finally:
        release.set()
    await until(lambda: stuck() == 0)
    assert text_of(await result_of(use("hang"), hang)) == "late"


async def test_calls_that_only_waited_for_a_thread_are_not_counted_as_stuck() -> None:
    release = threading.Event()

    @tool
    def hang() -> None:
        """Hang."""
        release.wait()

    agent = Agent("agent", tools=[hang], limits=Limits(parallel=64))
    with anyio.move_on_after(0.2):
        await agent.run("go", provider=ScriptedProvider([use("hang") for _ in range(64)]))
    release.set()
    await until(lambda: stuck() == 0)


async def test_blocking_calls_share_so_many_threads_and_wait_for_one() -> None:
    gauge, lock = Gauge(), threading.Lock()

    def block() -> None:
        """Block."""
        with lock:
            gauge.__enter__()
        time.sleep(0.05)
        with lock:
            gauge.__exit__()

    await results_of([use("block") for _ in range(60)], block, limits=Limits(parallel=60))
    assert (gauge.ran, gauge.most) == (60, MAX_THREADS)


async def test_a_function_that_gives_an_awaitable_has_it_awaited() -> None:
    async def later() -> str:
        await anyio.lowlevel.checkpoint()
        return "later"

    @tool
    def promise() -> Any:
        """Promise."""
        return later()

    assert text_of(await result_of(use("promise"), promise)) == "later"


STUCK_THREAD = """
import sys, time, anyio
from agentloop import Agent, tool
from agentloop_providers import ScriptedProvider
from agentloop_providers.scripted import use

@tool(timeout=0.1)
def hang() -> None:
    "Hang."
    time.sleep(600)

async def main():
    provider = ScriptedProvider([use("hang")], "done")
    result = await Agent("a", tools=[hang]).run("go", provider=provider)
    print(result.text, flush=True)

anyio.run(main, backend=sys.argv[1])
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_stuck_thread_does_not_keep_the_process_from_ending(backend: str) -> None:
    process = subprocess.run(
        [sys.executable, "-c", STUCK_THREAD, backend],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (process.stdout.strip().splitlines()[-1], process.returncode) == ("done", 0)


# --- what goes wrong inside --------------------------------------------------------------------


async def test_one_call_that_fails_costs_its_siblings_nothing() -> None:
    @tool
    async def divide(a: int, b: int) -> float:
        """Divide."""
        await anyio.sleep(0.01 * a)
        return a / b

    calls = [use("divide", a=3, b=1), use("divide", a=1, b=0), use("divide", a=2, b=1)]
    results = await results_of(calls, divide)
    assert [text_of(r) for r in results] == [
        "3.0",
        "The tool failed with ZeroDivisionError.",
        "2.0",
    ]
    assert [r.is_error for r in results] == [None, True, None]


INTERRUPTS = [SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, StopIteration]


@pytest.mark.parametrize("error", [*INTERRUPTS, StopAsyncIteration, MemoryError, RecursionError])
@pytest.mark.parametrize("kind", ["async", "sync", "late"])
async def test_nothing_that_a_tool_raises_ends_more_than_its_call(
    error: type[BaseException], kind: str
) -> None:
    @tool
    async def soon() -> None:
        """Raise."""
        raise error

    @tool
    async def later() -> None:
        """Raise."""
        await anyio.sleep(0.01)
        raise error

    @tool
    def blocking() -> None:
        """Raise."""
        raise error

    @tool
    async def well() -> str:
        """Work."""
        await anyio.sleep(0.02)
        return "well"

    chosen = {"async": soon, "late": later, "sync": blocking}[kind]
    bad, good = await results_of([use(chosen.name), use("well")], chosen, well)
    assert bad.is_error
    assert text_of(good) == "well"


async def test_a_tool_that_cancels_itself_has_a_result_and_the_loop_goes_on(
    anyio_backend_name: str,
) -> None:
    @tool
    async def give_up() -> None:
        """Give up."""
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await anyio.sleep(1)

    if anyio_backend_name == "asyncio":
        result = await result_of(use("give_up"), give_up)
        assert text_of(result) == "The tool cancelled itself."


SIGINT = """
import sys, time, anyio
from agentloop import Agent, tool
from agentloop_providers import ScriptedProvider
from agentloop_providers.scripted import use

@tool
async def wait() -> None:
    "Wait."
    print("waiting", flush=True)
    await anyio.sleep(30)

@tool
def block() -> None:
    "Block."
    print("waiting", flush=True)
    time.sleep(30)

@tool(grace=0.2)
async def hold_on() -> None:
    "Swallow every cancellation, until the process ends."
    print("waiting", flush=True)
    until = time.monotonic() + 1
    while time.monotonic() < until:
        try:
            await anyio.sleep(1)
        except BaseException:
            pass

async def main():
    provider = ScriptedProvider([use(sys.argv[2])], "not interrupted")
    result = await Agent("a", tools=[wait, block, hold_on]).run("go", provider=provider)
    print(result.text, flush=True)

try:
    anyio.run(main, backend=sys.argv[1])
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("name", ["wait", "block", "hold_on"])
def test_a_persons_interrupt_still_stops_everything(backend: str, name: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SIGINT, backend, name],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert out.strip().splitlines()[-1] == "interrupted"
    assert "not interrupted" not in out


async def test_the_model_sees_the_text_of_a_tool_error_and_of_no_other() -> None:
    @tool
    async def lookup(key: str) -> None:
        """Look up."""
        if key == "wrong":
            raise ToolError("There is no such key; keys are: a, b.")
        if key == "grouped":
            async with anyio.create_task_group():
                raise ToolError("From a group.")
        if key == "nameless":
            raise ToolError
        raise ValueError("password=hunter2") from OSError("postgres://u:hunter2@db")

    calls = [use("lookup", key=k) for k in ("wrong", "grouped", "nameless", "any")]
    with capture_logs() as logs:
        results = await results_of(calls, lookup)
    assert [text_of(r) for r in results] == [
        "There is no such key; keys are: a, b.",
        "From a group.",
        "ToolError",
        "The tool failed with ValueError.",
    ]
    assert [r.is_error for r in results] == [True] * 4
    assert [(log["event"], log["tool"], log["error_type"]) for log in logs] == [
        ("tool_failed", "lookup", "ValueError")
    ]
    assert "test_dispatch.py:" in logs[0]["at"]
    assert "hunter2" not in str(logs)


async def test_an_author_may_show_the_model_every_error() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    @tool(reveal_errors=True)
    async def lookup(kind: str) -> None:
        """Look up."""
        raise Mute if kind == "mute" else ValueError("no such row")

    results = await results_of([use("lookup", kind="x"), use("lookup", kind="mute")], lookup)
    assert [text_of(r) for r in results] == ["ValueError: no such row", "Mute: "]


async def test_a_tool_that_gives_what_cannot_be_written_says_so() -> None:
    @tool
    async def odd() -> Any:
        """Give something odd."""
        return object()

    result = await result_of(use("odd"), odd)
    assert result.is_error
    assert text_of(result) == "The tool gave a object that has no JSON form."


# --- calls that are not run --------------------------------------------------------------------


async def test_a_tool_may_change_its_arguments_and_the_history_says_what_was_sent() -> None:
    """What the model is shown of its calls is what it called, however deep a tool reaches."""

    async def take_apart(order: dict[str, Any], lines: list[Any]) -> str:
        order["lines"].clear()
        order["paid"] = True
        lines[0]["count"] = 0
        lines.append("more")
        return "done"

    sent: dict[str, Any] = {"order": {"lines": [1, 2]}, "lines": [{"count": 3}]}
    with ScriptedProvider([use("take_apart", **copy.deepcopy(sent))], "done") as provider:
        await Agent("agent", tools=[take_apart]).run("go", provider=provider)

    (called,) = provider.requests[-1].messages[1].content_as_list
    assert called.type == "tool_use"
    assert called.input == sent


async def test_a_tool_may_change_a_block_that_it_gave_and_the_history_says_what_it_was() -> None:
    block = TextContent(text="one")

    async def give() -> TextContent:
        return block

    async def change() -> None:
        block.text = "two"

    with ScriptedProvider([use("give")], [use("change")], "done") as provider:
        result = await Agent("agent", tools=[give, change]).run("go", provider=provider)

    (given,) = result.messages[2].content_as_list
    assert given.type == "tool_result"
    assert text_of(given) == "one"


async def test_an_unknown_tool_is_answered_with_the_nearest_names_and_the_others_run() -> None:
    def named(name: str) -> Tool:
        @tool(name=name)
        async def fn() -> str:
            """Do it."""
            return name

        return fn

    tools = [named(n) for n in ("read_file", "read_files", "write_file", "find", "list", "stat")]
    results = await results_of([use("readfile"), use("find")], *tools)
    assert results[0].is_error
    assert text_of(results[0]).startswith(
        "There is no tool 'readfile'. Tools with near names: read_file, read_files, "
    )
    assert text_of(results[0]).count(",") <= 4
    assert text_of(results[1]) == "find"


async def test_without_any_tools_there_are_no_near_names() -> None:
    assert text_of(await result_of(use("x"))).endswith("Tools with near names: none.")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({}, "n: Field required"),
        ({"n": "many"}, 'unable to parse string as an integer (got "many")'),
        ({"n": 1, "m": 2}, "m: Extra inputs are not permitted (got 2)"),
        ({"n": "x" * 1_000_000}, "..."),
    ],
)
async def test_arguments_that_do_not_fit_are_explained_and_the_tool_is_not_run(
    arguments: dict[str, Any], told: str
) -> None:
    ran: list[int] = []

    @tool
    async def count(n: int) -> None:
        """Count."""
        ran.append(n)

    result = await result_of(use("count", **arguments), count)
    assert result.is_error
    assert text_of(result).startswith("Not run, the arguments do not fit: ")
    assert told in text_of(result)
    assert len(text_of(result)) < 500
    assert ran == []


async def test_a_check_that_breaks_is_a_result_too() -> None:
    def check(arguments: dict[str, Any]) -> dict[str, Any]:
        raise KeyError("secret")

    broken = Tool(name="t", description="", input_schema={"type": "object"}, fn=print, check=check)
    assert text_of(await result_of(use("t"), broken)) == "The tool failed with KeyError."


# --- time --------------------------------------------------------------------------------------


async def test_a_call_that_takes_too_long_is_stopped_and_its_siblings_are_kept() -> None:
    stopped: list[str] = []

    @tool(timeout=0.1)
    async def hang() -> None:
        """Hang."""
        try:
            await anyio.sleep(60)
        finally:
            stopped.append("hang")

    @tool
    async def quick() -> str:
        """Be quick."""
        return "quick"

    began = time.monotonic()
    late, kept = await results_of([use("hang"), use("quick")], hang, quick)
    assert time.monotonic() - began < 1
    assert (text_of(late), late.is_error) == ("Timed out after 0.1 s.", True)
    assert text_of(kept) == "quick"
    assert stopped == ["hang"]


async def test_a_call_that_gives_something_when_it_is_stopped_gave_it() -> None:
    @tool(timeout=0.05)
    async def search() -> str:
        """Search."""
        try:
            await anyio.sleep(60)
        except anyio.get_cancelled_exc_class():
            return "found so far: 3"
        return "all"

    assert text_of(await result_of(use("search"), search)) == "found so far: 3"


async def test_a_tool_may_have_all_the_time_there_is() -> None:
    @tool(timeout=None)
    async def wait() -> str:
        """Wait."""
        await anyio.sleep(0.05)
        return "waited"

    assert text_of(await result_of(use("wait"), wait)) == "waited"


class Stubborn:
    """A tool that swallows every cancellation until it is released."""

    def __init__(self, **options: Any) -> None:
        self.released = False
        self.swallowed = 0
        self.tool = tool(name="hold_on", **options)(self._hold_on)

    async def _hold_on(self) -> str:
        while not self.released:
            try:
                await anyio.sleep(0.02)
            except anyio.get_cancelled_exc_class():
                self.swallowed += 1
        return "late"

    async def release(self) -> None:
        self.released = True
        await until(lambda: not left_behind())


async def test_a_call_that_does_not_stop_is_left_behind_and_the_loop_goes_on() -> None:
    stubborn = Stubborn(timeout=0.05, grace=0.1)

    @tool
    async def quick() -> str:
        """Be quick."""
        return "quick"

    began = time.monotonic()
    with capture_logs() as logs:
        late, kept = await results_of([use("hold_on"), use("quick")], stubborn.tool, quick)
    assert 0.1 < time.monotonic() - began < 1
    assert late.is_error
    assert text_of(late) == (
        "Timed out after 0.05 s. It could not be stopped: it may still be at work."
    )
    assert text_of(kept) == "quick"
    assert left_behind() == 1
    assert logs == [
        {
            "event": "tool_left_behind",
            "tool": "hold_on",
            "grace": 0.1,
            "left_behind": 1,
            "log_level": "warning",
        }
    ]
    swallowed = stubborn.swallowed
    await anyio.sleep(0.1)
    assert stubborn.swallowed - swallowed <= 1, "it is left in peace, not cancelled for ever"
    await stubborn.release()


async def test_a_call_that_does_not_stop_does_not_hold_a_run_that_is_cancelled() -> None:
    stubborn = Stubborn(grace=0.1)
    began = time.monotonic()
    with anyio.move_on_after(0.05) as scope:
        await results_of([use("hold_on"), use("hold_on")], stubborn.tool)
    assert scope.cancelled_caught
    assert time.monotonic() - began < 1
    assert left_behind() == 2
    await stubborn.release()


async def test_a_call_gets_its_grace_to_stop_well() -> None:
    stopped: list[str] = []

    @tool(timeout=0.05, grace=5)
    async def careful() -> None:
        """Clean up."""
        try:
            await anyio.sleep(60)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.1)
            stopped.append("well")

    await result_of(use("careful"), careful)
    assert stopped == ["well"]
    assert left_behind() == 0


# --- cancellation ------------------------------------------------------------------------------


async def test_cancelling_a_run_stops_its_tools_and_keeps_what_is_finished() -> None:
    log: list[str] = []
    begun = anyio.Event()
    ends: list[Event] = []

    @tool
    async def quick() -> str:
        """Be quick."""
        return "kept"

    @tool
    async def slow(n: int) -> None:
        """Be slow."""
        try:
            if n == 2:
                begun.set()
            await anyio.sleep(60)
        except BaseException as error:
            log.append(type(error).__name__)
            raise
        finally:
            log.append(f"finally {n}")

    @tool
    def blocking() -> None:
        """Block."""
        time.sleep(0.5)

    agent = Agent("agent", tools=[quick, slow, blocking])
    calls = [use("quick"), use("slow", n=1), use("slow", n=2), use("blocking")]
    began = time.monotonic()
    async with anyio.create_task_group() as group:

        async def go() -> None:
            provider = ScriptedProvider([*calls])
            await agent.run("go", provider=provider, on_event=ends.append)
            log.append("not cancelled")

        group.start_soon(go)
        await begun.wait()
        await anyio.sleep(0.05)
        group.cancel_scope.cancel()
    assert time.monotonic() - began < 0.45, "nobody waits for the thread"
    assert sorted(log) == ["Cancelled", "Cancelled", "finally 1", "finally 2"] or sorted(log) == [
        "CancelledError",
        "CancelledError",
        "finally 1",
        "finally 2",
    ]
    ended = ends[-1]
    assert isinstance(ended, RunEnded)
    assert ended.run.stop is Stop.CANCELLED
    told = {
        b.tool_use_id: text_of(b)
        for b in ended.run.messages[-1].content_as_list
        if b.type == "tool_result"
    }
    assert list(told.values()) == ["kept"] + ["Not run: the run ended (cancelled)."] * 3
    assert ended.run.messages.imbalance() is None


async def test_a_task_that_is_cancelled_by_asyncios_own_means_stops_as_well(
    anyio_backend_name: str,
) -> None:
    if anyio_backend_name != "asyncio":
        return
    stopped: list[bool] = []

    @tool
    async def slow() -> None:
        """Be slow."""
        try:
            await anyio.sleep(60)
        finally:
            stopped.append(True)

    agent = Agent("agent", tools=[slow])
    task = asyncio.ensure_future(agent.run("go", provider=ScriptedProvider([use("slow")])))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stopped == [True]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await agent.run("go", provider=ScriptedProvider([use("slow")]))
    assert len(stopped) == 2


async def test_a_call_that_ends_in_the_moment_of_its_cancellation_has_its_result() -> None:
    ends: list[Event] = []
    scope = anyio.CancelScope()

    @tool
    async def last_deed() -> str:
        """End everything."""
        scope.cancel()
        return "done for good"

    agent = Agent("agent", tools=[last_deed])
    with scope:
        await agent.run("go", provider=ScriptedProvider([use("last_deed")]), on_event=ends.append)
    assert scope.cancelled_caught
    ended = ends[-1]
    assert isinstance(ended, RunEnded)
    (block,) = ended.run.messages[-1].content_as_list
    assert block.type == "tool_result"
    assert text_of(block) == "done for good"


async def test_nothing_outlives_a_run(anyio_backend_name: str) -> None:
    @tool(timeout=0.02)
    async def slow() -> None:
        """Be slow."""
        await anyio.sleep(60)

    @tool
    async def quick() -> None:
        """Be quick."""

    before = len(asyncio.all_tasks()) if anyio_backend_name == "asyncio" else 0
    await results_of([use("slow"), use("quick"), use("quick")], slow, quick)
    await anyio.lowlevel.checkpoint()
    if anyio_backend_name == "asyncio":
        assert len(asyncio.all_tasks()) == before
    assert left_behind() == 0


# --- surroundings ------------------------------------------------------------------------------

USER: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")


async def test_context_variables_reach_tools_and_what_tools_set_stays_there() -> None:
    @tool
    async def who(name: str) -> str:
        """Say who."""
        was = USER.get()
        USER.set(name)
        return was

    def who_in_a_thread(name: str) -> str:
        """Say who."""
        was = USER.get()
        USER.set(name)
        return was

    token = USER.set("ann")
    try:
        calls = [use("who").model_copy(update={"input": {"name": "bo"}})]
        calls += [use("who_in_a_thread").model_copy(update={"input": {"name": "cy"}})]
        for turn in (calls, calls[:1], calls * 3):
            results = await results_of([*turn], who, who_in_a_thread)
            assert {text_of(r) for r in results} == {"ann"}
        assert USER.get() == "ann"
    finally:
        USER.reset(token)


async def test_each_call_has_a_beginning_and_an_end_to_be_seen() -> None:
    seen: list[Event] = []

    @tool
    async def quick(n: int) -> int:
        """Be quick."""
        return n

    calls = [use("quick", n=1), use("quick", n="x"), use("nope"), use("quick", n=2)]
    results = await results_of(calls, quick, on_event=seen.append)
    started = [e.call.id for e in seen if isinstance(e, ToolStarted)]
    ended = {e.call.id: e for e in seen if isinstance(e, ToolEnded)}
    assert sorted(started) == sorted(ended) == sorted(r.tool_use_id for r in results)
    assert all(ended[r.tool_use_id].result == r for r in results)
    assert all(0 <= e.seconds < 1 for e in ended.values())


async def test_a_sink_that_fails_changes_nothing_but_the_log() -> None:
    def sink(event: Event) -> None:
        raise RuntimeError("sink")

    @tool
    async def quick() -> str:
        """Be quick."""
        return "quick"

    with capture_logs() as logs:
        (result,) = await results_of([use("quick")], quick, on_event=sink)
    assert text_of(result) == "quick"
    assert {log["event"] for log in logs} == {"event_sink_failed"}
