"""Stores under load: what a round costs over HTTP, what a claim costs, and several replicas on
PostgreSQL of which one is killed every few seconds.

uv run python benchmarks/replicas.py [--minutes MINUTES]

A round is measured in a server process of its own, next to a server that is written by hand on the
bare SDK and keeps its transcript in the sealed state. The clients are requests by hand.

Four server processes over HTTP share a database. 200 clients call an agent whose tools must not
run twice, again and again; every ten seconds one replica gets ``SIGKILL`` and another takes its
place. A client whose request came to nothing sends it again, to any replica. What the tools did is
in a file that they append to. Without PostgreSQL only SQLite is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx2
import mcp_memory
import steps
import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from measuring import machine, table
from sqlalchemy import create_engine, event

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from agentloop import Agent, Limits, tool  # noqa: E402
from agentloop.mcp import resumable  # noqa: E402
from agentloop.sql_store import SQLiteStore, SQLStore  # noqa: E402
from agentloop.store import LEASE_SECONDS, Entered  # noqa: E402
from tests.faults.http import post_of, result_of  # noqa: E402
from tests.faults.wire import Rejected  # noqa: E402
from tests.postgresql import installed, running  # noqa: E402

REPLICAS = 4
CLIENTS = 200
KILL_SECONDS = 10.0
CLAIMS = 300
SHORT = 0.5
"""Minutes of killing where nobody says how long."""
JSON = dict[str, Any]


class Replicas:
    """Server processes, each forked from one that has everything loaded."""

    def __init__(self, parent: subprocess.Popen[str], options: JSON) -> None:
        self._parent, self._options = parent, options
        self.alive: list[tuple[int, str]] = []
        self.killed = 0
        for _ in range(REPLICAS):
            self.start()

    def start(self) -> None:
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        self._parent.stdin.write(json.dumps(self._options) + "\n")
        self._parent.stdin.flush()
        told = json.loads(self._parent.stdout.readline())
        self.alive.append((told["pid"], f"http://127.0.0.1:{told['port']}/mcp"))

    def kill(self) -> None:
        pid, _ = self.alive.pop(0)
        os.kill(pid, signal.SIGKILL)
        self.killed += 1

    def any(self) -> str:
        return random.choice(self.alive)[1]


@contextmanager
def replicas(options: JSON) -> Iterator[Replicas]:
    command = [sys.executable, "-m", "tests.faults.victim"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        started = Replicas(parent, options)
        try:
            yield started
        finally:
            while started.alive:
                started.kill()
            parent.kill()


def says(call: int, asked: int) -> JSON:
    """What the model says to the ask of that number: calls whose argument no other call has."""
    uses = {0: (("pay", 1), ("mark", 1)), 1: (("ship", 2), ("pay", 2))}.get(asked)
    content: Any = {"type": "text", "text": "all done"}
    if uses:
        content = [
            {"type": "tool_use", "id": f"c{i}", "name": name, "input": {"n": call * 10 + n}}
            for i, (name, n) in enumerate(uses)
        ]
    return {"role": "assistant", "model": "m", "content": content}


class Load:
    """Clients that call again and again, and how it went."""

    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas
        self._http = httpx2.AsyncClient(
            timeout=60, limits=httpx2.Limits(max_connections=CLIENTS * 2)
        )
        self._calls = 0
        self.ends: Counter[str] = Counter()
        self.recoveries: list[float] = []
        """Seconds from a request that came to nothing to the result of the one after it."""

    async def run(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        async with anyio.create_task_group() as group:
            for _ in range(CLIENTS):
                group.start_soon(self._client, until)
            while time.monotonic() + KILL_SECONDS < until:
                await anyio.sleep(KILL_SECONDS)
                self._replicas.kill()
                await anyio.to_thread.run_sync(self._replicas.start)
        await self._http.aclose()

    async def _client(self, until: float) -> None:
        while time.monotonic() < until:
            self._calls += 1
            self.ends[await self._call(self._calls)] += 1

    async def _call(self, number: int) -> str:
        """How a call ended: an answer, or the code of a typed error."""
        request: JSON = {}
        asked = 0
        while True:
            try:
                result = await self._round(request)
            except Rejected as rejected:
                return f"error {rejected.code}"
            if result["resultType"] != "input_required":
                good = result.get("structuredContent") == {"result": "all done"}
                return "answer" if good else "another result"
            (key,) = result["inputRequests"]
            request = {"answers": {key: says(number, asked)}, "state": result["requestState"]}
            asked += 1

    async def _round(self, request: JSON) -> JSON:
        failed: float | None = None
        while True:
            try:
                post = post_of("worker", {"prompt": "Go"}, **request)
                result = result_of(await self._http.post(self._replicas.any(), **post))
            except (httpx2.TransportError, json.JSONDecodeError, IndexError):
                failed = failed or time.monotonic()
                await anyio.sleep(0.05)
                continue
            if failed is not None:
                self.recoveries.append(time.monotonic() - failed)
            return result


def killed_in_turn(url: str, minutes: float) -> list[list[str]]:
    with tempfile.TemporaryDirectory() as folder:
        ledger = Path(folder) / "ledger"
        options = {"store": url, "ledger": str(ledger), "lease": LEASE_SECONDS, "pause": 0.02}
        with replicas(options) as servers:
            load = Load(servers)
            anyio.run(load.run, minutes * 60)
            killed = servers.killed
        lines = Counter(ledger.read_text().splitlines())
    effects = [line for line in lines if line.startswith(("pay", "ship", "begin pay"))]
    twice = sum(lines[line] > 1 for line in effects)
    ends = ", ".join(f"{count:,} {how}" for how, count in load.ends.most_common())
    ended = load.ends["answer"] / max(load.ends.total(), 1) * 100
    p95 = statistics.quantiles(load.recoveries, n=20)[-1] if len(load.recoveries) > 1 else 0.0
    sys.stderr.write(
        f"{killed} replicas killed; ends: {ends}; {len(load.recoveries)} rounds sent again, "
        f"median {statistics.median(load.recoveries or [0]):.2f} s, longest "
        f"{max(load.recoveries, default=0):.1f} s; {len(effects):,} effects\n"
    )
    return [
        row("calls that end with an answer", ended, 100, " %", least=True),
        row("effects of once tools that happened twice", twice, 0),
        row("p95 from a killed request to its result", p95, 15, " s"),
    ]


def row(what: str, value: float, bar: float, unit: str = "", *, least: bool = False) -> list[str]:
    holds = value >= bar if least else value <= bar
    word = "at least" if least else "at most"
    return [
        what,
        f"{value:,.4g}{unit}",
        f"{word} {bar:g}{unit}",
        "holds" if holds else "**does not hold**",
    ]


# --- what a round costs ------------------------------------------------------------------------

TURNS = 5
CALLS = 60
AT_ONCE = 20
ROUNDS: dict[str, JSON] = {
    "bare SDK, by hand": {},
    "agentloop, no store": {},
    "agentloop, SQLite": {"store": "sqlite"},
    "agentloop, SQLite, `once` tools": {"store": "sqlite", "once": True},
    "agentloop, PostgreSQL": {"store": "postgresql"},
    "agentloop, PostgreSQL, `once` tools": {"store": "postgresql", "once": True},
}
"""What a server is, and with which store and tools."""


def serve(kind: str, url: str) -> None:
    """Serve one kind over HTTP; say what was used so far for each line of standard input."""
    counted: Counter[str] = Counter()
    store = SQLStore(url) if "store" in ROUNDS[kind] else None
    if store is not None:
        event.listen(store._engine, "after_cursor_execute", lambda *_: counted.update(["sql"]))
        event.listen(store._engine, "commit", lambda *_: counted.update(["commits"]))
    add = tool(steps.add, once=True) if "once" in ROUNDS[kind] else steps.add
    limits = Limits(steps=None, tool_calls=None, rounds=None)
    agent = Agent("adder", tools=[add], limits=limits)

    @resumable(store=store)
    async def call(ctx: Context[Any, Any]) -> str:
        return (await agent.run(steps.PROMPT)).text

    server = MCPServer("rounds", log_level="CRITICAL")
    server.add_tool(mcp_memory.by_hand_rounds if kind.startswith("bare") else call, name="call")
    listener = socket.create_server(("127.0.0.1", 0))

    def tell() -> None:
        print(listener.getsockname()[1], flush=True)
        for _ in sys.stdin:
            print(json.dumps({"cpu": time.process_time(), **counted}), flush=True)
        os._exit(0)

    threading.Thread(target=tell, daemon=True).start()
    uvicorn.run(server.streamable_http_app(), fd=listener.fileno(), log_level="critical")


async def see_through(http: httpx2.AsyncClient, url: str) -> None:
    """One call to its end."""
    request: JSON = {}
    for turn in range(TURNS + 1):
        result = result_of(await http.post(url, **post_of("call", {}, **request)))
        uses = [
            {"type": "tool_use", "id": f"c{turn}-{b}", "name": "add", "input": {"a": turn, "b": b}}
            for b in range(2)
        ]
        said = uses if turn < TURNS else [{"type": "text", "text": "Done."}]
        (key,) = result["inputRequests"]
        answer = {"role": "assistant", "model": "m", "content": said}
        request = {"answers": {key: answer}, "state": result["requestState"]}
    result = result_of(await http.post(url, **post_of("call", {}, **request)))
    assert result["structuredContent"] == {"result": "Done."}, result


async def crowd(url: str, calls: int) -> None:
    """So many calls, some of them at once."""
    async with httpx2.AsyncClient(timeout=60) as http:
        turns = anyio.CapacityLimiter(AT_ONCE)

        async def one() -> None:
            async with turns:
                await see_through(http, url)

        async with anyio.create_task_group() as group:
            for _ in range(calls):
                group.start_soon(one)


def used_by(kind: str, url: str) -> dict[str, float]:
    """What the server of a kind uses per step: CPU, statements, transactions; and the wall."""
    command = [sys.executable, __file__, "--serve", kind, "--store", url]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        told, ask = server.stdout, server.stdin
        assert told is not None
        assert ask is not None

        def used() -> JSON:
            ask.write("\n")
            ask.flush()
            return {"wall": time.monotonic(), **json.loads(told.readline())}

        address = f"http://127.0.0.1:{told.readline().strip()}/mcp"
        anyio.run(crowd, address, AT_ONCE)
        before = used()
        anyio.run(crowd, address, CALLS)
        after = used()
        ask.close()
    taken = CALLS * (TURNS + 1)
    return {name: (after[name] - before.get(name, 0)) / taken for name in after}


def rounds(url: str | None) -> str:
    """What a round takes of its server, kind by kind."""
    took: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind, options in ROUNDS.items():
            if options.get("store") != "postgresql":
                took[kind] = used_by(kind, f"sqlite:///{folder}/{len(took)}.db")
            elif url is not None:
                took[kind] = used_by(kind, url)
    bare = took["bare SDK, by hand"]["cpu"]
    rows = [
        [
            kind,
            f"{used['cpu'] * 1e3:.2f} ms",
            f"{used['cpu'] / bare:.2f}",
            f"{1 / used['wall']:.0f}",
            f"{used.get('sql', 0):.1f}",
            f"{used.get('commits', 0):.2f}",
        ]
        for kind, used in took.items()
    ]
    header = ["server", "its CPU per step", "to bare", "steps/s", "statements", "transactions"]
    return (
        f"A step of calls of {TURNS} turns with two tool calls each, {AT_ONCE} at once, over HTTP; "
        f"statements and transactions are per step.\n\n{table(header, rows)}"
    )


# --- what a claim costs ------------------------------------------------------------------------


async def claim_seconds(store: SQLStore) -> tuple[float, float]:
    """The median time of one claim, and of one bare ``INSERT`` in between them."""
    found = await store.begin(f"claims-{time.time_ns()}", lease=60, keep=600)
    assert isinstance(found, Entered)
    engine = create_engine(store._engine.url)
    took: list[float] = []
    floor: list[float] = []
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA synchronous=FULL")
        connection.exec_driver_sql("CREATE TABLE bare (n INTEGER)")
        connection.commit()
        for number in range(CLAIMS):
            began = time.perf_counter()
            await store.claim(found.round, f"effect {number}")
            between = time.perf_counter()
            connection.exec_driver_sql("INSERT INTO bare VALUES (1)")
            connection.commit()
            took.append(between - began)
            floor.append(time.perf_counter() - between)
    engine.dispose()
    await store.close()
    return statistics.median(took) * 1e3, statistics.median(floor) * 1e3


def claims(url: str | None) -> list[list[str]]:
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        stores = [("SQLite (WAL, synchronous)", SQLiteStore(Path(folder) / "s.db"), 1.0)]
        if url is not None:
            stores.append(("PostgreSQL", SQLStore(url), 3.0))
        for name, store, bar in stores:
            claim, bare = anyio.run(claim_seconds, store)
            what = f"one claim, {name}; a bare INSERT takes {bare:.2g} ms"
            rows.append(row(what, claim, bar, " ms"))
    return rows


def report(minutes: float) -> str:
    if not installed():
        sys.stderr.write("PostgreSQL is not installed: no replicas\n")
        costs, rows = rounds(None), claims(None)
    else:
        with running() as url:
            costs, rows = rounds(url), claims(url) + killed_in_turn(url, minutes)
    return "\n\n".join(
        [
            f"## Stores: what they cost; {REPLICAS} replicas, {CLIENTS} calls at once, one killed "
            f"every {KILL_SECONDS:g} s for {minutes:g} minutes",
            costs,
            table(["figure", "measured", "bar", ""], rows),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=SHORT)
    parser.add_argument("--serve", metavar="KIND", help=argparse.SUPPRESS)
    parser.add_argument("--store", metavar="URL", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        serve(chosen.serve, chosen.store)
    else:
        sys.stdout.write(f"{report(chosen.minutes)}\n\n{machine()}\n")


if __name__ == "__main__":
    main()
