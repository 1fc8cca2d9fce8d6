"""Metrics of asks, tool calls and runs."""

from __future__ import annotations

import time
from threading import Lock
from typing import Any, Literal, get_args

from opentelemetry.metrics import Histogram, Meter, MeterProvider, get_meter

from agentloop._version import __version__
from agentloop.errors import DefinitionError
from agentloop.run import Run
from agentloop.telemetry.ask import AskedOf, Spent

Conventions = Literal["0.1.0", "1.41"]
"""A version of the GenAI semantic conventions: of their own repository, or the last one before."""

_FLUSH_SECONDS = 1.0

# The bucket boundaries that the conventions advise.
_SHORT = [0.01 * 2**n for n in range(14)]
_LONG = [0.1 * 2**n for n in range(13)]
_CALLS = [float(2**n) for n in range(8)]
_TOKENS = [float(4**n) for n in range(14)]


class Metrics:
    """Records what the conventions ask for. Attributes take few values, whatever a model says."""

    def __init__(self, conventions: Conventions, provider: MeterProvider | None) -> None:
        """Raises :class:`DefinitionError` for conventions that are not known."""
        if conventions not in get_args(Conventions):
            known = " and ".join(get_args(Conventions))
            raise DefinitionError(f"there are no conventions {conventions!r}; known are {known}")
        meter = get_meter("agentloop", __version__, provider)
        if conventions == "1.41":
            self._tokens: _Counters | _Histogram = _Histogram(meter)
            ask_seconds = "gen_ai.client.operation.duration"
        else:
            self._tokens = _Counters(meter)
            ask_seconds = "gen_ai.client.inference.duration"
        self._ask_seconds = _histogram(meter, ask_seconds, "s", _SHORT)
        self._tool_seconds = _histogram(meter, "gen_ai.execute_tool.duration", "s", _SHORT)
        run = "gen_ai.invoke_agent"
        self._run_seconds = _histogram(meter, f"{run}.duration", "s", _LONG)
        self._steps = _histogram(meter, f"{run}.inference_calls", "{inference_call}", _CALLS)
        self._tool_calls = _histogram(meter, f"{run}.tool_calls", "{tool_call}", _CALLS)
        self._stops = meter.create_counter("agentloop.stops", "{run}", "Runs that ended, by how.")

    def ask_ended(
        self,
        asked: AskedOf,
        seconds: float,
        spent: Spent | None,
        error: str | None,
        response_model: str | None = None,
    ) -> None:
        """``spent`` is None where nobody reported it. What a client says its model is called is
        left out: it may say anything."""
        attributes = asked.attributes
        if response_model and asked.trusted:
            attributes = {**attributes, "gen_ai.response.model": response_model}
        if spent:
            self._tokens.add(spent, attributes)
        self._ask_seconds.record(seconds, _with_error(attributes, error))

    def tool_ended(self, agent: str, tool: str | None, seconds: float, error: str | None) -> None:
        """``tool`` is None for one that does not exist."""
        attributes = {"gen_ai.tool.name": tool or "_OTHER", "gen_ai.agent.name": agent}
        self._tool_seconds.record(seconds, _with_error(attributes, error))

    def run_ended(self, run: Run, seconds: float, error: str | None) -> None:
        """A run has a stop."""
        attributes = {"gen_ai.agent.name": run.definition.name}
        self._run_seconds.record(seconds, _with_error(attributes, error))
        self._steps.record(run.steps, attributes)
        self._tool_calls.record(run.tool_calls, attributes)
        self._stops.add(1, {**attributes, "agentloop.stop": str(run.stop)})

    def flush(self) -> None:
        """Report what is not reported yet."""
        self._tokens.flush()


class _Counters:
    """Tokens as counters. They are added up here and reported once a second at most: adding to an
    SDK's counter costs as much as a tenth of a step."""

    def __init__(self, meter: Meter) -> None:
        self._counters = [
            meter.create_counter(f"gen_ai.client.inference.usage.{name}", "{token}", says)
            for name, says in (
                ("input_tokens", "Input tokens used, cached ones included."),
                ("output_tokens", "Output tokens used."),
                ("cache_read.input_tokens", "Input tokens read from the provider's cache."),
                ("cache_write.input_tokens", "Input tokens written to the provider's cache."),
            )
        ]
        self._lock = Lock()
        self._waiting: dict[tuple[tuple[str, Any], ...], list[int]] = {}
        self._flushed = time.monotonic()

    def add(self, spent: Spent, attributes: dict[str, Any]) -> None:
        with self._lock:
            sums = self._waiting.setdefault(tuple(attributes.items()), [0, 0, 0, 0])
            for place, tokens in enumerate(spent):
                sums[place] += tokens
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, {}
            self._flushed = time.monotonic()
        for items, sums in waiting.items():
            attributes = {**dict(items), "gen_ai.token.modality": "unknown"}
            for counter, tokens in zip(self._counters, sums, strict=True):
                if tokens:
                    counter.add(tokens, attributes)


class _Histogram:
    """Tokens as one histogram, as it was up to version 1.41."""

    def __init__(self, meter: Meter) -> None:
        self._tokens = _histogram(meter, "gen_ai.client.token.usage", "{token}", _TOKENS)

    def add(self, spent: Spent, attributes: dict[str, Any]) -> None:
        self._tokens.record(spent.input, {**attributes, "gen_ai.token.type": "input"})
        self._tokens.record(spent.output, {**attributes, "gen_ai.token.type": "output"})

    def flush(self) -> None:
        """Nothing waits."""


def _histogram(meter: Meter, name: str, unit: str, boundaries: list[float]) -> Histogram:
    return meter.create_histogram(name, unit, explicit_bucket_boundaries_advisory=boundaries)


def _with_error(attributes: dict[str, Any], error: str | None) -> dict[str, Any]:
    return {**attributes, "error.type": error} if error else attributes
