"""What a run may spend (:class:`Limits`) and what it spent (:class:`Usage`)."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, NamedTuple, cast

from agentloop.errors import DefinitionError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one run may spend. ``None`` lifts a limit.

    Before a limit strikes, the model is told, and the last ask that still fits asks for an answer
    without tools. No limit is overrun by more than what was in flight when it struck.
    """

    steps: int | None = 20
    """Asks to the model."""
    tool_calls: int | None = 200
    """Tool calls that are started."""
    tokens: int | None = None
    """Input and output tokens, as reported, else estimated."""
    seconds: float | None = 600.0
    """Time that the run itself takes; over rounds, without the client's time between two rounds."""
    rounds: int | None = 10
    """Rounds of one served call (SEP-2322). Clients give up after 10 by default."""
    errors: int | None = 5
    """Steps in a row in which every tool call failed."""
    parallel: int = 16
    """How many tool calls may run at the same time."""
    calls_per_reply: int = 64
    """Tool calls taken from one reply; the others are answered as refused."""
    blocks_per_reply: int = 16_384
    """Content blocks of one reply; a reply of more is malformed, and the run fails."""
    bytes_per_reply: int = 4 * 1024 * 1024
    """What one reply may take; text beyond it is cut, and calls that do not fit are refused."""
    depth: int = 64
    """How deep the arguments of a call may nest; deeper ones are refused."""
    ask_seconds: float | None = 120.0
    """Time for one ask."""
    output_retries: int = 2
    """How often a structured answer that does not fit goes back to the model."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name in ("tool_calls", "output_retries") else 1
            if field.name in ("seconds", "ask_seconds"):
                ok = value is None or (type(value) in (int, float) and value > 0)
                wanted = "a number of seconds above 0, or None"
            else:
                optional = "None" in str(field.type)
                ok = (optional and value is None) or (type(value) is int and value >= least)
                wanted = f"a whole number of at least {least}" + (", or None" if optional else "")
            if not ok:
                raise DefinitionError(f"Limits({field.name}={value!r}): {field.name} is {wanted}")


class Usage(NamedTuple):
    """Tokens, as the provider reported them or, where it did not, as estimated.

    ``input_tokens`` counts everything that was read, cached or not; the two cache figures are the
    parts of it that were read from and written to the provider's prompt cache.
    """

    asks: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    estimated: str | None = None
    """How the figures, or some of them, were estimated: an encoding's name or ``bytes/4``."""

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What both used."""
        return Usage(
            self.asks + other.asks,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cache_read_tokens + other.cache_read_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
            self.estimated or other.estimated,
        )

    def to_json(self) -> dict[str, Any]:
        """The figures that are not zero, by name."""
        return {name: value for name, value in self._asdict().items() if value}

    @classmethod
    def from_json(cls, data: object) -> Usage:
        """Read what :meth:`to_json` wrote; what is no sensible figure counts as 0.

        Usage arrives from outside (a client writes it into ``_meta``), so nothing here is trusted.
        """
        if not isinstance(data, dict):
            return cls()
        given = cast("dict[str, object]", data)
        counts: dict[str, Any] = {
            name: value
            for name in _COUNTS
            if type(value := given.get(name)) is int and 0 <= value < 2**53
        }
        how = given.get("estimated")
        return cls(**counts, estimated=how[:64] if isinstance(how, str) else None)


_COUNTS = tuple(name for name in Usage._fields if name != "estimated")
