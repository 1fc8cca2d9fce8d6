"""Load, each figure against its bar: loops at once, loops that wait, a shared client, and a soak.

uv run python benchmarks/soak.py [--minutes MINUTES] [PART ...]

- *overhead*: a step of agentloop's next to one of a loop that is written by hand;
- *burst*: 1,000 loops through MCP push in one process, five turns that call two tools each and a
  last one in words; all at once, and arriving over ten seconds;
- *waiting*: 10,000 loops that wait for a client which takes 50 ms to 5 s to answer;
- *shared*: 500 runs at once on one provider, over real HTTP to an endpoint in another thread;
- *soak*: loops on all carriers, and with a store in memory and one in a file, at a steady rate; of
  twenty one meets a fault, and one is cancelled. The stores forget a call after five seconds; by
  default they keep one for an hour, and a soak that is shorter would see nothing but that memory
  fill up.

Client, server, model and tools share one process, and each part has a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import os
import random
import resource
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import mcp_memory
import structlog
from mcp import Client
from mcp.server.lowlevel import Server
from mcp_types import (
    CreateMessageRequestParams,
    CreateMessageResultWithTools,
    TextContent,
    ToolUseContent,
)
from measuring import machine, table

from agentloop import Agent, Limits, tool
from agentloop.errors import OverloadedError
from agentloop.mcp import mount
from agentloop.mcp.callback import TOOLS, sampling_callback
from agentloop.sql_store import SQLiteStore
from agentloop.store import MemoryStore, Store
from agentloop.threads import IDLE_SECONDS
from agentloop.transcript import Transcript
from agentloop_providers import OpenAIChatProvider

TURNS = 5
ASKS = TURNS + 1
GO = {"prompt": "Go"}
JSON = dict[str, Any]


def said(*blocks: Any) -> CreateMessageResultWithTools:
    return CreateMessageResultWithTools(role="assistant", content=list(blocks), model="fake")


DONE = said(TextContent(text="Done."))


class Model:
    """Calls two tools a turn, then says that it is done. Keeps nothing between asks."""

    name = "fake"

    def __init__(self, turns: int = TURNS) -> None:
        self.turns = turns
        self.unbalanced = 0

    async def sample(self, request: CreateMessageRequestParams) -> CreateMessageResultWithTools:
        if Transcript(request.messages).imbalance() is not None:
            self.unbalanced += 1
        turn = len(request.messages) // 2
        return DONE if turn >= self.turns else said(*self.uses(turn))

    def uses(self, turn: int) -> list[ToolUseContent]:
        return [
            ToolUseContent(name="add", id=f"c{turn}-{number}", input={"a": turn, "b": number})
            for number in range(2)
        ]


async def add(a: int, b: int) -> str:
    """Add two numbers."""
    return str(a + b)


@asynccontextmanager
async def client_of(
    model: Any, *, carrier: str = "push", tools: Any = (add,), store: Store | None = None
) -> AsyncIterator[Client]:
    """A client of an agent in this process, with ``model`` behind it."""
    server: Server[Any] = Server("soak")
    agent = Agent("worker", tools=list(tools), limits=Limits(errors=None))
    mount(server, agent, store=store)
    async with Client(
        server,
        mode="legacy" if carrier == "push" else "auto",
        sampling_callback=sampling_callback(model),
        sampling_capabilities=TOOLS,
        raise_exceptions=False,
    ) as client:
        yield client


# --- what is watched ---------------------------------------------------------------------------


def resident() -> float:
    """MB in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


