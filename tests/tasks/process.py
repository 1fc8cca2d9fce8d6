"""A server with tasks in a database: ``python -m tests.tasks.process FILE``; it prints its port."""

from __future__ import annotations

import socket
import sys

import uvicorn
from mcp.server.mcpserver import MCPServer

from agentloop import Agent
from agentloop.mcp import Tasks, mount
from agentloop.sql_store import SQLiteStore
from agentloop_providers import ScriptedProvider


def main(database: str) -> None:
    tasks = Tasks(SQLiteStore(database, lease=1.0), look_every=0.1)
    server = MCPServer(
        "process", extensions=[tasks], lifespan=tasks.lifespan(), log_level="CRITICAL"
    )
    model = ScriptedProvider("echoed", repeat=True)
    mount(server, Agent("echo", provider=model), task="always", provider=model)
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)  # noqa: T201
    app = server.streamable_http_app()
    uvicorn.Server(uvicorn.Config(app, log_level="critical")).run(sockets=[listener])


if __name__ == "__main__":
    main(sys.argv[1])
