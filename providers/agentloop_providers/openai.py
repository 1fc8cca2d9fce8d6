"""OpenAI's Responses API as a provider."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, cast

from mcp_types import CreateMessageRequestParams, CreateMessageResultWithTools

from agentloop.errors import DefinitionError
from agentloop_providers import _responses_map as mapping
from agentloop_providers._content import choice_of, cut_off, tools_of
from agentloop_providers._http import Answer, HTTPProvider
from agentloop_providers._names import Fitted
from agentloop_providers._strict import Held
from agentloop_providers.retry import Failure, Retry

if TYPE_CHECKING:
    from openai import AsyncOpenAI


class OpenAIProvider(HTTPProvider):
    """Asks a model over the Responses API; nothing is stored at the API's side.

    The API has no stop sequences: text is cut where one begins. Audio has no place in it: in a
    prompt it raises ``BadRequestError``, in a tool result the model is told that something was left
    out.
    """

    kind: ClassVar[str] = mapping.KIND
    path: ClassVar[str] = "/responses"
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
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """``timeout`` is in seconds, for one request; ``parallel`` allows several tool uses in one
        reply; ``strict`` has the API hold typed answers to their schema where it can; ``options``
        are further fields of the request by the API's own names, such as ``reasoning``. Raises
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
        if client is None and self._key is None:
            raise DefinitionError("openai: no key: set OPENAI_API_KEY or pass api_key=")
        self.parallel = parallel

    def _connect(self) -> AsyncOpenAI:
        return self.sdk.AsyncOpenAI(
            api_key=self._key, base_url=self._base_url, timeout=self._timeouts, max_retries=0
        )

    async def _sample(self, request: CreateMessageRequestParams) -> CreateMessageResultWithTools:
        names = Fitted(names=[tool.name for tool in tools_of(request)])
        answer, _ = await self._ask(request, lambda held: self._body(request, names, held))
        data, output = answer.data, self._output(answer)
        try:
            blocks, form = mapping.from_output(output, names)
        except ValueError as error:
            raise self._malformed(str(error), answer.request_id) from None
        stop = mapping.to_stop(data, output)
        if stop is None:
            raise self._malformed(f"the response is {data.get('status')!r}", answer.request_id)
        kept: list[dict[str, Any]] | None = form
        if request.stop_sequences and cut_off(blocks, request.stop_sequences):
            stop, kept = "stopSequence", None
        return self._reply(answer, blocks, stop=stop, usage=mapping.to_usage(data), form=kept)

    def _body(
        self, request: CreateMessageRequestParams, names: Fitted, held: Held | None
    ) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self.model, "store": False}
        if request.system_prompt and request.system_prompt.strip():
            body["instructions"] = request.system_prompt
        if request.tools:
            body["tools"] = mapping.to_tools(request, names, held)
            if mode := choice_of(request):
                body["tool_choice"] = mode
            if not self.parallel:
                body["parallel_tool_calls"] = False
        body["input"] = mapping.to_input(request.messages, self.model, names)
        body["max_output_tokens"] = request.max_tokens
        if request.temperature is not None:
            body["temperature"] = request.temperature
        if request.metadata:
            body["metadata"] = {k: v for k, v in request.metadata.items() if isinstance(v, str)}
        return body | self.options

    def _judge(self, answer: Answer) -> Failure | None:
        if answer.data.get("status") == "failed":
            return self._failed(answer.data.get("error"), answer.request_id)
        return None

    def _output(self, answer: Answer) -> list[dict[str, Any]]:
        output = answer.data.get("output")
        if not isinstance(output, list):
            raise self._unlike(answer, "output")
        items = cast("list[Any]", output)
        if not all(isinstance(i, dict) and isinstance(i.get("type"), str) for i in items):  # pyright: ignore[reportUnknownMemberType]
            raise self._malformed("an item has no type", answer.request_id)
        return items