class Lag:
    """For how long the event loop did not come round."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def watch(self) -> None:
        before = time.monotonic()
        while True:
            await anyio.sleep(0.01)
            now = time.monotonic()
            self.seconds.append(max(now - before - 0.01, 0.0))
            before = now

    def percentile(self, percent: int) -> float:
        return statistics.quantiles(self.seconds, n=100)[percent - 1]


async def together(work: Callable[[], Awaitable[None]], times: int, *, over: float = 0.0) -> Lag:
    """Do ``work`` so many times, begun evenly ``over`` so many seconds; how the loop lagged."""
    lag = Lag()
    async with anyio.create_task_group() as watching:
        watching.start_soon(lag.watch)
        async with anyio.create_task_group() as group:
            began = time.monotonic()
            for number in range(times):
                group.start_soon(work)
                if (wait := began + over * number / times - time.monotonic()) > 0:
                    await anyio.sleep(wait)
        watching.cancel_scope.cancel()
    return lag


Figure = tuple[str, str, str, bool]
"""What is measured, the figure, its bar, and whether it holds."""


def at_most(what: str, value: float, bar: float, unit: str = "") -> Figure:
    return (what, f"{value:,.4g}{unit}", f"at most {bar:,g}{unit}", value <= bar)


def at_least(what: str, value: float, bar: float, unit: str = "") -> Figure:
    return (what, f"{value:,.4g}{unit}", f"at least {bar:,g}{unit}", value >= bar)


# --- the parts ---------------------------------------------------------------------------------


async def overhead(_: float) -> list[Figure]:
    """What a step takes next to a loop that is written by hand on the same wire."""
    figures: list[Figure] = []
    for carrier in ("push", "rounds"):
        mode, by_hand = mcp_memory.CARRIERS[carrier]
        for turns, bar in ((5, 1.25), (100, 2)):
            took = await mcp_memory.measure(mode, ["agentloop", by_hand], turns)
            ratio = took["agentloop"].ratio_to(took[by_hand])
            cpu = took[by_hand].median / (turns + 1) * 1e3
            what = f"CPU per step, {carrier}, {turns} turns, next to {cpu:.2g} ms by hand"
            figures.append(at_most(what, ratio, bar, " times"))
    return figures


async def burst(_: float) -> list[Figure]:
    """1,000 loops at once, and arriving over ten seconds."""
    loops, done = 1000, 0

    async def call() -> None:
        nonlocal done
        result = await client.call_tool("worker", GO)
        done += not result.is_error

    async with client_of(Model()) as client:
        await call()
        began, used = time.perf_counter(), time.process_time()
        await together(call, loops)
        wall, cpu = time.perf_counter() - began, time.process_time() - used
        lag = await together(call, loops, over=10)
    steps = loops * ASKS
    return [
        at_least("loops that finish", done - 1, 2 * loops),
        at_least("steps a second, all at once", steps / wall, 350),
        at_most("CPU per step", cpu / steps * 1e3, 1000 / 350, " ms"),
        at_most("p99 of the loop's lag, over 10 s", lag.percentile(99) * 1e3, 100, " ms"),
    ]


class SlowModel(Model):
    """Holds all answers back until told, and then takes 50 ms to 5 s for each."""

    def __init__(self) -> None:
        super().__init__(turns=1)
        self.waiting = 0
        self.answering = anyio.Event()

    async def sample(self, request: CreateMessageRequestParams) -> CreateMessageResultWithTools:
        self.waiting += 1
        await self.answering.wait()
        await anyio.sleep(random.uniform(0.05, 5))
        return await super().sample(request)


async def waiting(_: float) -> list[Figure]:
    """10,000 loops that wait for a slow client."""
    loops, done = 10_000, 0
    model = SlowModel()

    async def call() -> None:
        nonlocal done
        result = await client.call_tool("worker", GO)
        done += not result.is_error

    async with client_of(model) as client:
        before = resident()
        async with anyio.create_task_group() as group:
            for _ in range(loops):
                group.start_soon(call)
            while model.waiting < loops:  # noqa: ASYNC110
                await anyio.sleep(0.05)
            each = (resident() - before) / loops * 1024
            model.answering.set()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return [
        at_least("loops that finish", done, loops),
        at_most("memory of the process at its peak", peak, 1536, " MB"),
        at_most("memory per waiting loop", each, 150, " KB"),
    ]


class Endpoint:
    """Chat completions over HTTP, said by hand; counts its connections."""

    def __init__(self) -> None:
        self.open = self.most = self.asks = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(
                    int(line.split(b":")[1])
                    for line in head.lower().splitlines()
                    if line.startswith(b"content-length")
                )
                body = json.loads(await reader.readexactly(length))
                self.asks += 1
                await asyncio.sleep(0.02)
                text = json.dumps(self._answer(body)).encode()
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
                    b"content-length: %d\r\n\r\n%s" % (len(text), text)
                )
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
        finally:
            self.open -= 1

    def _answer(self, body: JSON) -> JSON:
        turn = sum(message["role"] == "assistant" for message in body["messages"])
        message: JSON = {"role": "assistant", "content": "Done."}
        if turn < 2:
            call = {"name": "add", "arguments": json.dumps({"a": turn, "b": 1})}
            calls = [{"id": f"c{turn}", "type": "function", "function": call}]
            message = {"role": "assistant", "content": None, "tool_calls": calls}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return {
            "id": "x",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [choice],
        }


@asynccontextmanager
async def served(endpoint: Endpoint) -> AsyncIterator[str]:
    """The endpoint's address; it runs in a thread of its own."""
    ready: list[Any] = []
    started = threading.Event()

    async def run() -> None:
        server = await asyncio.start_server(endpoint.serve, "127.0.0.1", 0, backlog=2048)
        ended = asyncio.Event()
        ready.extend((server.sockets[0].getsockname()[1], asyncio.get_running_loop(), ended))
        started.set()
        await ended.wait()

    thread = threading.Thread(target=asyncio.run, args=(run(),), daemon=True)
    thread.start()
    await anyio.to_thread.run_sync(started.wait)
    port, loop, ended = ready
    try:
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        loop.call_soon_threadsafe(ended.set)


