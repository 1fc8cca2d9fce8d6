"""What a run needs to know of its agent: plain data, no functions that do things."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mcp_types import CreateMessageRequestParams, ModelPreferences, Tool, ToolChoice

from agentloop.output import Output
from agentloop.usage import Limits


@dataclass(frozen=True, kw_only=True)
class Definition:
    """An agent as its runs see it.

    A saved run does not hold its definition, only the definition's :attr:`digest`: code stays in
    the code, and a run is not continued by an agent that has changed in between.
    """

    name: str
    instructions: str | None = None
    tools: tuple[Tool, ...] = ()
    polls: frozenset[str] = frozenset()
    """Names of the tools that may be called again and again with the same result."""
    output: Output | None = None
    limits: Limits = field(default_factory=Limits)
    max_tokens: int = 4096
    temperature: float | None = None
    stop_sequences: tuple[str, ...] = ()
    model_preferences: ModelPreferences | None = None

    def limited(self, limits: Limits | None) -> Definition:
        """The same with ``limits``, unless they are None."""
        if limits is None or limits == self.limits:
            return self
        changed = object.__new__(Definition)
        changed.__dict__.update(self.__dict__, limits=limits)  # with what was worked out already
        return changed

    @cached_property
    def offered(self) -> list[Tool]:
        """The tools as the model is offered them, in a fixed order."""
        return [*self.tools, *([self.output.tool] if self.output else [])]

    @cached_property
    def request(self) -> CreateMessageRequestParams:
        """An ask without its messages; the model chooses freely among the tools, if any."""
        return self._request(self.offered)

    @cached_property
    def answer_request(self) -> CreateMessageRequestParams:
        """An ask without its messages, after a reply that was no answer: some tool must be used."""
        return self._request(self.offered, ToolChoice(mode="required"))

    @cached_property
    def last_request(self) -> CreateMessageRequestParams:
        """The last ask without its messages: it can only end in an answer.

        SEP-1577 suggests ``toolChoice: none`` for it. A typed answer is itself carried by a tool,
        so there that tool alone is offered, and required.
        """
        if self.output:
            return self._request([self.output.tool], ToolChoice(mode="required"))
        return self._request(self.offered, ToolChoice(mode="none"))

    def _request(
        self, tools: list[Tool], choice: ToolChoice | None = None
    ) -> CreateMessageRequestParams:
        given: dict[str, Any] = {
            "system_prompt": self.instructions,
            "temperature": self.temperature,
            "stop_sequences": list(self.stop_sequences) or None,
            "model_preferences": self.model_preferences,
            "tools": tools or None,
            "tool_choice": choice,
        }
        set_ = {name: value for name, value in given.items() if value is not None}
        return CreateMessageRequestParams(messages=[], max_tokens=self.max_tokens, **set_)

    @cached_property
    def digest(self) -> str:
        """Changes when prompt, tools or output type do; not when limits do."""
        parts: list[Any] = [
            self.name,
            self.instructions,
            [tool.model_dump(mode="json", exclude_none=True) for tool in self.offered],
        ]
        canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode("utf-8", "replace")).hexdigest()[:16]
