"""The durable runs that this process works on."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, cast

import anyio
from dbos import DBOS, WorkflowStatus
from dbos import error as dbos_errors
from sqlalchemy.exc import SQLAlchemyError

from agentloop.durable.claims import Claims
from agentloop.durable.host import Abandoned, DurableHost
from agentloop.durable.known import Known
from agentloop.durable.records import INSIDE, Order, finished
from agentloop.durable.runs import OVER, Runs
from agentloop.errors import AgentLoopError, RunCancelled, StoreError, first_of
from agentloop.log import log
from agentloop.place import HERE, Place
from agentloop.run import Run
from agentloop.store import Store

_STOP_SECONDS = 10.0
_WAIT_SECONDS = (0.01, 1.0)


class Phase(IntEnum):
    """Which runs are worked on."""

    OPEN = 1
    FINISHING = 2
    """Those that were begun, and those inside of them."""
    PARKING = 3
    """None any more: what still runs is stopped, and others go on with it."""


class Executions:
    """The runs that this process, which the engine calls ``replica``, works on."""

    def __init__(
        self, agents: Mapping[str, Known], runs: Runs, store: Store, *, replica: str
    ) -> None:
        """``store`` keeps the claims of the runs."""
        self.runs = runs
        self.phase = Phase.OPEN
        self._agents, self._store, self._replica = agents, store, replica
        self._here: dict[str, _Execution] = {}

    def __contains__(self, id: str) -> bool:
        return id in self._here

    async def over(self) -> None:
        """Wait until no run is worked on."""
        while self._here:
            await next(iter(self._here.values())).over.wait()

    async def park(self) -> None:
        """Stop what still runs; its records stay, and others go on from there."""
        self.phase = Phase.PARKING
        for execution in list(self._here.values()):
            execution.task.cancel()
        with anyio.move_on_after(_STOP_SECONDS):
            await self.over()

    async def outcome(self, id: str) -> Any:
        """What the run ``id`` gave, once it is over. Raises what it ended with."""
        pause, longest = _WAIT_SECONDS
        while True:
            status = await self.runs.status(id)
            if status.status == "SUCCESS":
                return status.output
            if status.status == "CANCELLED":
                raise RunCancelled(f"run {id!r} was cancelled")
            if status.status in OVER:
                raise _raised(status)
            execution = self._here.get(id)
            if execution is None:
                await anyio.sleep(pause)
                pause = min(pause * 2, longest)
            else:
                pause = _WAIT_SECONDS[0]  # its outcome is written right after its end
                with anyio.move_on_after(longest):
                    await execution.over.wait()

    async def execute(self, known: Known, data: dict[str, Any]) -> dict[str, Any]:
        """What the run of the surrounding workflow gives, of which ``data`` is the order."""
        id, task = DBOS.workflow_id, asyncio.current_task()
        assert id is not None
        assert task is not None
        last = Phase.FINISHING if INSIDE in id else Phase.OPEN
        if self.phase > last:
            raise asyncio.CancelledError  # for another process
        execution = self._here[id] = _Execution(id, task)
        try:
            return await self._run(known, data, execution)
        except BaseException as error:
            raise self._ending(error, execution) from error
        finally:
            execution.over.set()
            if self._here.get(id) is execution:
                del self._here[id]

    async def _run(
        self, known: Known, data: dict[str, Any], execution: _Execution
    ) -> dict[str, Any]:
        order = Order.from_json(data, known.agent.definition)
        setting, run = known.setting, order.run

        async def check_owner() -> None:
            await self._check_owner(execution)

        async def delegate(place: Place, run: Run) -> Run | None:
            return await self._delegate(execution.id, place, run)

        claims = Claims(self._store, execution.id, check_owner)
        if any(tool.guarded for tool in known.agent.tools.values()):
            await claims.hold()
        host = DurableHost(
            order,
            setting.provider,
            setting.on_event,
            setting.user,
            claims=claims,
            delegate=delegate,
        )
        root = Place("", None, host, nesting=order.nesting)
        root.own = setting.own
        HERE.set(root)
        result = await known.agent.run(
            cast("Any", run.messages.last.content_as_list),
            history=run.messages[: run.history],
            limits=run.definition.limits,
        )
        return result.run.to_json()

    def _ending(self, error: BaseException, execution: _Execution) -> BaseException:
        """What an execution that ended with ``error`` tells the engine."""
        lost = first_of(
            error,
            dbos_errors.DBOSWorkflowConflictIDError,
            dbos_errors.DBOSWorkflowCancelledError,
        )
        if lost is not None:
            return lost
        abandoned = first_of(error, Abandoned)
        why = error if abandoned is None else abandoned.why
        if not isinstance(why, StoreError | SQLAlchemyError):
            return why
        log().warning("run_abandoned", run=execution.id, error_type=type(why).__name__)
        return asyncio.CancelledError()  # so that nothing is recorded: it will be taken up again

    async def _check_owner(self, execution: _Execution) -> None:
        """Raises where another execution has the run."""
        status = await self.runs.status(execution.id)
        if (
            status.status != "PENDING"
            or status.executor_id != self._replica
            or self._here.get(execution.id) is not execution
        ):
            raise dbos_errors.DBOSWorkflowConflictIDError(execution.id)

    async def _delegate(self, id: str, place: Place, run: Run) -> Run | None:
        known = self._agents.get(run.definition.name)
        if known is None or known.agent.definition.digest != run.definition.digest:
            return None
        inner = f"{id}{INSIDE}{place.key}"
        try:
            await self.runs.launch(known, inner, Order(run=run, nesting=place.nesting - 1))
            return finished(await self.outcome(inner), run.definition)
        except asyncio.CancelledError:
            if self.phase < Phase.PARKING:  # then the tool is stopped, and not the process
                with anyio.CancelScope(shield=True):
                    await self.runs.cancel(inner)
            raise


class _Execution:
    """One time that a run is worked on in this process."""

    def __init__(self, id: str, task: asyncio.Task[Any]) -> None:
        self.id = id
        self.task = task
        self.over = anyio.Event()


def _raised(status: WorkflowStatus) -> Exception:
    error = status.error
    return error if isinstance(error, AgentLoopError) else AgentLoopError(str(error))