async def shared(_: float) -> list[Figure]:
    """500 runs at once on one provider, whose pool takes 50 connections."""
    import httpx2
    from openai import AsyncOpenAI

    runs, pool, done = 500, 50, 0
    endpoint = Endpoint()
    agent = Agent("worker", tools=[add])

    def contexts() -> int:
        return sum(isinstance(item, ssl.SSLContext) for item in gc.get_objects())

    async with served(endpoint) as url:
        limits = httpx2.Limits(max_connections=pool, max_keepalive_connections=pool)
        http = httpx2.AsyncClient(limits=limits, timeout=60)
        sdk = AsyncOpenAI(api_key="k", base_url=url, max_retries=0, http_client=http)
        provider = OpenAIChatProvider("m", client=sdk)

        async def run() -> None:
            nonlocal done
            result = await agent.run("Go", provider=provider)
            done += result.text == "Done."

        await run()
        threads, secured, tasks = threading.active_count(), contexts(), len(asyncio.all_tasks())
        await together(run, runs)
        more_threads = threading.active_count() - threads
        more_tasks = len(asyncio.all_tasks()) - tasks
        figures = [
            at_least("runs that finish", done - 1, runs),
            at_most("connections", endpoint.most, pool),
            at_most("threads more than before", more_threads, 0),
            at_most("TLS contexts more than before", contexts() - secured, 1),
            at_most("tasks more than before", more_tasks, 0),
        ]
        await sdk.close()
    return figures


# --- the soak ----------------------------------------------------------------------------------

RATE = 50
"""Loops a second."""

KEEP_SECONDS = 5.0
"""For which the stores keep a call."""

AT_ONCE = 50
"""Loops at most, so that a busy machine slows the soak down and piles nothing up."""


class FaultyModel(Model):
    """One ask in so many meets a fault, so that one loop in twenty does."""

    def __init__(self) -> None:
        super().__init__(turns=3)
        self.faults = 0

    async def sample(self, request: CreateMessageRequestParams) -> CreateMessageResultWithTools:
        reply = await super().sample(request)
        await anyio.sleep(random.uniform(0, 0.02))
        if random.random() > 0.05 / (self.turns + 1):
            return reply
        self.faults += 1
        return random.choice(FAULTS)()

    def uses(self, turn: int) -> list[ToolUseContent]:
        in_thread = _use("work", {"n": random.randrange(100)}, f"w{turn}")
        return [*super().uses(turn), in_thread]


