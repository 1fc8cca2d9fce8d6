"""Servers over real HTTP on this machine, and requests to them by hand."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from mcp_types import (
    CLIENT_CAPABILITIES_META_KEY,
    CLIENT_INFO_META_KEY,
    PROTOCOL_VERSION_META_KEY,
)

from tests.faults.wire import JSON, ME, SAMPLING, Rejected

MODERN = "2026-07-28"
ACCEPT = {"accept": "application/json, text/event-stream", "content-type": "application/json"}


@contextmanager
def serving_http(make_app: Callable[[], Any]) -> Iterator[str]:
    """Serve an ASGI application on a free port, in a thread; gives the address of its ``/mcp``.

    The application is made in that thread, whose event loop is asyncio's.
    """
    config = uvicorn.Config(make_app, factory=True, host="127.0.0.1", port=0, log_level="critical")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="http server", daemon=True)
    thread.start()
    try:
        give_up = time.monotonic() + 10
        while not server.started:
            assert time.monotonic() < give_up
            time.sleep(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        server.should_exit = True
        server.force_exit = True
        thread.join(10)


def envelope(capabilities: JSON = SAMPLING) -> JSON:
    """The ``_meta`` that a request of 2026-07-28 must have."""
    return {
        PROTOCOL_VERSION_META_KEY: MODERN,
        CLIENT_CAPABILITIES_META_KEY: capabilities,
        CLIENT_INFO_META_KEY: ME,
    }


def post_of(
    name: str,
    arguments: JSON,
    *,
    answers: JSON | None = None,
    state: str | None = None,
    capabilities: JSON = SAMPLING,
    meta: JSON | None = None,
    token: str | None = None,
) -> dict[str, Any]:
    """The arguments of ``client.post(url, ...)`` for one round of a tool call."""
    params: JSON = {
        "name": name,
        "arguments": arguments,
        "_meta": envelope(capabilities) | (meta or {}),
    }
    if answers is not None:
        params["inputResponses"] = answers
    if state is not None:
        params["requestState"] = state
    post = _post("tools/call", name, params)
    if token:
        post["headers"]["authorization"] = f"Bearer {token}"
    return post


def post_of_task(method: str, id: str, capabilities: JSON, **params: Any) -> dict[str, Any]:
    """The arguments of ``client.post(url, ...)`` for a request about a task."""
    return _post(method, id, {"taskId": id, **params, "_meta": envelope(capabilities)})


def _post(method: str, name: str, params: JSON) -> dict[str, Any]:
    headers = ACCEPT | {
        "mcp-protocol-version": MODERN,
        "mcp-method": method,
        "mcp-name": name,
    }
    return {"content": line(method, params, id=1), "headers": headers}


async def session_of_2025(
    client: Any, url: str, capabilities: JSON | None = None
) -> dict[str, str]:
    """Open a session of 2025-11-25; gives the headers of all that follows in it."""
    params = {
        "protocolVersion": "2025-11-25",
        "capabilities": capabilities or {},
        "clientInfo": ME,
    }
    opened = await client.post(url, content=line("initialize", params, id=1), headers=ACCEPT)
    headers = ACCEPT | {
        "mcp-session-id": opened.headers["mcp-session-id"],
        "mcp-protocol-version": "2025-11-25",
    }
    await client.post(url, content=line("notifications/initialized"), headers=headers)
    return headers


def line(method: str, params: JSON | None = None, *, id: int | None = None) -> str:
    """A request, or without ``id`` a notification."""
    message: JSON = {"jsonrpc": "2.0", "method": method}
    if id is not None:
        message["id"] = id
    if params is not None:
        message["params"] = params
    return json.dumps(message)


async def events_of(stream: Any) -> AsyncIterator[tuple[str, JSON]]:
    """The events of an open response, each with its id; one without data primes the stream."""
    id = ""
    async for read in stream.aiter_lines():
        name, _, value = read.partition(": ")
        if name == "id":
            id = value
        elif name == "data" or read == "data:":
            yield id, json.loads(value) if value else {}


def result_of(response: Any) -> JSON:
    """The result in a response, JSON or a stream of events. Raises :class:`Rejected`."""
    text: str = response.text
    if response.headers.get("content-type", "").startswith("text/event-stream"):
        lines = [line for line in text.splitlines() if line.startswith("data: ")]
        text = lines[-1].removeprefix("data: ")
    message = json.loads(text)
    if "error" in message:
        raise Rejected(message["error"])
    return message["result"]
