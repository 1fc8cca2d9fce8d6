"""agentloop agents inside Inspect AI (``pip install 'mcp-agentloop[inspect]'``).

::

    from agentloop.evals.inspect_ai import as_solver

    @task
    def capitals():
        return Task(dataset=..., solver=as_solver(agent), scorer=includes())
"""

from agentloop.evals.inspect_ai.agent import as_agent, as_solver
from agentloop.evals.inspect_ai.provider import InspectError, InspectProvider

__all__ = ["InspectError", "InspectProvider", "as_agent", "as_solver"]
