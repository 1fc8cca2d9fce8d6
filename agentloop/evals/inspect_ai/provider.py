"""Inspect's models as providers."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from mcp_types import CreateMessageRequestParams

from agentloop.errors import DefinitionError, ProviderError
from agentloop.meta import Reply
from agentloop_providers._content import choice_of, tools_of
from agentloop_providers._names import Fitted

if TYPE_CHECKING:
    from inspect_ai.model import GenerateConfig, Model

    from agentloop.evals.inspect_ai.messages import Chat

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
        self.stopped: Exception | None = None
        """What stopped it for good, a limit for instance: whoever runs inside of Inspect raises
        it again."""

    @classmethod
    def from_spec(cls, rest: str) -> InspectProvider:
        """From ``inspect:MODEL``, as Inspect names models. Raises :class:`DefinitionError`."""
        if not rest:
            raise DefinitionError("inspect: needs a model, e.g. inspect:openai/MODEL")
        try:
            from inspect_ai.model import get_model

            return cls(get_model(rest))
        except ImportError as error:
            raise DefinitionError(
                f"inspect:{rest} needs a package that is not installed: {error}; "
                "try: pip install 'mcp-agentloop[inspect]'"
            ) from error
        except Exception as error:
            raise DefinitionError(f"inspect:{rest}: {error}") from error

    @property
    def name(self) -> str:
        return f"inspect:{self._model or 'the model of the task'}"

    @cached_property
    def chat(self) -> Chat:
        """The messages of the asks so far, as Inspect has them."""
        from agentloop.evals.inspect_ai.messages import Chat

        return Chat()

    async def sample(self, request: CreateMessageRequestParams) -> Reply:
        """Inspect's answer. Raises :class:`InspectError`; once it is stopped, always."""
        if self.stopped is not None:
            raise InspectError(str(self.stopped)) from self.stopped
        from inspect_ai.model import get_model

        from agentloop.evals.inspect_ai.messages import to_reply
        from agentloop.evals.inspect_ai.tools import to_info

        tools = tools_of(request)
        names = Fitted(names=[tool.name for tool in tools])
        messages = self.chat.of(request.messages, names)
        if request.system_prompt:
            messages.insert(0, self.chat.system(request.system_prompt))
        try:
            model = get_model(self._model)
            output = await model.generate(
                messages,
                tools=[to_info(tool, names) for tool in tools],
                tool_choice=_CHOICES.get(choice_of(request)),
                config=_config(request, model),
            )
        except Exception as error:
            if self._model is None:  # inside of a task, which is Inspect's to end or to go on with
                self.stopped = error
            raise InspectError(f"{type(error).__name__}: {error}") from error
        return to_reply(output, names)


def _config(request: CreateMessageRequestParams, model: Model) -> GenerateConfig:
    """What the agent says and Inspect does not."""
    from inspect_ai.model import GenerateConfig
    from inspect_ai.model._generate_config import active_generate_config

    said = model.config.merge(active_generate_config())
    return GenerateConfig(
        max_tokens=request.max_tokens if said.max_tokens is None else None,
        temperature=request.temperature if said.temperature is None else None,
        stop_seqs=request.stop_sequences if said.stop_seqs is None else None,
    )
