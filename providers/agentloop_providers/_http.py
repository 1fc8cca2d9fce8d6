"""What the providers over HTTP share: a client for each event loop, timeouts, typed errors."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from importlib import import_module
from types import TracebackType
from typing import Any, ClassVar, NamedTuple, TypeVar, cast
from urllib.parse import urlsplit

import anyio
import httpx2
from anyio.lowlevel import RunVar
from mcp_types import (
    CreateMessageRequestParams,
    CreateMessageResultWithTools,
    SamplingMessageContentBlock,
)

from agentloop.errors import (
    AskTimeoutError,
    BadRequestError,
    DefinitionError,
    MalformedReplyError,
)
from agentloop.guard import check_real_requests
from agentloop.meta import PROVIDER_KEY, Reply, with_usage
from agentloop.usage import Usage
from agentloop_providers import _json
from agentloop_providers._failures import (
    Refused,
    exception_failure,
    read_error,
    redacted,
    status_failure,
)
from agentloop_providers._state import RESPONSE_KEY
from agentloop_providers._strict import Held, held
from agentloop_providers.retry import Failure, Retry

T = TypeVar("T")

CONNECT_SECONDS = 10.0

_DETAILS = ("id", "stop_sequence", "stop_details", "incomplete_details", "system_fingerprint")


class Answer(NamedTuple):
    """A response that is a JSON object, and its request id."""

    data: dict[str, Any]
    request_id: str | None


class HTTPProvider(ABC):
    """A provider that speaks to a model API through the vendor's SDK.

    One instance may serve any number of runs at once, and several event loops one after another.
    Close it with :meth:`aclose` or ``async with`` to give its connections back.
    """

    kind: ClassVar[str]
    path: ClassVar[str]
    """Where requests go, below the base URL."""
    package: ClassVar[str]
    """The SDK, and the extra that it comes with. Loaded when a provider is made."""
    key_variables: ClassVar[tuple[str, ...]]
    """Where in the environment the key may be."""
    holds_limits: ClassVar[bool]
    """Whether strict schemas may have limits of numbers and of the lengths of lists."""

    def __init__(
        self,
        model: str,
        *,
        key: str | None,
        base_url: str | None,
        client: Any | None,
        timeout: float,
        retry: Retry | None,
        strict: bool,
        options: Mapping[str, Any] | None,
    ) -> None:
        if not model:
            raise DefinitionError(f"{self.kind}: which model? Write {self.kind}:MODEL")
        self.sdk: Any = self._load()
        if not timeout > 0:
            raise DefinitionError(f"{self.kind}: timeout={timeout!r} is no number above 0")
        self.model = model
        self.timeout = float(timeout)
        self.retry = retry or Retry()
        self.strict = strict
        self.options = dict(options or {})
        self._unheld: set[str] = set()
        self._key = (key or "").strip() or None
        if self._key and not re.fullmatch(r"[!-~]+", self._key):
            raise DefinitionError(f"{self.kind}: the key holds a character that no key has")
        self._base_url = _checked(base_url, self.kind) if base_url else None
        # The SDK's own retries are off: there is one retry layer.
        self._given = client.with_options(max_retries=0) if client is not None else None
        self._request_options: dict[str, Any] = {}
        # A pool's connections belong to the event loop that opened them.
        self._clients: RunVar[Any] = RunVar("client")

    @classmethod
    def from_spec(cls, rest: str) -> HTTPProvider:
        """From ``MODEL`` or ``MODEL@BASE_URL``. Raises :class:`DefinitionError`."""
        model, base_url = rest, None
        for scheme in ("@http://", "@https://"):
            if scheme in rest:
                model, _, address = rest.rpartition(scheme)
                base_url = scheme[1:] + address
        return cls(model, base_url=base_url)  # pyright: ignore[reportCallIssue]

    def _load(self) -> Any:
        """The SDK's module; all of them name their errors alike."""
        try:
            return import_module(self.package)
        except ImportError as error:
            raise DefinitionError(
                f"{self.kind} needs a package that is not installed: {error}; "
                f"try: pip install 'mcp-agentloop[{self.package}]'"
            ) from error

    @property
    def name(self) -> str:
        return f"{self.kind}:{self.model}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model!r})"

    async def sample(self, request: CreateMessageRequestParams) -> Reply:
        """Answer ``request``. Raises :class:`~agentloop.errors.ProviderError`."""
        try:
            return await self._sample(request)
        except Refused as error:
            details = {"refusal": str(error), "request_id": error.request_id}
        return CreateMessageResultWithTools(
            role="assistant",
            content=[],
            model=self.model,
            stop_reason="refusal",
            _meta={RESPONSE_KEY: details},
        )

    @abstractmethod
    async def _sample(self, request: CreateMessageRequestParams) -> Reply:
        """Answer ``request``, with a refusal of the API as :class:`Refused`."""

    async def aclose(self) -> None:
        """Close the connections of the running event loop. A client that was given stays open."""
        client = self._clients.get(None)
        if client is not None:
            self._clients.set(None)
            await client.close()

    async def __aenter__(self) -> HTTPProvider:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    @abstractmethod
    def _connect(self) -> Any:
        """A new client of the SDK."""

    @property
    def _client(self) -> Any:
        if self._given is not None:
            return self._given
        client = self._clients.get(None)
        if client is None:
            client = self._connect()
            self._clients.set(client)
        return client

    @property
    def _timeouts(self) -> httpx2.Timeout:
        return httpx2.Timeout(self.timeout, connect=min(CONNECT_SECONDS, self.timeout))

    async def _ask(
        self, request: CreateMessageRequestParams, body: Callable[[Held | None], dict[str, Any]]
    ) -> tuple[Answer, Held | None]:
        """The response to ``request``, and how the API held its answer.

        Not every model and server can hold one, or this one: where the request is refused, it is
        sent again without, and if that was it, the next ones for the same schema go out so at once.
        """
        answer = held(request, limits=self.holds_limits) if self.strict else None
        if answer is None or answer.key in self._unheld:
            return await self._send(body(None)), None
        try:
            return await self._send(body(answer)), answer
        except BadRequestError as error:
            if not self._may_be_unheld(error):
                raise
        response = await self._send(body(None))
        self._unheld.add(answer.key)
        return response, None

    def _may_be_unheld(self, error: BadRequestError) -> bool:
        """Whether ``error`` may be about a schema that the API was to hold."""
        return type(error) is BadRequestError and error.status is not None

    async def _send(self, body: dict[str, Any]) -> Answer:
        """The response to ``body``, after as many attempts as it takes."""

        async def attempt() -> Answer | Failure:
            # The SDK's raw request: bodies and replies are plain JSON here, so that nothing
            # unknown to the SDK's types is lost, and unknown blocks do not pass for known ones.
            response = await self._client.post(
                self.path,
                body=body,
                cast_to=httpx2.Response,
                options={"timeout": self._timeouts, "max_retries": 0, **self._request_options},
            )
            return self._read(response)

        return await self._attempts(attempt)

    async def _attempts(self, attempt: Callable[[], Awaitable[T | Failure]]) -> T:
        """What ``attempt`` gives, tried again as :attr:`retry` says, each within the timeout."""
        check_real_requests(self.name)

        async def bounded() -> T | Failure:
            try:
                with anyio.move_on_after(self.timeout):  # the SDK's timeout is for each read
                    return await attempt()
            except Exception as error:  # noqa: BLE001  whatever an SDK raises is an error of the ask
                return exception_failure(error, self.sdk, self._host, *self._secrets, url=self._url)
            timed_out = AskTimeoutError(f"no answer from {self._host} within {self.timeout:g} s")
            return Failure(timed_out, again=True)

        return await self.retry.call(bounded, name=self.name)

    def _read(self, response: httpx2.Response) -> Answer | Failure:
        headers = response.headers
        request_id = headers.get("request-id") or headers.get("x-request-id")
        try:
            data = _json.read(response.text)
        except ValueError:
            kind = headers.get("content-type", "no content type")
            what = f"HTTP {response.status_code} without JSON ({redacted(kind)})"
            return Failure(self._malformed(what, request_id), again=False)
        if not isinstance(data, dict):
            what = f"a reply is a JSON {type(data).__name__}, not an object"
            return Failure(self._malformed(what, request_id), again=False)
        answer = Answer(cast("dict[str, Any]", data), request_id)
        return self._judge(answer) or answer

    def _judge(self, answer: Answer) -> Failure | None:
        """The failure that a response reports although it came with a 200."""
        return None

    def _malformed(self, what: str, request_id: str | None = None) -> MalformedReplyError:
        return MalformedReplyError(f"{self._host}: {what}", request_id=request_id)

    def _unlike(self, answer: Answer, wanted: str) -> MalformedReplyError:
        """The error for a JSON object that is no reply, such as an error that came with a 200."""
        said, codes = read_error(answer.data)
        told = redacted(": ".join([*codes[:1], said]), *self._secrets)
        return self._malformed(f"no {wanted} in the reply ({told})", answer.request_id)

    def _failed(self, error: object, request_id: str | None) -> Failure:
        """The failure for an error that a response holds."""
        headers = {"x-request-id": request_id} if request_id else {}
        return status_failure(200, {"error": error}, headers, *self._secrets)

    def _reply(
        self,
        answer: Answer,
        blocks: list[SamplingMessageContentBlock],
        *,
        stop: str,
        usage: Usage | None,
        form: list[dict[str, Any]] | None,
    ) -> CreateMessageResultWithTools:
        meta: dict[str, Any] = {RESPONSE_KEY: self._details(answer)}
        if form:
            meta[PROVIDER_KEY] = {"kind": self.kind, "model": self.model, "form": form}
        return CreateMessageResultWithTools(
            role="assistant",
            content=blocks,
            model=str(answer.data.get("model") or self.model),
            stop_reason=stop,
            _meta=with_usage(meta, usage) if usage else meta,
        )

    def _details(self, answer: Answer) -> dict[str, Any]:
        """What else there is to know of a response."""
        known = {name: answer.data.get(name) for name in _DETAILS}
        known["request_id"] = answer.request_id
        return {name: value for name, value in known.items() if value is not None}

    @property
    def _secrets(self) -> tuple[str | None, ...]:
        key = getattr(self._given, "api_key", None) if self._given is not None else self._key
        return (key if isinstance(key, str) else None,)

    @property
    def _host(self) -> str:
        """Where requests go, without what a URL may hold beside the host."""
        url = str(getattr(self._given, "base_url", "")) if self._given else self._base_url or ""
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
        return f"{parts.hostname}{port}" if parts.hostname else f"the {self.kind} API"

    @property
    def _url(self) -> str:
        """The base URL, the SDK's own where none was given, without a name and a password."""
        url = str(getattr(self._given or self._clients.get(None), "base_url", ""))
        parts = urlsplit(url)
        place = parts.netloc.rpartition("@")[2]
        return f"{parts.scheme}://{place}{parts.path}".rstrip("/") if place else self._host


def _checked(url: str, kind: str) -> str:
    try:
        parts = urlsplit(url)
        ok = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        ok = False
    if not ok:
        raise DefinitionError(f"{kind}: base_url must be an http:// or https:// address")
    return url
