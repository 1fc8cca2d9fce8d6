"""Runs whose process is gone: who goes on with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import anyio

from agentloop.durable.executions import Executions, Phase
from agentloop.durable.known import Known
from agentloop.durable.replicas import Replica
from agentloop.log import log


class Takeover:
    """Takes over the runs of processes that are gone, and those that this one abandoned."""

    def __init__(
        self, agents: Mapping[str, Known], executions: Executions, replica: Replica
    ) -> None:
        self._agents, self._executions, self._replica = agents, executions, replica
        self._idle: set[str] = set()
        """Runs that are this process's, and that it did not work on when it last looked."""

    async def watch(self, *, every: float) -> None:
        """Look for such runs every ``every`` seconds, for ever."""
        while True:
            try:
                if self._executions.phase is Phase.OPEN:
                    await self._take_over()
            except Exception as error:  # noqa: BLE001  whatever it is: there is another time
                log().warning("takeover_failed", error_type=type(error).__name__)
            await anyio.sleep(every)

    async def _take_over(self) -> None:
        names, runs = list(self._agents), self._executions.runs
        running = await runs.find(status="PENDING", name=names)
        mine = [status for status in running if status.executor_id == self._replica.id]
        idle = [status for status in mine if status.workflow_id not in self._executions]
        # Seen twice, it was not about to begin: it was abandoned, as where the database failed.
        await runs.resume([each for each in idle if each.workflow_id in self._idle])
        self._idle = {status.workflow_id for status in idle}
        for other in {status.executor_id for status in running} - {self._replica.id, None}:
            if await self._replica.is_gone(cast("str", other)):
                # Listed again: until just now, somebody else may have taken them over.
                theirs = await runs.find(status="PENDING", name=names, executor_id=other)
                await runs.resume(theirs)
                await self._replica.bury(cast("str", other))
