"""Runs that this process drives at the moment, and where their spans belong."""

from __future__ import annotations

import time
from contextvars import Token
from typing import TypeAlias

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from agentloop.events import carrier
from agentloop.run import Run
from agentloop.telemetry.ask import asked_of

Open: TypeAlias = tuple[Span, Token[Context]]
"""A span, and what makes the one before it current again."""


class Tracked:
    """A run that this process drives at the moment."""

    __slots__ = (
        "agent",
        "ask",
        "asked_at",
        "asked_of",
        "began",
        "carrier",
        "context",
        "provider",
        "resumed",
        "run",
        "span",
        "token",
        "tool_names",
        "tools",
    )

    def __init__(self, run: Run, span: Span, token: Token[Context], *, resumed: bool) -> None:
        self.run = run
        """As it was when its ask left."""
        self.agent = run.definition.name
        self.span = span
        self.token = token
        self.context = context.get_current()
        self.resumed = resumed
        self.began = time.monotonic()
        self.ask: Open | None = None
        self.asked_at = 0.0
        self.tools: dict[str, Open] = {}
        self.tool_names = {tool.name for tool in run.definition.offered}
        self.learn("")

    @property
    def seconds(self) -> float:
        """Since the run began, be it elsewhere."""
        if self.resumed and self.run.began:
            return max(time.time() - self.run.began, 0.0)
        return time.monotonic() - self.began

    def learn(self, provider: str) -> None:
        """Asks go to ``provider`` from now on."""
        self.provider = provider
        self.carrier = carrier(provider)
        self.asked_of = asked_of(provider)
        if provider:
            self.span.set_attribute("agentloop.carrier", self.carrier)


def place(run: Run) -> tuple[Context | None, list[Link]]:
    """What the span of ``run`` comes to stand below (None: the current span), and its links."""
    above = remote(run)
    if above is None:
        return None, []
    here = trace.get_current_span().get_span_context()
    if not here.is_valid:
        return above, []
    first = trace.get_current_span(above).get_span_context()
    return (None, []) if here.trace_id == first.trace_id else (above, [Link(here)])


def remote(run: Run) -> Context | None:
    """The context of the first span of ``run``, which may have been elsewhere."""
    if not isinstance(run.trace, str):
        return None
    found = _PROPAGATOR.extract({"traceparent": run.trace}, context.get_current())
    return found if trace.get_current_span(found).get_span_context().is_remote else None


_PROPAGATOR = TraceContextTextMapPropagator()


def make_current(span: Span) -> Token[Context]:
    """Let spans that are opened from here on come to stand below ``span``."""
    return context.attach(trace.set_span_in_context(span))
