"""An ask, in the words of the conventions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from agentloop.usage import Usage


@dataclass(frozen=True, slots=True)
class AskedOf:
    """Who answers asks."""

    model: str | None
    """The model that is asked for, where that is up to this side."""
    attributes: dict[str, str]
    trusted: bool
    """Whether it is a provider of this side's, and no client."""

    @property
    def span_name(self) -> str:
        return f"chat {self.model}" if self.model else "chat"


@lru_cache(maxsize=64)
def asked_of(provider: str) -> AskedOf:
    """Who is behind a provider of that name, such as ``anthropic:claude-x``."""
    name = provider
    while wrapped := re.fullmatch(r"emulated\((.*)\)", name):
        name = wrapped[1]
    system, _, model = name.partition(":")
    trusted = "client (" not in name
    if name.startswith("client ("):
        system, model = "mcp.client", ""
    elif "(" in system:  # several providers in one
        system, model = system.partition("(")[0], ""
    attributes = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": system or "_OTHER"}
    if model:
        attributes["gen_ai.request.model"] = model
    return AskedOf(model or None, attributes, trusted)


class Spent(NamedTuple):
    """The tokens of one ask."""

    input: int
    output: int
    cache_read: int
    cache_write: int

    @classmethod
    def between(cls, before: Usage, after: Usage) -> Spent:
        """What was used since ``before``."""
        return cls(
            after.input_tokens - before.input_tokens,
            after.output_tokens - before.output_tokens,
            after.cache_read_tokens - before.cache_read_tokens,
            after.cache_write_tokens - before.cache_write_tokens,
        )

    def attributes(self) -> dict[str, int]:
        """For the span of the ask."""
        found = {
            "gen_ai.usage.input_tokens": self.input,
            "gen_ai.usage.output_tokens": self.output,
        }
        if self.cache_read:
            found["gen_ai.usage.cache_read.input_tokens"] = self.cache_read
        if self.cache_write:
            found["gen_ai.usage.cache_write.input_tokens"] = self.cache_write
        return found
