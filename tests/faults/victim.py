"""A server process that kills itself, or is killed, at any step: ``python -m tests.faults.victim``.

It loads everything once and then forks a server for each line of JSON that it reads:

    {"store": URL, "ledger": FILE, "lease": SECONDS, "die": STEP or 0, "own": bool, "tasks": bool}

and answers with ``{"pid": ..., "port": ...}``. A server counts its steps: every event of its runs,
every store operation before and after it is done, and every effect of a tool, before, in the
middle and after it. To look whether there is something to do is no step. At the step ``die`` it
sends itself ``SIGKILL``. What tools do is in the ledger, one line for each effect; so is every ask
of its own model, if it has one.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import anyio
import uvicorn
from mcp.server.lowlevel import Server
from mcp.server.request_state import RequestStateSecurity
from mcp_types import CreateMessageRequestParams

from agentloop import Agent, Limits, idempotency_key, tool
from agentloop.errors import NotDone
from agentloop.events import Event
from agentloop.mcp import Tasks, mount, seal
from agentloop.mcp.handover import When
from agentloop.meta import Reply
from agentloop.sql_store import SQLStore
from agentloop_providers.scripted import reply, use

KEY = b"0123456789abcdef0123456789abcdef"


class Ledger:
    """A file of what was done, by all processes."""

    def __init__(self, file: str) -> None:
        self.path = Path(file)

    def note(self, line: str) -> None:
        """Write a line that is there even if the process is killed right after it."""
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{line}\n".encode())
        os.close(descriptor)

    def lines(self) -> list[str]:
        return self.path.read_text().splitlines() if self.path.exists() else []


class Steps:
    """Counts the steps of this process, and ends it at one of them."""

    def __init__(self, ledger: Ledger, die: int) -> None:
        self._ledger, self._die, self._count = ledger, die, 0

    def step(self, what: str) -> None:
        self._count += 1
        if self._count == self._die:
            self._ledger.note(f"killed at {what}")
            os.kill(os.getpid(), signal.SIGKILL)

    def event(self, event: Event) -> None:
        self.step(type(event).__name__)


LOOKS = ("read", "take")


class SteppingStore(SQLStore):
    """A store whose operations are steps."""

    steps: Steps

    def _transact(self, operations: Any) -> Any:
        named = [operation.work.__qualname__.split(".")[1] for operation in operations]
        for what in named:
            if what not in LOOKS:
                self.steps.step(f"before {what}")
        outcomes = super()._transact(operations)
        for what, outcome in zip(named, outcomes, strict=True):
            if what != "read" and not (what in LOOKS and outcome.value is None):
                self.steps.step(f"after {what}")
        return outcomes


def worker(ledger: Ledger, steps: Steps, pause: float) -> Agent[str]:
    """An agent with a tool of each kind."""

    async def effect(what: str) -> None:
        steps.step(f"before {what}")
        ledger.note(f"begin {what}")
        await anyio.sleep(pause)
        ledger.note(what)
        steps.step(f"after {what}")

    @tool(once=True)
    async def pay(n: int) -> str:
        """Must not run twice."""
        await effect(f"pay {n}")
        return f"paid {n}"

    @tool(idempotent=True)
    async def mark(n: int) -> str:
        """May run again, with the same key."""
        await effect(f"mark {n} {idempotency_key()}")
        return f"marked {n}"

    async def shipped(key: str, n: int) -> str:
        steps.step("reconcile")
        if f"ship {n}" not in ledger.lines():
            raise NotDone
        return f"shipped {n}, as it turned out"

    @tool(reconcile=shipped)
    async def ship(n: int) -> str:
        """Can be looked up."""
        await effect(f"ship {n}")
        return f"shipped {n}"

    return Agent("worker", tools=[pay, mark, ship], limits=Limits(errors=None))


def says(asked: int) -> list[dict[str, Any]]:
    """What the model says to its ask of that number, as blocks."""
    uses = {
        0: [("pay", 1), ("mark", 1)],
        1: [("ship", 2), ("pay", 2)],
    }
    if asked not in uses:
        return [{"type": "text", "text": "all done"}]
    return [
        {"type": "tool_use", "id": f"c{number}", "name": name, "input": {"n": n}}
        for number, (name, n) in enumerate(uses[asked])
    ]


class OwnModel:
    """The server's own model; every ask of it is in the ledger.

    Asked once more, it says the same in another order, as models do.
    """

    name = "own"

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def sample(self, request: CreateMessageRequestParams) -> Reply:
        asked = sum(message.role == "assistant" for message in request.messages)
        blocks = says(asked)
        if f"ask {asked}" in self._ledger.lines():
            blocks.reverse()
        self._ledger.note(f"ask {asked}")
        told = [message.model_dump(mode="json", by_alias=True) for message in request.messages]
        self._ledger.note(f"told {json.dumps(told)}")
        if blocks[0]["type"] == "text":
            return reply(blocks[0]["text"])
        return reply(*(use(b["name"], id=b["id"], **b["input"]) for b in blocks))


def serve(options: dict[str, Any]) -> None:
    """Be a server until killed."""
    ledger = Ledger(options["ledger"])
    steps = Steps(ledger, options.get("die", 0))
    store = SteppingStore(options["store"], lease=options.get("lease", 0.3))
    store.steps = steps
    own = OwnModel(ledger) if options.get("own") else None
    server: Server[Any] = Server("victim")
    if options.get("tasks"):
        tasks = Tasks(store, poll=0.02, look_every=0.05)
        server = Server("victim", lifespan=tasks.lifespan())
        tasks.add_to(server)
    seal(server, RequestStateSecurity(keys=[KEY]))
    agent = worker(ledger, steps, options.get("pause", 0.0))
    task: When = "always" if options.get("tasks") else "never"
    mount(server, agent, store=store, provider=own, on_event=steps.event, task=task)
    listener = socket.create_server(("127.0.0.1", 0))
    say({"pid": os.getpid(), "port": listener.getsockname()[1]})
    config = uvicorn.Config(
        server.streamable_http_app(), log_level="critical", timeout_graceful_shutdown=1
    )
    uvicorn.Server(config).run(sockets=[listener])


def say(message: dict[str, Any]) -> None:
    os.write(1, (json.dumps(message) + "\n").encode())


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the servers
    for line in sys.stdin:
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            serve(json.loads(line))
            os._exit(0)


if __name__ == "__main__":
    main()
