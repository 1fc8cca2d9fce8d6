"""The event sink that keeps spans and metrics."""

from __future__ import annotations

import time
from typing import Any

from opentelemetry import context, trace
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import Span, SpanKind, StatusCode, TracerProvider

from agentloop._version import __version__
from agentloop.events import (
    AskEnded,
    AskStarted,
    Event,
    RunEnded,
    RunStarted,
    RunSuspended,
    ToolEnded,
    ToolStarted,
)
from agentloop.meta import USAGE_KEY
from agentloop.run import Run, Stop
from agentloop.secret import hidden
from agentloop.telemetry import content as said
from agentloop.telemetry.ask import Spent
from agentloop.telemetry.metrics import Conventions, Metrics
from agentloop.telemetry.tracked import Tracked, make_current, place, remote

_ERRORS = frozenset({Stop.FAILED, Stop.DENIED, Stop.CANCELLED})
_PARKED = "rounds"
"""The carrier whose asks are never answered where they left from."""


class OpenTelemetry:
    """An event sink that keeps spans and metrics. One serves all agents of a process.

    What people and models said is left out unless ``content`` is set.
    """

    def __init__(
        self,
        *,
        content: bool = False,
        conventions: Conventions = "0.1.0",
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        """``conventions="1.41"`` names metrics as they were before the GenAI conventions moved to
        a repository of their own, for dashboards that expect that. The providers are by default
        the global ones."""
        self._tracer = trace.get_tracer("agentloop", __version__, tracer_provider)
        self._metrics = Metrics(conventions, meter_provider)
        self._content = content
        self._runs: dict[str, Tracked] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            self._begin(event)
            return
        tracked = self._runs.get(event.run.id)
        if tracked is None:
            return
        if isinstance(event, ToolStarted):
            self._open_tool(tracked, event)
        elif isinstance(event, ToolEnded):
            self._close_tool(tracked, event)
        elif isinstance(event, AskStarted):
            self._open_ask(tracked, event)
        elif isinstance(event, AskEnded):
            self._close_ask(tracked, event)
        else:
            self._end(tracked, event)

    # --- runs ----------------------------------------------------------------------------------

    def _begin(self, event: RunStarted) -> None:
        run, definition = event.run, event.run.definition
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": definition.name,
            "gen_ai.request.max_tokens": definition.max_tokens,
            "agentloop.run.id": run.id,
            "agentloop.run.key": event.key,
        }
        if definition.temperature is not None:
            attributes["gen_ai.request.temperature"] = definition.temperature
        if definition.stop_sequences:
            attributes["gen_ai.request.stop_sequences"] = definition.stop_sequences
        if definition.output:
            attributes["gen_ai.output.type"] = "json"
        if event.resumed:
            attributes["agentloop.resumed"] = True
        if self._content:
            attributes.update(said.of_definition(definition))
        above, links = place(run)
        span = self._tracer.start_span(
            f"invoke_agent {definition.name}", above, attributes=attributes, links=links
        )
        self._runs[run.id] = Tracked(run, span, make_current(span), resumed=event.resumed)

    def _end(self, tracked: Tracked, event: RunEnded | RunSuspended) -> None:
        run, span = event.run, tracked.span
        suspended = isinstance(event, RunSuspended)
        error = None if suspended else _error(run)
        self._end_what_is_open(tracked, run, suspended=suspended)
        if suspended:
            span.set_attribute("agentloop.suspended", True)
        else:
            how = {
                "agentloop.stop": str(run.stop),
                "agentloop.steps": run.steps,
                "agentloop.tool_calls": run.tool_calls,
            }
            if not run.usage.estimated:
                how["gen_ai.usage.input_tokens"] = run.usage.input_tokens
                how["gen_ai.usage.output_tokens"] = run.usage.output_tokens
            span.set_attributes(how)
            self._metrics.run_ended(run, tracked.seconds, error)
        self._metrics.flush()
        self._close(span, error, run.error)
        context.detach(tracked.token)
        del self._runs[run.id]

    def _end_what_is_open(self, tracked: Tracked, run: Run, *, suspended: bool) -> None:
        for span, _ in tracked.tools.values():
            if suspended:
                span.set_attribute("agentloop.suspended", True)
            self._close(span, None if suspended else "cancelled")
        # An ask that was never answered is a failure of the ask, whatever stop the run has; one
        # that is parked is recorded by whoever gets the answer.
        error = "cancelled" if suspended else _code(run)
        if tracked.ask:
            seconds = time.monotonic() - tracked.asked_at
            self._metrics.ask_ended(tracked.asked_of, seconds, None, error)
            self._close(tracked.ask[0], error, run.error)
        elif tracked.resumed and run.asked and not suspended:
            seconds = max(time.time() - run.asked, 0.0)
            self._metrics.ask_ended(tracked.asked_of, seconds, None, error)
            self._close(self._answered_here(tracked, run.steps + 1), error, run.error)

    # --- asks ----------------------------------------------------------------------------------

    def _open_ask(self, tracked: Tracked, event: AskStarted) -> None:
        tracked.run = event.run
        if tracked.provider != event.provider:
            tracked.learn(event.provider)
        if tracked.carrier == _PARKED:
            return
        span = self._tracer.start_span(
            tracked.asked_of.span_name,
            tracked.context,
            SpanKind.CLIENT,
            {**tracked.asked_of.attributes, "agentloop.step": event.run.steps + 1},
        )
        tracked.asked_at = time.monotonic()
        tracked.ask = (span, make_current(span))

    def _answered_here(self, tracked: Tracked, step: int) -> Span:
        """The span of an ask that left elsewhere, some time ago."""
        run = tracked.run
        return self._tracer.start_span(
            tracked.asked_of.span_name,
            remote(run) or tracked.context,
            SpanKind.CLIENT,
            {**tracked.asked_of.attributes, "agentloop.step": step},
            start_time=min(int(run.asked * 1e9), time.time_ns()) if run.asked else None,
        )

    def _close_ask(self, tracked: Tracked, event: AskEnded) -> None:
        run, reply = event.run, event.reply
        if tracked.provider != event.provider:
            tracked.learn(event.provider)
        if tracked.ask:
            span, token = tracked.ask
            context.detach(token)
            tracked.ask = None
        else:
            span = self._answered_here(tracked, run.steps)
        reported = bool(reply.meta) and USAGE_KEY in reply.meta
        spent = Spent.between(tracked.run.usage, run.usage) if reported else None
        self._metrics.ask_ended(tracked.asked_of, event.seconds, spent, None, reply.model)
        if span.is_recording():
            if tracked.asked_of.model is None:
                span.update_name(f"chat {reply.model[:64]}")
            attributes: dict[str, Any] = {"gen_ai.response.model": reply.model}
            if reply.stop_reason:
                attributes["gen_ai.response.finish_reasons"] = (reply.stop_reason,)
            if spent:
                attributes.update(spent.attributes())
            if self._content:
                attributes.update(said.of_ask(tracked.run.messages, reply))
            span.set_attributes(attributes)
        span.end()
        tracked.run = run

    # --- tools ---------------------------------------------------------------------------------

    def _open_tool(self, tracked: Tracked, event: ToolStarted) -> None:
        call = event.call
        known = call.name in tracked.tool_names
        span = self._tracer.start_span(
            # Models make names up; a span's name must be one of few.
            f"execute_tool {call.name}" if known else "execute_tool",
            tracked.context,
            attributes={
                "gen_ai.operation.name": "execute_tool",
                "gen_ai.tool.name": call.name,
                "gen_ai.tool.call.id": call.id,
                "gen_ai.tool.type": "function",
            },
        )
        tracked.tools[call.id] = (span, make_current(span))

    def _close_tool(self, tracked: Tracked, event: ToolEnded) -> None:
        call = event.call
        opened = tracked.tools.pop(call.id, None)
        if opened is None:
            return
        span, token = opened
        context.detach(token)
        error = "tool_error" if event.result.is_error else None
        name = call.name if call.name in tracked.tool_names else None
        self._metrics.tool_ended(tracked.agent, name, event.seconds, error)
        if self._content:
            span.set_attributes(said.of_call(call, event.result))
        self._close(span, error)

    def _close(self, span: Span, error: str | None, message: str | None = None) -> None:
        """End ``span``. The message of an error may quote what was said: it is content."""
        if error:
            span.set_attribute("error.type", error)
            span.set_status(StatusCode.ERROR, hidden(message) if self._content else None)
        span.end()


def _error(run: Run) -> str | None:
    return _code(run) if run.stop in _ERRORS else None


def _code(run: Run) -> str:
    """What went wrong with ``run``, in one of few words."""
    return (run.error or str(run.stop)).partition(":")[0]
