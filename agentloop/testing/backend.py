"""Model APIs for tests: scripted, strict, over mock HTTP or a real local server.

A :class:`Backend` speaks one API the way its vendor does. It says what its script says, and it
refuses what the real API refuses: a history that is not balanced, thinking that was changed, a
field that does not exist. So a provider that gets through its tests gets through the real thing.
"""

from __future__ import annotations

import json
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, cast

import anyio
import httpx2

from agentloop.usage import Usage

JSON = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call that the model makes. ``tool`` is the name as agentloop knows it."""

    tool: str
    arguments: str | JSON = field(default_factory=dict[str, Any])
    """An object, or the text that the model writes instead of JSON of one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Says:
    """A reply of the model, in no API's own words."""

    thinking: str | None = None
    text: str | None = None
    calls: tuple[Call, ...] = ()
    stop: str | None = None
    """``maxTokens``, ``refusal`` or an API's own word; None for what follows from the content."""
    usage: Usage | None = field(
        default_factory=lambda: Usage(asks=1, input_tokens=10, output_tokens=5)
    )
    """What the reply reports; None where it reports nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sends:
    """A response that is no reply of the model."""

    status: int = 200
    body: bytes | str | JSON | list[Any] = b""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    breaks_off: bool = False
    """The connection breaks in the middle of the body."""
    hangs: bool = False
    """Nothing is ever sent."""


@dataclass(frozen=True, slots=True)
class Refuses:
    """An error by its status, in the API's own form."""

    status: int
    message: str = "no"
    headers: Mapping[str, str] = field(default_factory=lambda: {"retry-after": "0"})


Line = Says | Sends | Refuses


class Backend(ABC):
    """One API, with a script.

    ``requests`` holds what was asked, ``spoken`` what the model said, both as the API writes it.
    """

    key: ClassVar[str] = "canary-5f1b2c9d8e7a"
    model: ClassVar[str] = "model-1"
    features: ClassVar[frozenset[str]] = frozenset({"thinking", "images", "cache"})
    """What the API has: ``thinking``, ``images``, ``audio``, ``cache`` (figures for both
    directions), ``text arguments`` (a model may write arguments that are no JSON)."""

    def __init__(self) -> None:
        self.requests: list[JSON] = []
        self.raw: list[bytes] = []
        self.spoken: list[Any] = []
        self.problems: list[str] = []
        """What was wrong with the requests that were refused."""
        self.url = "http://backend.test"
        self.structured = True
        """Whether models are held to schemas; where not, such requests are refused."""
        self._script: deque[Line] = deque()
        self._numbers = 0

    def says(self, *lines: Line) -> None:
        """Add to the script. The last line is said again and again."""
        self._script.extend(lines)

    def clear(self) -> None:
        """Forget the rest of the script."""
        self._script.clear()

    def http_client(self) -> httpx2.AsyncClient | None:
        """A client that reaches this backend; None where it is served over real HTTP."""
        if self.url != "http://backend.test":
            return None
        return httpx2.AsyncClient(transport=httpx2.MockTransport(self._mock))

    # --- what an API must say ------------------------------------------------------------------

    @abstractmethod
    def problem(self, path: str, body: JSON) -> str | None:
        """What the real API would refuse in a request, if anything."""

    @abstractmethod
    def reply(self, says: Says, body: JSON) -> JSON:
        """The response in which the model says it. Adds to ``spoken``."""

    @abstractmethod
    def error(self, status: int, message: str) -> JSON:
        """The body of an error."""

    @abstractmethod
    def offered(self, body: JSON) -> Mapping[str, str]:
        """The native names of the tools in a request, by their descriptions."""

    @abstractmethod
    def heard(self, body: JSON) -> list[Any]:
        """What a request gives back of what the model said, in the form of ``spoken``."""

    def held(self, body: JSON) -> list[JSON]:
        """The schemas that a request wants the model to be held to, of tools and of the reply."""
        return []

    def in_words(self, body: JSON) -> bool:
        """Whether a request has a schema for the reply itself: then a call is said as its text."""
        return False

    def schema_problem(self, schema: JSON) -> str | None:
        """What the real API would refuse in a schema that it is to hold the model to."""
        return None

    def stream(self, response: JSON) -> bytes:
        """``response`` as server-sent events, for APIs that stream long replies."""
        raise NotImplementedError

    # --- help for those ------------------------------------------------------------------------

    def native_name(self, tool: str, body: JSON) -> str:
        """The name under which ``tool`` was offered; its description is :func:`described`."""
        return self.offered(body).get(described(tool), tool)

    def number(self) -> int:
        """A new number, for ids."""
        self._numbers += 1
        return self._numbers

    # --- HTTP ----------------------------------------------------------------------------------

    def answer(self, path: str, headers: Mapping[str, str], content: bytes) -> Sends:
        """The response to a request."""
        given = headers.get("authorization", headers.get("x-api-key", ""))
        if given.removeprefix("Bearer ") != self.key:
            return self._refusal(401, f"invalid key: {given}")
        try:
            parsed: object = json.loads(content)
        except ValueError:
            return self._refusal(400, "the body is no JSON")
        if not isinstance(parsed, dict):
            return self._refusal(400, "the body is no object")
        body = cast("JSON", parsed)
        self.requests.append(body)
        self.raw.append(content)
        if (problem := self.problem(path, body) or self._held_problem(body)) is not None:
            self.problems.append(problem)
            return self._refusal(400, problem)
        line = self._script.popleft() if len(self._script) > 1 else self._script[0]
        if isinstance(line, Refuses):
            return self._refusal(line.status, line.message, line.headers)
        if isinstance(line, Sends):
            return line
        response = self.reply(_worded(line) if self.in_words(body) else line, body)
        if body.get("stream"):
            return Sends(body=self.stream(response), headers={"content-type": "text/event-stream"})
        return Sends(body=response)

    def _held_problem(self, body: JSON) -> str | None:
        schemas = self.held(body)
        if schemas and not self.structured:
            return "structured outputs are not supported here"
        return next(filter(None, map(self.schema_problem, schemas)), None)

    def _refusal(
        self, status: int, message: str, headers: Mapping[str, str] | None = None
    ) -> Sends:
        return Sends(status=status, body=self.error(status, message), headers=headers or {})

    async def _mock(self, request: httpx2.Request) -> httpx2.Response:
        sends = self.answer(request.url.path, request.headers, await request.aread())
        if sends.hangs:
            await anyio.sleep_forever()
        if sends.breaks_off:
            raise httpx2.RemoteProtocolError("the connection broke", request=request)
        content, headers = _wire(sends)
        return httpx2.Response(sends.status, content=content, headers=headers)

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        """The backend as an ASGI application."""
        content, more = b"", True
        while more:
            message = await receive()
            content += message.get("body", b"")
            more = message.get("more_body", False)
        headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        sends = self.answer(scope["path"], headers, content)
        if sends.hangs:
            await receive()  # until the client goes away
            return
        content, headers = _wire(sends)
        headers["content-length"] = str(len(content))
        pairs = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": sends.status, "headers": pairs})
        if sends.breaks_off:
            await send({"type": "http.response.body", "body": content[:-8], "more_body": True})
            return  # uvicorn drops the connection of a response that is not complete
        await send({"type": "http.response.body", "body": content})


