"""Runs that outlive their process: on DBOS, in SQLite or PostgreSQL.

Each ask and each tool call of a durable run is a step that is recorded when it ends. When the
process dies, another one replays the records over the same agent and goes on from there, so the
transcript is that of a run that was never disturbed. Needs ``mcp-agentloop[dbos]``, and asyncio.
"""

from agentloop.durable.agent import DurableAgent
from agentloop.durable.engine import Durable
from agentloop.durable.handle import DurableRun
from agentloop.durable.info import RunInfo, RunState
from agentloop.durable.operations import DurableRuns

__all__ = ["Durable", "DurableAgent", "DurableRun", "DurableRuns", "RunInfo", "RunState"]
