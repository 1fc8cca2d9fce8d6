"""Anthropic's Messages API as a provider."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import httpx2
from mcp_types import CreateMessageRequestParams, CreateMessageResultWithTools

from agentloop.errors import BadRequestError, DefinitionError, OverloadedError
from agentloop.log import log
from agentloop_providers import _anthropic_map as mapping
from agentloop_providers._anthropic_stream import StreamError, message_of
from agentloop_providers._content import choice_of, tools_of
from agentloop_providers._failures import status_failure
from agentloop_providers._http import Answer, HTTPProvider
from agentloop_providers._names import Fitted
from agentloop_providers._strict import Held
from agentloop_providers.retry import Failure, Retry

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic

STREAM_ABOVE = 21_333
"""Replies that may get longer than this many tokens are streamed: the API wants it so."""

MAX_PAUSES = 8
"""How often a turn that the API paused (``pause_turn``) is taken up again within one ask."""

_CHOICES = {"auto": "auto", "required": "any", "none": "none"}


class AnthropicProvider(HTTPProvider):
    """Asks a model over the Messages API.

    Prompt caching is on. ``temperature`` is not sent: the API takes none any more. Audio has no
    place in this API: in a prompt it raises ``BadRequestError``, in a tool result the model is told
    that something was left out.
    """

    kind: ClassVar[str] = mapping.KIND
    path: ClassVar[str] = "/v1/messages"
    package: ClassVar[str] = "anthropic"
    key_variables: ClassVar[tuple[str, ...]] = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")
    holds_limits: ClassVar[bool] = False

    def __init__(
        self,
        model: str,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        client: AsyncAnthropic | None = None,
        timeout: float = 600.0,
        retry: Retry | None = None,
        cache: bool | Literal["5m", "1h"] = True,
        parallel: bool = True,
        strict: bool = True,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Without ``api_key``, what the SDK finds in its environment counts.

        ``timeout`` is in seconds, for one request. ``cache`` asks for prompt caching, and for how
        long; ``parallel`` allows several tool uses in one reply; ``strict`` has the API hold typed
        answers to their schema where it can; ``options`` are further fields of the request by the
        API's own names, such as ``thinking``. Raises :class:`DefinitionError` where there is no
        model or no key.
        """
        url = base_url or os.environ.get("ANTHROPIC_BASE_URL")
        super().__init__(
            model,
            key=api_key or os.environ.get("ANTHROPIC_API_KEY"),
            base_url=url.rstrip("/").removesuffix("/v1") if url else None,
            client=client,
            timeout=timeout,
            retry=retry,
            strict=strict,
            options=options,
        )
        if client is None and self._key is None:
            self._look_for_credentials()
        self.cache = cache
        self.parallel = parallel
        self._warned = False
        self._thinks = _thinks(self.options.get("thinking"))

    def _look_for_credentials(self) -> None:
        """A token, a profile or a federated identity is as good as a key."""
        try:
            found = self._connect()
        except self.sdk.AnthropicError as error:
            raise DefinitionError(f"anthropic: no key: {type(error).__name__}") from None
        if found.auth_token is None and found.credentials is None:
            raise DefinitionError("anthropic: no key: set ANTHROPIC_API_KEY or pass api_key=")

    def _connect(self) -> AsyncAnthropic:
        return self.sdk.AsyncAnthropic(
            api_key=self._key, base_url=self._base_url, timeout=self._timeouts, max_retries=0
        )

    async def _sample(self, request: CreateMessageRequestParams) -> CreateMessageResultWithTools:
        names = Fitted(names=[tool.name for tool in tools_of(request)])
        answer, held = await self._ask(request, lambda held: self._body(request, names, held))
        content, usage = self._content(answer), mapping.to_usage(answer.data)
        pauses = 0
        while answer.data.get("stop_reason") == "pause_turn":
            if (pauses := pauses + 1) > MAX_PAUSES:
                raise self._malformed(f"the turn was paused {pauses} times", answer.request_id)
            body = self._body(request, names, held)
            paused = {"role": "assistant", "content": content}
            answer = await self._send({**body, "messages": [*body["messages"], paused]})
            content = [*content, *self._content(answer)]
            more = mapping.to_usage(answer.data)
            usage = usage + more if usage and more else usage or more
        if held and held.alone:
            content = mapping.with_answer(content, held, names)
        try:
            blocks = mapping.from_content(content, names)
        except ValueError as error:
            raise self._malformed(str(error), answer.request_id) from None
        return self._reply(
            answer,
            blocks,
            stop=mapping.to_stop(answer.data.get("stop_reason"), blocks),
            usage=usage,
            form=mapping.to_form(content),
        )

    def _body(
        self, request: CreateMessageRequestParams, names: Fitted, held: Held | None
    ) -> dict[str, Any]:
        if request.temperature is not None and not self._warned:
            self._warned = True
            log().warning("temperature_dropped", provider=self.name)
        body: dict[str, Any] = {"model": self.model, "max_tokens": request.max_tokens}
        if request.tools:
            body["tools"] = mapping.to_tools(request, names, held)
            if choice := self._choice(choice_of(request)):
                body["tool_choice"] = choice
        if request.system_prompt and request.system_prompt.strip():
            body["system"] = request.system_prompt
        body["messages"] = mapping.to_messages(request.messages, self.model, names)
        if request.stop_sequences:
            body["stop_sequences"] = request.stop_sequences
        if request.metadata and isinstance(request.metadata.get("user_id"), str):
            body["metadata"] = {"user_id": request.metadata["user_id"]}
        if self.cache:
            ttl = {} if self.cache is True else {"ttl": self.cache}
            body["cache_control"] = {"type": "ephemeral", **ttl}
        body |= self.options
        if held and held.alone and self._thinks:  # the one way to make sure of an answer
            format = {"format": mapping.to_format(held)}
            body["output_config"] = format | (body.get("output_config") or {})
            body["tool_choice"] = self._choice("none")
        return body

    def _choice(self, mode: str | None) -> dict[str, Any] | None:
        kind = _CHOICES[mode or "auto"]
        if kind == "any" and self._thinks:
            kind = "auto"  # the API refuses to force a tool on a model that thinks
        if kind == "none" or self.parallel:
            return {"type": kind} if mode else None
        return {"type": kind, "disable_parallel_tool_use": True}

    async def _ask(
        self, request: CreateMessageRequestParams, body: Callable[[Held | None], dict[str, Any]]
    ) -> tuple[Answer, Held | None]:
        try:
            return await super()._ask(request, body)
        except BadRequestError as error:
            forced = choice_of(request) == "required" and not self._thinks
            if not forced or not _is_of_thinking(error):
                raise
        self._thinks = True  # some models do without being asked to
        return await super()._ask(request, body)

    def _may_be_unheld(self, error: BadRequestError) -> bool:
        return super()._may_be_unheld(error) and not _is_of_thinking(error)

    async def _send(self, body: dict[str, Any]) -> Answer:
        stream = body["max_tokens"] > STREAM_ABOVE
        return await super()._send({**body, "stream": True} if stream else body)

    def _read(self, response: httpx2.Response) -> Answer | Failure:
        """The reply, as JSON or as a stream, which is read to its end: nobody sees it before."""
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            return super()._read(response)
        request_id = response.headers.get("request-id")
        try:
            events = self.sdk.Stream[Any].raw_events(response)
            message = message_of(event.data for event in events if event.data)
        except StreamError as error:
            return status_failure(200, error.event, response.headers, *self._secrets)
        except ValueError as error:
            return Failure(self._malformed(f"a damaged stream: {error}", request_id), again=False)
        if message is None:
            ended = OverloadedError(f"{self._host}: the stream ended before the message")
            return Failure(ended, again=True)
        return Answer(message, request_id)

    def _content(self, answer: Answer) -> list[dict[str, Any]]:
        content = answer.data.get("content")
        if not isinstance(content, list):
            raise self._unlike(answer, "content")
        blocks = cast("list[Any]", content)
        if not all(isinstance(b, dict) and isinstance(b.get("type"), str) for b in blocks):  # pyright: ignore[reportUnknownMemberType]
            raise self._malformed("a content block has no type", answer.request_id)
        return blocks


def _is_of_thinking(error: BadRequestError) -> bool:
    """Whether the API refused to force a tool on a model that thinks."""
    return re.search(r"thinking\b.*\btool", str(error), re.IGNORECASE) is not None


def _thinks(thinking: object) -> bool:
    return isinstance(thinking, dict) and cast("Any", thinking).get("type") != "disabled"