def _overloaded() -> CreateMessageResultWithTools:
    raise OverloadedError("too many asks")


def _use(name: str, given: JSON, id: str = "c") -> ToolUseContent:
    return ToolUseContent(name=name, id=id, input=given)


FAULTS: list[Callable[[], CreateMessageResultWithTools]] = [
    _overloaded,
    lambda: said(),
    lambda: said(_use("nothing", {})),
    lambda: said(_use("add", {"a": "\ud7ff"}), _use("add", {"a": 1, "b": 1})),
    lambda: said(_use("fail", {"kind": 0})),
    lambda: said(_use("fail", {"kind": 1}), _use("fail", {"kind": 2}, "d")),
    lambda: CreateMessageResultWithTools(
        role="assistant", content=[], model="fake", stop_reason="refusal"
    ),
]


def work(n: int) -> str:
    """Work in a thread."""
    return "x" * n * 100


@tool(timeout=0.2)
async def fail(kind: int) -> Any:
    """Raise, take too long, or give what is no result."""
    if kind == 0:
        raise RuntimeError("no")
    if kind == 1:
        await anyio.sleep(10)
    return object()


class Soak:
    """Loops at a steady rate, and what is left of them."""

    def __init__(self, minutes: float) -> None:
        self._minutes = minutes
        self.model = FaultyModel()
        self.begun = self.ended = self.cancelled = 0
        self.sizes: list[tuple[int, float, int]] = []
        """Loops that had ended, MB in memory then, and blocks of memory that Python had in use."""

    async def one(self, call: Callable[[], Awaitable[Any]]) -> None:
        """One loop to its end, or cancelled somewhere."""
        patience = random.uniform(0, 0.15) if random.random() < 0.05 else 60
        with anyio.move_on_after(patience) as scope:
            await call()
        self.cancelled += scope.cancelled_caught
        self.ended += 1

    async def run(self, calls: list[Callable[[], Awaitable[Any]]]) -> None:
        until = time.monotonic() + self._minutes * 60
        every = self._minutes * 60 / 60
        due = time.monotonic()
        looked = due
        async with anyio.create_task_group() as group:
            while (now := time.monotonic()) < until:
                due += 1 / RATE
                if self.begun - self.ended < AT_ONCE:  # else the machine is too slow for the rate
                    group.start_soon(self.one, calls[self.begun % len(calls)])
                    self.begun += 1
                if now - looked > every:
                    looked = now
                    gc.collect()
                    self.sizes.append((self.ended, resident(), sys.getallocatedblocks()))
                await anyio.sleep(max(due - now, 0))

    def slopes(self) -> tuple[float, float]:
        """MB and blocks more per 10,000 loops, in the second half."""
        half = self.sizes[len(self.sizes) // 2 :]
        loops, sizes, blocks = zip(*half, strict=True)
        megabytes = statistics.linear_regression(loops, sizes).slope * 10_000
        return megabytes, statistics.linear_regression(loops, blocks).slope * 10_000


async def soak(minutes: float) -> list[Figure]:
    """Loops on all carriers, some of which meet a fault or are cancelled."""
    run = Soak(minutes)
    tools = (add, work, fail)
    own = Agent("own", tools=list(tools), limits=Limits(errors=None), provider=run.model)
    errors: Counter[str] = Counter()

    def calling(client: Client) -> Callable[[], Awaitable[Any]]:
        async def call() -> None:
            try:
                await client.call_tool("worker", GO)
            except Exception as error:  # noqa: BLE001  counted by its type
                errors[type(error).__name__] += 1

        return call

    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        file = SQLiteStore(Path(folder) / "calls.db", keep=KEEP_SECONDS)
        stack.push_async_callback(file.close)
        calls: list[Callable[[], Awaitable[Any]]] = [lambda: own.run("Go")]
        for carrier, store in (
            ("push", None),
            ("rounds", None),
            ("rounds", MemoryStore(keep=KEEP_SECONDS)),
            ("rounds", file),
        ):
            client = client_of(run.model, carrier=carrier, tools=tools, store=store)
            calls.append(calling(await stack.enter_async_context(client)))
        for call in calls:
            await call()
        await anyio.sleep(0.5)
        before = (len(asyncio.all_tasks()), threading.active_count(), open_files())
        used = time.process_time()
        await run.run(calls)
        used = time.process_time() - used
        await anyio.sleep(IDLE_SECONDS + 2)
        gc.collect()
        after = (len(asyncio.all_tasks()), threading.active_count(), open_files())
    sys.stderr.write(
        f"{run.ended} loops, {run.model.faults} faults, {run.cancelled} cancelled, errors that "
        f"clients saw: {dict(errors)}; memory {run.sizes[0][1]:.0f} to {run.sizes[-1][1]:.0f} MB\n"
    )
    tasks, threads, files = (b - a for a, b in zip(before, after, strict=True))
    figures = [
        at_least("loops that end", run.ended, run.begun),
        at_least("loops a second", run.ended / (minutes * 60), RATE * 0.9),
        at_most("CPU per loop", used / run.ended * 1e3, 1000 / RATE, " ms"),
        at_most("tasks more than before", tasks, 0),
        at_most("threads more than before", threads, 0),
        at_most("files more than before", files, 0),
        at_most("unbalanced histories", run.model.unbalanced, 0),
    ]
    if minutes >= LONG:
        megabytes, blocks = run.slopes()
        figures += [
            at_most("growth per 10,000 loops, after warm-up", megabytes, 1, " MB"),
            at_most("objects kept per loop, after warm-up", blocks / 10_000, 1),
        ]
    return figures


PARTS: dict[str, Callable[[float], Awaitable[list[Figure]]]] = {
    part.__name__: part for part in (overhead, burst, waiting, shared, soak)
}
SHORT = 0.5
"""Minutes of a soak where nobody says how long."""

LONG = 3
"""Minutes after which memory has warmed up, so that growth can be told from that."""


def figures_of(part: str, minutes: float) -> list[Figure]:
    """What a part measures in a process of its own."""
    command = [sys.executable, __file__, "--alone", part, "--minutes", str(minutes)]
    # Else glibc gives each thread heaps of its own, which fill up with holes for hours; that would
    # hide what this looks for. Servers whose tools work in threads are best run like this, too.
    alone = {**os.environ, "MALLOC_ARENA_MAX": "2"}
    ended = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=alone)
    return json.loads(ended.stdout)


def report(parts: list[str], minutes: float) -> str:
    rows = [
        [f"{part}: {what}", figure, bar, "holds" if holds else "**does not hold**"]
        for part in parts
        for what, figure, bar, holds in figures_of(part, minutes)
    ]
    return "\n\n".join(
        [
            f"## Load: figures against their bars (a soak of {minutes:g} minutes)",
            table(["figure", "measured", "bar", ""], rows),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--minutes", type=float, default=SHORT, help="of the soak")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if unknown := set(chosen.parts) - set(PARTS):
        parser.error(f"there are no parts {sorted(unknown)}; there are {', '.join(PARTS)}")
    if chosen.alone:
        warnings.filterwarnings("ignore", message=".*SEP-2577.*")
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
        logging.disable(logging.CRITICAL)
        figures = anyio.run(PARTS[chosen.parts[0]], chosen.minutes)
        sys.stdout.write(json.dumps(figures))
    else:
        sys.stdout.write(f"{report(chosen.parts or list(PARTS), chosen.minutes)}\n\n{machine()}\n")


if __name__ == "__main__":
    main()
