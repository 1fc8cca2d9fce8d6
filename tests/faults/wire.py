"""An MCP client made by hand, so that it can do what no SDK lets its users do.

Messages cross as lines of JSON, framed as over stdio: what cannot be written ends the test as it
would end the server, and what cannot be read arrives as it would over stdio.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.abc
from mcp.server.lowlevel import Server
from mcp.shared._context_streams import create_context_streams
from mcp.shared.message import SessionMessage
from mcp_types import (
    CLIENT_CAPABILITIES_META_KEY,
    CLIENT_INFO_META_KEY,
    PROTOCOL_VERSION_META_KEY,
    jsonrpc_message_adapter,
)

JSON = dict[str, Any]
SAMPLING: JSON = {"sampling": {"tools": {}}}
PEOPLE: JSON = {**SAMPLING, "elicitation": {"form": {}, "url": {}}}
"""What a client declares that has somebody to ask."""

ME = {"name": "wire", "version": "0"}


class Rejected(Exception):
    """The server answered with an error."""

    def __init__(self, error: JSON) -> None:
        super().__init__(f"{error['message']} ({error['code']})")
        self.code: int = error["code"]
        self.message: str = error["message"]
        self.data: Any = error.get("data")


@dataclass(frozen=True)
class Refuse:
    """An error in the place of an answer."""

    code: int = -1
    message: str = "User rejected sampling request"


@dataclass(frozen=True)
class Line:
    """An answer as the text of a whole message; ``{id}`` is the request's id."""

    text: str


class Silence:
    """No answer at all."""


Answer = JSON | Refuse | Line | type[Silence]
Answers = Callable[[str, JSON], Awaitable[Answer]]
"""What is answered to a request of the server's, by its method and params."""


@dataclass
class Wire:
    """One connection. ``asked`` holds what the server asked, ``notes`` its notifications."""

    modern: bool
    capabilities: JSON
    answers: Answers
    asked: list[tuple[str, JSON]] = field(default_factory=list)
    notes: list[JSON] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    """Every line that the server wrote."""
    _send: Any = None
    _waiting: dict[int, anyio.Event] = field(default_factory=dict)
    _answers: dict[int, JSON] = field(default_factory=dict)
    _last: int = 0
    _group: Any = None

    async def request(self, method: str, params: JSON) -> JSON:
        """The result of a request. Raises :class:`Rejected`."""
        return await self.answer_to(await self.begin(method, params))

    async def begin(self, method: str, params: JSON) -> int:
        """Send a request, and give its id."""
        self._last += 1
        id = self._last
        if self.modern:
            params = {**params, "_meta": {**self._envelope(), **params.get("_meta", {})}}
        self._waiting[id] = anyio.Event()
        await self.send({"id": id, "method": method, "params": params})
        return id

    async def answer_to(self, id: int) -> JSON:
        """The result of a request that was sent. Raises :class:`Rejected`."""
        await self._waiting[id].wait()
        del self._waiting[id]
        answer = self._answers.pop(id)
        if "error" in answer:
            raise Rejected(answer["error"])
        return answer["result"]

    async def round(
        self,
        name: str,
        arguments: JSON | None = None,
        *,
        answers: JSON | None = None,
        state: str | None = None,
        meta: JSON | None = None,
    ) -> JSON:
        """One ``tools/call`` as it is: a result, or a round of asks."""
        params: JSON = {"name": name, "arguments": arguments or {}}
        if answers is not None:
            params["inputResponses"] = answers
        if state is not None:
            params["requestState"] = state
        if meta:
            params["_meta"] = meta
        return await self.request("tools/call", params)

    async def call(self, name: str, arguments: JSON | None = None, *, rounds: int = 10) -> JSON:
        """Call a tool, and answer all asks until it is through."""
        result = await self.round(name, arguments)
        while result.get("resultType") == "input_required" and rounds:
            rounds -= 1
            result = await self.go_on(result, name, arguments)
        return result

    async def go_on(
        self, result: JSON, name: str, arguments: JSON | None = None, *, meta: JSON | None = None
    ) -> JSON:
        """Answer the round that ``result`` is, and call again."""
        answers = await self.answers_to(result)
        state = result.get("requestState")
        return await self.round(name, arguments, answers=answers, state=state, meta=meta)

    async def answers_to(self, result: JSON) -> JSON:
        """The answers to a round. Raises :class:`Rejected` where one is an error."""
        answers: JSON = {}
        for key, request in result["inputRequests"].items():
            self.asked.append((request["method"], request["params"]))
            answer = await self.answers(request["method"], request["params"])
            if isinstance(answer, Refuse):
                raise Rejected({"code": answer.code, "message": answer.message})
            answers[key] = answer
        return answers

    async def cancel(self, id: int) -> None:
        """Say that a request is not wanted any more."""
        await self.send({"method": "notifications/cancelled", "params": {"requestId": id}})

    async def close(self) -> None:
        """Go away."""
        await self._send.aclose()

    async def send(self, message: JSON) -> None:
        """Send one message."""
        await self.send_line(json.dumps({"jsonrpc": "2.0", **message}))

    async def send_line(self, line: str) -> None:
        """Send one line, whatever it is."""
        try:
            read: Any = SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
        except Exception as error:  # noqa: BLE001  as over stdio
            read = error
        await self._send.send(read)

    def _envelope(self) -> JSON:
        return {
            PROTOCOL_VERSION_META_KEY: "2026-07-28",
            CLIENT_CAPABILITIES_META_KEY: self.capabilities,
            CLIENT_INFO_META_KEY: ME,
        }

    async def _read(self, receive: Any) -> None:
        async for item in receive:
            line = item.message.model_dump_json(by_alias=True, exclude_unset=True)
            line.encode()
            self.written.append(line)
            message = json.loads(line)
            if "method" not in message:
                self._answers[message["id"]] = message
                if message["id"] in self._waiting:
                    self._waiting[message["id"]].set()
            elif "id" in message:
                self.asked.append((message["method"], message["params"]))
                self._group.start_soon(self._reply, message)
            else:
                self.notes.append(message)

    async def _reply(self, message: JSON) -> None:
        answer = await self.answers(message["method"], message["params"])
        if isinstance(answer, Refuse):
            error = {"code": answer.code, "message": answer.message}
            await self.send({"id": message["id"], "error": error})
        elif isinstance(answer, Line):
            await self.send_line(answer.text.replace("{id}", json.dumps(message["id"])))
        elif answer is not Silence:
            await self.send({"id": message["id"], "result": answer})


@asynccontextmanager
async def connected(
    server: Server[Any],
    answers: Answers,
    *,
    modern: bool,
    capabilities: JSON = SAMPLING,
) -> AsyncGenerator[Wire]:
    """A client of ``server``, connected by streams of lines."""
    to_server, from_client = create_context_streams[SessionMessage | Exception](0)
    to_client, from_server = create_context_streams[SessionMessage](0)
    wire = Wire(modern, capabilities, answers)
    wire._send = to_server
    raised: Exception | None = None
    async with anyio.create_task_group() as group, to_server, from_client, to_client, from_server:
        wire._group = group
        group.start_soon(server.run, from_client, to_client, server.create_initialization_options())
        group.start_soon(wire._read, from_server)
        if not modern:
            params = {
                "protocolVersion": "2025-11-25",
                "capabilities": capabilities,
                "clientInfo": ME,
            }
            await wire.request("initialize", params)
            await wire.send({"method": "notifications/initialized"})
        try:
            yield wire
        except Exception as error:  # noqa: BLE001  raised below, outside of the group
            raised = error
        group.cancel_scope.cancel()
    if raised is not None:
        raise raised
