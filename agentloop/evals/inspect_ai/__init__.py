"""agentloop agents inside Inspect AI (``pip install 'mcp-agentloop[inspect]'``).

::

    from agentloop.evals.inspect_ai import as_solver

    @task
    def capitals():
        return Task(dataset=..., solver=as_solver(agent), scorer=includes())
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentloop.evals.inspect_ai.agent import as_agent, as_solver
    from agentloop.evals.inspect_ai.provider import InspectError, InspectProvider

__all__ = ["InspectError", "InspectProvider", "as_agent", "as_solver"]

# Found on first use: Inspect takes seconds to load.
_HOME = {
    "InspectError": "provider",
    "InspectProvider": "provider",
    "as_agent": "agent",
    "as_solver": "agent",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