class Server:
    """Serves one backend after another over real HTTP, on a port of this machine."""

    def __init__(self, port: int = 0) -> None:
        """``port`` 0 is any free one."""
        self._port = port
        self._backend: Backend | None = None
        self._stack = ExitStack()
        self.url = ""

    def show(self, backend: Backend) -> None:
        """Serve ``backend`` from now on; its ``url`` says where."""
        self._backend = backend
        backend.url = self.url

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        assert self._backend is not None
        await self._backend.app(scope, receive, send)

    def __enter__(self) -> Server:
        import uvicorn

        config = uvicorn.Config(
            self._app,
            host="127.0.0.1",
            port=self._port,
            interface="asgi3",
            lifespan="off",
            log_level="critical",
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, name="backend", daemon=True)
        thread.start()

        def stop() -> None:
            server.should_exit = server.force_exit = True
            thread.join(10)

        self._stack.callback(stop)
        give_up = time.monotonic() + 10
        while not server.started:
            if time.monotonic() > give_up or not thread.is_alive():
                raise RuntimeError("the backend did not start")
            time.sleep(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


@contextmanager
def served(backend: Backend) -> Generator[str]:
    """Serve ``backend`` over real HTTP while the context lasts; gives its address."""
    with Server() as server:
        server.show(backend)
        yield server.url


def described(tool: str) -> str:
    """The description by which a backend knows a tool, whatever its name became on the way."""
    return f"The tool called {tool}."


def arguments_text(call: Call) -> str:
    """A call's arguments as a model writes them: with spaces."""
    return call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments)


def _worded(says: Says) -> Says:
    """A reply that calls, as a model says it that has been given a schema in place of tools."""
    if len(says.calls) != 1:
        return says
    return replace(says, text=arguments_text(says.calls[0]), calls=())


def _wire(sends: Sends) -> tuple[bytes, dict[str, str]]:
    body, headers = sends.body, dict(sends.headers)
    if isinstance(body, dict | list):
        body = json.dumps(body)
        headers.setdefault("content-type", "application/json")
    return body.encode() if isinstance(body, str) else body, headers
