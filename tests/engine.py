"""The engine of durable runs, where it can work."""

from __future__ import annotations

import pytest


def needs_engine_on_sqlite() -> None:
    """Skip the test where the engine is missing, or this Python's SQLite is too old for it."""
    if not pytest.importorskip("agentloop.durable.engine").takes_sqlite():
        pytest.skip("the SQLite of this Python is too old for the engine of durable runs")
