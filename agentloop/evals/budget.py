"""What an evaluation may cost, and what tokens cost."""

from __future__ import annotations

from dataclasses import dataclass

from agentloop.usage import Usage


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs, in any one currency for a million tokens.

    Tokens that are read from or written to a cache cost as much as any other input where nothing
    else is said.
    """

    input: float
    output: float
    cache_read: float | None = None
    cache_write: float | None = None

    def of(self, usage: Usage) -> float:
        """What ``usage`` costs."""
        read, written = usage.cache_read_tokens, usage.cache_write_tokens
        plain = max(usage.input_tokens - read - written, 0)
        per_read = self.input if self.cache_read is None else self.cache_read
        per_write = self.input if self.cache_write is None else self.cache_write
        cached = read * per_read + written * per_write
        return (plain * self.input + cached + usage.output_tokens * self.output) / 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What all trials of an evaluation together may spend. None lifts a limit.

    Once one is spent, no further trial begins; those that run go on to their end. ``seconds`` is
    of one sitting; tokens and cost count those of earlier sittings too, and those of judges.
    """

    tokens: int | None = None
    cost: float | None = None
    seconds: float | None = None

    def spent(self, *, tokens: int, cost: float, seconds: float) -> str | None:
        """Which limit is spent, if one is."""
        for name, limit, used in (
            ("tokens", self.tokens, tokens),
            ("cost", self.cost, cost),
            ("seconds", self.seconds, seconds),
        ):
            if limit is not None and used >= limit:
                return f"the budget of {limit:,} {name} is spent"
        return None
