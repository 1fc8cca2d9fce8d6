"""The runs that the engine has records of, whichever process works on them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterable, Mapping
from contextvars import Context
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar, cast

from dbos import DBOS, SetWorkflowID, WorkflowStatus
from dbos import error as dbos_errors

from agentloop.durable.claims import claims_of
from agentloop.durable.info import RunInfo, RunState, latest, statuses
from agentloop.durable.known import Known
from agentloop.durable.records import CANCELLED, INSIDE, Order
from agentloop.errors import DefinitionError, StateError
from agentloop.log import log
from agentloop.store import Store

T = TypeVar("T")

OVER = ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]


class Runs:
    """The runs of the agents that a program knows, in the records of the engine.

    All raise :class:`DefinitionError` unless ``open``, which is set while the engine is launched.
    """

    def __init__(self, agents: Mapping[str, Known], store: Store) -> None:
        """``store`` keeps the claims of the runs."""
        self._agents = agents
        self._store = store
        self.open = False

    async def launch(self, known: Known, id: str, order: Order) -> None:
        """Have the engine bring ``order`` to its end as the run ``id``, unless it does already."""
        self._check_open()
        try:
            await outside(self._begin(known, id, order))
        except dbos_errors.DBOSConflictingWorkflowError as error:
            raise StateError(f"run {id!r} is one of another agent") from error

    async def _begin(self, known: Known, id: str, order: Order) -> None:
        workflow = cast("Any", known.workflow)
        with SetWorkflowID(id):
            # Runs inside of others never wait in a queue: those that they are inside of hold it.
            if known.setting.concurrency is None or INSIDE in id:
                await DBOS.start_workflow_async(workflow, order.to_json())
            else:
                await DBOS.enqueue_workflow_async(known.queue, workflow, order.to_json())

    async def info(self, id: str) -> RunInfo:
        """What is known of the run ``id``. Raises :class:`StateError` where it is not known."""
        return RunInfo.of(await self.status(id))

    async def latest(
        self, *, state: RunState | None = None, agent: str | None = None, limit: int = 100
    ) -> list[RunInfo]:
        """The latest runs, the newest first; those inside of others are not listed."""
        names = agent or list(self._agents)
        return await latest(partial(self.find, status=statuses(state), name=names), limit)

    async def cancel(self, id: str) -> None:
        """Stop the run ``id`` and those inside of it. Raises :class:`StateError` for none."""
        await self.status(id)
        ids = [id, *await self._inside(id)]
        for each in ids:  # said first, so that nobody takes over what is being cancelled
            await outside(DBOS.update_workflow_attributes_async(each, {CANCELLED: True}))
        await outside(DBOS.cancel_workflows_async(ids))

    async def forget(self, *, older_than: float) -> int:
        """Forget runs that ended more than ``older_than`` seconds ago; how many they were."""
        before = datetime.fromtimestamp(time.time() - older_than, UTC).isoformat()
        found = await self.find(status=OVER, name=list(self._agents), completed_before=before)
        # Those inside of others go with them: a run that goes on may need what they gave.
        old = [each.workflow_id for each in found if INSIDE not in each.workflow_id]
        for id in old:
            ids = [id, *await self._inside(id)]
            await outside(DBOS.delete_workflows_async(ids))
            for each in ids:
                await self._store.forget(claims_of(each))
        return len(old)

    async def _inside(self, id: str) -> list[str]:
        found = await self.find(workflow_id_prefix=id + INSIDE)
        return [status.workflow_id for status in found]

    async def status(self, id: str) -> WorkflowStatus:
        """The record of the run ``id``. Raises :class:`StateError` where there is none."""
        self._check_open()
        status = await outside(DBOS.get_workflow_status_async(id))
        if status is None:
            raise StateError(f"there is no run {id!r}: it never was, or it is forgotten")
        return status

    async def find(self, **wanted: Any) -> list[WorkflowStatus]:
        """The records for which ``wanted`` holds, without what the runs were given and gave."""
        self._check_open()
        wanted = {"load_input": False, "load_output": False, **wanted}
        return await outside(DBOS.list_workflows_async(**wanted))

    async def resume(self, found: Iterable[WorkflowStatus]) -> None:
        """Have runs go on in any process that has room."""
        for known in self._agents.values():
            ids = [status.workflow_id for status in found if status.name == known.name]
            if not ids:
                continue
            log().info("runs_taken_over", agent=known.name, runs=len(ids))
            try:
                await outside(DBOS.resume_workflows_async(ids, queue_name=known.queue))
            except dbos_errors.DBOSNonExistentWorkflowError:
                continue  # forgotten meanwhile
            # To resume a run brings it back even if it was cancelled in this very moment.
            again = await self.find(workflow_ids=ids)
            cancelled = [s.workflow_id for s in again if (s.attributes or {}).get(CANCELLED)]
            if cancelled:
                await outside(DBOS.cancel_workflows_async(cancelled))

    def _check_open(self) -> None:
        if not self.open:
            raise DefinitionError("durable runs need their engine: async with durable: ...")


async def outside(work: Coroutine[Any, Any, T]) -> T:
    """Await ``work`` as code that is in no workflow: the engine counts what is done inside."""
    return await Context().run(asyncio.create_task, work)
