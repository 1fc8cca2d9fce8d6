"""``agentloop serve``: an agent as the tool of an MCP server."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, cast

from agentloop.cli import _options
from agentloop.errors import DefinitionError

if TYPE_CHECKING:
    import socket
    from io import TextIOWrapper

    from mcp.server import MCPServer

    from agentloop.store import Store

SUMMARY = "serve an agent as a tool of an MCP server, on stdio or HTTP"

PATH = "/mcp"


def configure(parser: argparse.ArgumentParser) -> None:
    _options.add_agent(parser)
    parser.add_argument(
        "--provider",
        metavar="SPEC",
        help="who answers for clients that cannot be asked (default: the agent's own, else nobody)",
    )
    parser.add_argument(
        "--http", type=port, metavar="PORT", help="serve HTTP on this port; 0 picks a free one"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="the address for --http (default: %(default)s)"
    )
    parser.add_argument(
        "--store",
        metavar="STORE",
        help="keep suspended calls and tasks in this SQLite file, or the database at this URL",
    )
    parser.add_argument(
        "--task",
        choices=("never", "when_needed", "always", "required"),
        default="when_needed",
        help="when a call goes on as a task, with --store (default: %(default)s)",
    )
    parser.add_argument("--name", help="the server's name (default: the agent's)")


def port(text: str) -> int:
    """A port's number. Its name is what argparse says where ``text`` is none."""
    if (number := int(text)) not in range(65536):
        raise ValueError(text)
    return number


def execute(options: argparse.Namespace) -> int:
    """Serve until the client goes away (stdio) or the process is told to stop (HTTP)."""
    import anyio

    from agentloop.cli._load import load, opened
    from agentloop.cli._stores import store_at
    from agentloop.cli._terminal import logs_on_stderr
    from agentloop.mcp import mount

    arguments = _options.pairs("--arg", options.arg)
    with logs_on_stderr():
        provider = _options.provider_of(options.provider) if options.provider else None
        loaded = load(options.agent, arguments)

        async def serve() -> None:
            async with _options.closing(provider), opened(options.agent, loaded) as agent:
                store = store_at(options.store, new=True) if options.store else None
                try:
                    server = _server(options.name or agent.name, store)
                    mount(server, agent, provider=provider, store=store, task=options.task)
                    if options.http is None:
                        await _on_stdio(server)
                    else:
                        await _on_http(server, _listen(options.host, options.http))
                finally:
                    if store is not None:
                        await store.close()

        anyio.run(serve)
    return 0


def _server(name: str, store: Store | None) -> MCPServer[Any]:
    from mcp.server import MCPServer
    from mcp.server.request_state import RequestStateSecurity

    from agentloop.mcp import StateCodec, Tasks

    common: Any = {
        "log_level": "WARNING",
        "request_state_security": RequestStateSecurity(codec=StateCodec()),
    }
    if store is None:
        return MCPServer(name, **common)
    tasks = Tasks(store)
    return MCPServer(name, extensions=[tasks], lifespan=tasks.lifespan(), **common)


def _listen(host: str, number: int) -> socket.socket:
    """A socket that listens there. Raises :class:`DefinitionError` where that cannot be."""
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, number), family=family)
    except OSError as error:
        raise DefinitionError(f"cannot listen on {host} port {number}: {error}") from error


async def _on_stdio(server: MCPServer[Any]) -> None:
    import signal
    import sys

    # While it serves, the SDK sends what is printed to stderr; what is still in a buffer
    # afterwards would end up on the wire.
    cast("TextIOWrapper", sys.stdout).reconfigure(line_buffering=True)
    # The SDK reads stdin in a thread that nothing interrupts: Ctrl-C has to end the process.
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        await server.run_stdio_async()
    finally:
        signal.signal(signal.SIGINT, before)


async def _on_http(server: MCPServer[Any], listener: socket.socket) -> None:
    from ipaddress import ip_address

    import uvicorn
    from starlette.middleware.gzip import GZipMiddleware

    from agentloop.cli._terminal import remark

    host, number = listener.getsockname()[:2]
    address = f"[{host}]:{number}" if ":" in host else f"{host}:{number}"
    remark(f"Serving {server.name} at http://{address}{PATH} (Ctrl-C to stop).")
    if not ip_address(host).is_loopback:
        remark("Whoever can reach this address can use the agent: there is no authentication.")
    app = server.streamable_http_app(host=host, streamable_http_path=PATH)
    app.add_middleware(GZipMiddleware)  # over rounds each answer holds a whole transcript
    config = uvicorn.Config(app, log_level="warning", access_log=False)
    await uvicorn.Server(config).serve(sockets=[listener])
