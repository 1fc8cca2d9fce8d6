"""Inspect's models as providers."""

from __future__ import annotations

from typing import Any

from inspect_ai.model import GenerateConfig, Model, get_model
from inspect_ai.tool import ToolInfo
from mcp_types import CreateMessageRequestParams

from agentloop.errors import DefinitionError, ProviderError
from agentloop.evals.inspect_ai.messages import Chat, to_reply
from agentloop.evals.inspect_ai.tools import to_info
from agentloop.meta import Reply
from agentloop_providers._content import choice_of, tools_of
from agentloop_providers._names import Fitted

_CHOICES: dict[str | None, Any] = {"auto": "auto", "required": "any", "none": "none"}


class InspectError(ProviderError):
    """Inspect's model could not answer, or a limit of Inspect does not let it."""

    code = "inspect"


class InspectProvider:
    """Answers with a model of Inspect: any that Inspect knows, with its retries and its cache.

    What is set in Inspect (``--max-tokens``, ``--temperature``, ...) counts for more than what the
    agent says.
    """

    def __init__(self, model: str | Model | None = None) -> None:
        """By default the model of the task that runs, else Inspect's default."""
        self._model = model
        self.chat = Chat()
        """The messages of the asks so far, as Inspect has them."""
        self.stopped: Exception | None = None
        """What Inspect raised, to be raised again by whoever runs inside of Inspect."""

    @classmethod
    def from_spec(cls, rest: str) -> InspectProvider:
        """From ``inspect:MODEL``, as Inspect names models. Raises :class:`DefinitionError`."""
        if not rest:
            raise DefinitionError("inspect: needs a model, e.g. inspect:openai/MODEL")
        try:
            return cls(get_model(rest))
        except Exception as error:
            raise DefinitionError(f"inspect:{rest}: {error}") from error

    @property
    def name(self) -> str:
        return f"inspect:{self._model or 'the model of the task'}"

    async def sample(self, request: CreateMessageRequestParams) -> Reply:
        """Inspect's answer. Raises :class:`InspectError`; once Inspect has stopped, always."""
        if self.stopped is not None:
            raise InspectError(str(self.stopped)) from self.stopped
        tools = tools_of(request)
        names = Fitted(names=[tool.name for tool in tools])
        messages = self.chat.of(request.messages, names)
        if request.system_prompt:
            messages.insert(0, self.chat.system(request.system_prompt))
        infos: list[ToolInfo] = [to_info(tool, names) for tool in tools]
        try:
            model = get_model(self._model)
            output = await model.generate(
                messages,
                tools=infos,
                tool_choice=_CHOICES.get(choice_of(request)),
                config=_config(request, model),
            )
        except Exception as error:
            self.stopped = error
            raise InspectError(f"{type(error).__name__}: {error}") from error
        return to_reply(output, names)


def _config(request: CreateMessageRequestParams, model: Model) -> GenerateConfig:
    """What the agent says and Inspect does not."""
    from inspect_ai.model._generate_config import active_generate_config

    said = model.config.merge(active_generate_config())
    return GenerateConfig(
        max_tokens=request.max_tokens if said.max_tokens is None else None,
        temperature=request.temperature if said.temperature is None else None,
        stop_seqs=request.stop_sequences if said.stop_seqs is None else None,
    )
