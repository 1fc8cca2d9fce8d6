"""The trace that running code is part of, in the form in which it travels."""

from __future__ import annotations

import sys


def traceparent() -> str | None:
    """The current span as a W3C ``traceparent``; None outside of any span.

    Costs nothing where OpenTelemetry was never imported: then nobody can have opened a span.
    """
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    span = trace.get_current_span().get_span_context()
    if not span.is_valid:
        return None
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags & 0xFF:02x}"
