"""Where scenarios are played: directly, and on a server with one tool that plays any of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.request_state import RequestStateSecurity

from agentloop.mcp import Tasks, resumable
from agentloop.place import HERE, Host, Place
from agentloop.provider import Provider
from agentloop.store import MemoryStore
from agentloop_providers.scripted import use
from tests.carriers.kit import Kit, Record, Scenario, alone, having
from tests.carriers.replies import REPLIES, RESULTS
from tests.carriers.scenarios import ALONE
from tests.carriers.together import TOGETHER

TABLE = {row.name: row for row in (*ALONE, *REPLIES, *RESULTS, *TOGETHER)}
LINGERING = alone("lingering", having("linger"), [use("linger"), use("linger")], gives=None)
"""No row of the table: it ends only when it is cancelled."""

ROWS = {**TABLE, LINGERING.name: LINGERING}
KEY = b"k" * 32


async def played_directly(row: Scenario, provider: Provider) -> dict[str, Any]:
    """What comes of a row without any MCP in between."""
    record = Record()
    token = HERE.set(Place("", None, Host(provider, record)))
    try:
        value = await row.play(Kit(record))
    finally:
        HERE.reset(token)
    return {"value": value, **record.to_json()}


def stage(folder: Path | None = None) -> MCPServer:
    """A server whose tool ``play`` gives what comes of a row, and whole transcripts with it.

    ``call`` tells calls apart, so that the rounds of one share their record; with a ``folder``,
    records are kept there, for other processes to add to.
    """
    tasks = Tasks(MemoryStore())
    server = MCPServer(
        "stage",
        log_level="CRITICAL",
        request_state_security=RequestStateSecurity(keys=[KEY]),
        extensions=[tasks],
        lifespan=tasks.lifespan(),
    )
    functions: dict[str, Played] = {}

    @server.tool()
    async def play(name: str, call: str, ctx: Context) -> dict[str, Any]:
        if call not in functions:
            functions[call] = played(ROWS[name], Record(folder and folder / call))
        return await functions[call](ctx)

    return server


Played = Callable[[Context], Awaitable[dict[str, Any]]]


def played(row: Scenario, record: Record) -> Played:
    """A function that is served, and gives what comes of ``row``."""

    @resumable(on_event=record, task="always")
    async def function(ctx: Context) -> dict[str, Any]:
        value = await row.play(Kit(record))
        return {"value": value, **record.to_json()}

    return function
