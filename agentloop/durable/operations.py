"""Durable runs for whoever works on none of them: operators, dashboards, metrics."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, TypeVar

import anyio.to_thread
from dbos import DBOSClient, WorkflowStatus
from sqlalchemy import create_engine, text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from agentloop.durable.info import RunInfo, RunState, latest, state_of, statuses
from agentloop.durable.records import APPLICATION, CANCELLED, INSIDE, JSONSerializer, queue_of
from agentloop.errors import DefinitionError, StateError, StoreError

T = TypeVar("T")

_GOING_ON = (RunState.QUEUED, RunState.RUNNING)
_COUNT = f"""SELECT status, count(*) AS number FROM {{schema}}workflow_status
    WHERE application_version = :ours AND workflow_uuid NOT LIKE '%{INSIDE}%' GROUP BY status"""


class DurableRuns:
    """The durable runs in the database of a URL, of all programs and agents, from outside.

    Works in any process, also beside an entered :class:`Durable`, and on trio. Runs inside of
    others go with those and are not listed. Every method may raise :class:`StoreError`.
    """

    def __init__(self, url: str) -> None:
        """``url`` is that of a :class:`Durable`. Raises :class:`DefinitionError` for a bad one."""
        try:
            self._engine = create_engine(url)
        except (ArgumentError, ImportError) as error:
            raise DefinitionError(f"no database can be had at this URL: {error}") from error

    async def close(self) -> None:
        """Close all connections."""
        await self._do(self._engine.dispose)

    async def list(
        self, *, state: RunState | None = None, beginning: str | None = None, limit: int = 100
    ) -> Sequence[RunInfo]:
        """The latest runs, the newest first; ``beginning`` is how their ids begin."""
        wanted = {"status": statuses(state), "workflow_id_prefix": beginning}
        return await latest(partial(self._find, **wanted), limit)

    async def info(self, id: str) -> RunInfo:
        """What is known of the run. Raises :class:`StateError` where there is none."""
        return RunInfo.of(await self._status(id))

    async def count(self) -> Mapping[str, int]:
        """How many runs there are in each :class:`RunState`."""
        return await self._do(self._count)

    async def details(self, id: str) -> dict[str, Any]:
        """Everything that is known of the run, its order, steps and result included, as JSON.

        Raises :class:`StateError` where there is none.
        """
        status = await self._status(id, load_input=True, load_output=True)
        steps = await self._do(partial(self._client.list_workflow_steps, id, load_output=False))
        inside = await self._inside(id)
        order: Any = (status.input or {}).get("args") or [None]
        known = {
            "id": id,
            "agent": status.name,
            "state": state_of(status.status),
            "created": _seconds(status.created_at),
            "updated": _seconds(status.updated_at),
            "program": status.application_name,
            "replica": status.executor_id,
            "order": order[0],
            "steps": [_step(step) for step in steps],
            "inside": [each.workflow_id for each in inside],
            "result": status.output,
            "error": None if status.error is None else str(status.error),
        }
        return json.loads(json.dumps(known, default=repr))

    async def cancel(self, id: str) -> None:
        """Stop the run and those inside of it. Raises :class:`StateError` unless it goes on."""
        ids = [each.workflow_id for each in await self._going_on(id)]
        for each in ids:  # said first, so that nobody takes over what is being cancelled
            mark = partial(self._client.update_workflow_attributes, each, {CANCELLED: True})
            await self._do(mark)
        await self._do(partial(self._client.cancel_workflows, ids))

    async def resume(self, id: str) -> None:
        """Let any process take the run up now, and those inside of it, whoever has them.

        What who had it still writes is refused. Raises :class:`StateError` unless it goes on.
        """
        for each in await self._going_on(id):
            queue = queue_of(each.application_name or "", each.name)
            again = partial(self._client.resume_workflow, each.workflow_id, queue_name=queue)
            await self._do(again)

    # --- the engine ----------------------------------------------------------------------------

    async def _going_on(self, id: str) -> list[WorkflowStatus]:
        """The run and those inside of it that have not ended."""
        status = await self._status(id)
        if (state := state_of(status.status)) not in _GOING_ON:
            raise StateError(f"the run has ended already: it is {state}")
        inside = await self._inside(id)
        return [status, *(each for each in inside if state_of(each.status) in _GOING_ON)]

    async def _status(self, id: str, **load: bool) -> WorkflowStatus:
        found = await self._find(workflow_ids=[id], **load)
        if not found:
            raise StateError(f"there is no run {id!r}: it never was, or it is forgotten")
        return found[0]

    async def _inside(self, id: str) -> list[WorkflowStatus]:
        return await self._find(workflow_id_prefix=id + INSIDE)

    async def _find(self, **wanted: Any) -> list[WorkflowStatus]:
        wanted = {"load_input": False, "load_output": False, **wanted}
        return await self._do(
            lambda: self._client.list_workflows(app_version=APPLICATION, **wanted)
        )

    @cached_property
    def _client(self) -> DBOSClient:
        return DBOSClient(
            system_database_engine=self._engine,
            serializer=JSONSerializer(),
            retry_connection_errors=False,
        )

    def _count(self) -> Mapping[str, int]:
        counts = dict.fromkeys(map(str, RunState), 0)
        # The engine would have every run listed to count them; its table is a documented one.
        schema = "" if self._engine.dialect.name == "sqlite" else "dbos."
        with self._engine.connect() as connection:
            for row in connection.execute(
                text(_COUNT.format(schema=schema)), {"ours": APPLICATION}
            ):
                counts[state_of(row.status)] += row.number
        return counts

    async def _do(self, work: Callable[[], T]) -> T:
        try:
            return await anyio.to_thread.run_sync(work)
        except SQLAlchemyError as error:
            # The error's own text may hold the URL with its password, and the values.
            raise StoreError(f"the store failed with {type(error).__name__}") from error


def _step(step: Mapping[str, Any]) -> dict[str, Any]:
    error = step.get("error")
    return {
        "number": step["function_id"],
        "name": step["function_name"],
        "began": _seconds(step.get("started_at_epoch_ms")),
        "ended": _seconds(step.get("completed_at_epoch_ms")),
        "error": None if error is None else str(error),
    }


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000
