"""Chat Completions as a provider: OpenAI's, and every compatible server's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from mcp_types import CreateMessageRequestParams, CreateMessageResultWithTools

from agentloop.errors import DefinitionError
from agentloop_providers import _chat_map as mapping
from agentloop_providers._content import choice_of, cut_off, tools_of
from agentloop_providers._http import Answer, HTTPProvider
from agentloop_providers._names import Fitted
from agentloop_providers._strict import Held
from agentloop_providers.retry import Retry

if TYPE_CHECKING:
    from openai import AsyncOpenAI

MAX_STOPS = 4
"""How many stop sequences the API takes."""


class OpenAIChatProvider(HTTPProvider):
    """Asks a model over the Chat Completions API, which many servers speak.

    Images and audio in tool results are shown to the model in a user message right after them,
    since tool messages hold text only. Where nothing but a typed answer may come back, it is asked
    for as a response format, which more servers keep to than to a tool that must be used.
    """

    kind: ClassVar[str] = mapping.KIND
    path: ClassVar[str] = "/chat/completions"
    package: ClassVar[str] = "openai"
    key_variables: ClassVar[tuple[str, ...]] = ("OPENAI_API_KEY",)
    holds_limits: ClassVar[bool] = True

    def __init__(
        self,
        model: str,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        client: AsyncOpenAI | None = None,
        timeout: float = 600.0,
        retry: Retry | None = None,
        parallel: bool = True,
        strict: bool = True,
        max_tokens_field: Literal["max_completion_tokens", "max_tokens"] | None = None,
        echo: bool = True,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """With a ``base_url``, no key is needed.

        ``timeout`` is in seconds, for one request; ``parallel`` allows several tool uses in one
        reply; ``strict`` has the server hold typed answers to their schema where it can.
        ``max_tokens_field`` is what the server calls the limit of tokens: without it,
        ``max_tokens`` where there is a ``base_url`` and OpenAI's newer name where there is none.
        ``echo`` sends fields of the vendor's own, such as ``reasoning_content``, back with the
        history. ``options`` are further fields of the request by the API's own names. Raises
        :class:`DefinitionError` where there is no model or no key.
        """
        super().__init__(
            model,
            key=api_key or os.environ.get("OPENAI_API_KEY"),
            base_url=base_url or os.environ.get("OPENAI_BASE_URL"),
            client=client,
            timeout=timeout,
            retry=retry,
            strict=strict,
            options=options,
        )
        if client is None and self._key is None and self._base_url is None:
            raise DefinitionError(
                "openai-chat: no key: set OPENAI_API_KEY, pass api_key=, or give the address of a "
                "server that needs none: openai-chat:MODEL@http://localhost:8080/v1"
            )
        elsewhere = self._base_url is not None
        self.max_tokens_field = max_tokens_field or (
            "max_tokens" if elsewhere else "max_completion_tokens"
        )
        self.parallel = parallel
        self.echo = echo

        if client is None and self._key is None:
            self._request_options["headers"] = {"Authorization": self.sdk.Omit()}

    def _connect(self) -> AsyncOpenAI:
        return self.sdk.AsyncOpenAI(
            api_key=self._key or "none",  # the SDK wants one
            base_url=self._base_url,
            timeout=self._timeouts,
            max_retries=0,
        )

    async def _sample(self, request: CreateMessageRequestParams) -> CreateMessageResultWithTools:
        names = Fitted(names=[tool.name for tool in tools_of(request)])
        answer, held = await self._ask(request, lambda held: self._body(request, names, held))
        choice, message = self._choice(answer)
        if held and held.alone:
            message = mapping.with_answer(message, held, names)
        try:
            blocks, form = mapping.from_message(message, names)
        except ValueError as error:
            raise self._malformed(str(error), answer.request_id) from None
        stop = mapping.to_stop(choice.get("finish_reason"), message, blocks)
        kept = [form] if form and self.echo else None
        stops = request.stop_sequences or []
        if len(stops) > MAX_STOPS and cut_off(blocks, stops):
            stop, kept = "stopSequence", None
        return self._reply(
            answer, blocks, stop=stop, usage=mapping.to_usage(answer.data), form=kept
        )

    def _body(
        self, request: CreateMessageRequestParams, names: Fitted, held: Held | None
    ) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self.model}
        if held and held.alone:  # without the tool: servers take the one or the other
            body["response_format"] = mapping.to_format(held)
        elif request.tools:
            body["tools"] = mapping.to_tools(request, names, held)
            if mode := choice_of(request):
                body["tool_choice"] = mode
            if not self.parallel:
                body["parallel_tool_calls"] = False
        system = mapping.to_system(request.system_prompt or "", held)
        body["messages"] = [
            *([{"role": "system", "content": system}] if system.strip() else []),
            *mapping.to_messages(request.messages, self.model, names),
        ]
        body[self.max_tokens_field] = request.max_tokens
        if request.temperature is not None:
            body["temperature"] = request.temperature
        if request.stop_sequences:
            body["stop"] = request.stop_sequences[:MAX_STOPS]
        return body | self.options

    def _choice(self, answer: Answer) -> tuple[dict[str, Any], dict[str, Any]]:
        choices = answer.data.get("choices")
        if not isinstance(choices, list) or not choices:
            raise self._unlike(answer, "choice")
        first = cast("list[Any]", choices)[0]
        choice = cast("dict[str, Any]", first if isinstance(first, dict) else {})
        message = choice.get("message")
        if not isinstance(message, dict):
            raise self._malformed("a choice has no message", answer.request_id)
        return choice, cast("dict[str, Any]", message)
