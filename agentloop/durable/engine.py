"""The engine of durable runs: DBOS, with a lease for each process and a ledger of claims."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from datetime import UTC, datetime
from enum import IntEnum
from types import TracebackType
from typing import Any, ClassVar, TypeVar, cast

import anyio
import anyio.to_thread
from dbos import DBOS, DBOSConfig, SetWorkflowID, WorkflowStatus
from dbos import error as dbos_errors
from sqlalchemy.exc import SQLAlchemyError

from agentloop.agent import Agent
from agentloop.durable.agent import DurableAgent, Setting
from agentloop.durable.claims import Claims, claims_of
from agentloop.durable.handle import RunInfo, RunState, statuses
from agentloop.durable.host import Abandoned, DurableHost
from agentloop.durable.records import (
    APPLICATION,
    CANCELLED,
    INSIDE,
    JSONSerializer,
    Order,
    finished,
    queue_of,
)
from agentloop.durable.replicas import Replica
from agentloop.errors import (
    AgentLoopError,
    DefinitionError,
    RunCancelled,
    StateError,
    first_of,
)
from agentloop.events import Sink
from agentloop.log import log
from agentloop.place import HERE, Place, User
from agentloop.provider import Provider
from agentloop.run import Run
from agentloop.sql_store import SQLStore
from agentloop.store import LEASE_SECONDS, StoreError
from agentloop.strays import on_asyncio

T = TypeVar("T")
OutputT = TypeVar("OutputT")

_POLL_SECONDS = 0.5
"""How often queues are looked into, at least; oftener where leases are short."""
_WAIT_SECONDS = (0.01, 1.0)
_STOP_SECONDS = 10.0
_THREADS = 32
_LOST = (dbos_errors.DBOSWorkflowConflictIDError, dbos_errors.DBOSWorkflowCancelledError)
_OVER = ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]


class Durable:
    """Makes the runs of agents durable, in the database of a URL.

    Name the agents, then enter it; one in a process at a time. Any number of processes may work
    on the same database, and they should know the same agents: where one of them dies, another
    takes its runs over once the lease has run out. Runs on asyncio only.
    """

    _entered: ClassVar[Durable | None] = None

    def __init__(
        self,
        url: str,
        *,
        name: str = "agentloop",
        lease: float = LEASE_SECONDS,
        grace: float = 30.0,
        keep: float | None = None,
    ) -> None:
        """``url`` as SQLAlchemy takes it: ``sqlite:///runs.db``, ``postgresql+psycopg://...``.

        ``name`` tells programs apart that share a database. A process that is not heard of for
        ``lease`` seconds is taken for dead. On leaving, runs get ``grace`` seconds to finish; the
        others are parked for another process. Runs that ended ``keep`` seconds ago are forgotten;
        None keeps them until :meth:`forget`.
        """
        self._url = url
        self._name = name
        self._grace = grace
        self._keep = keep
        self._store = SQLStore(url, lease=lease)
        self._replica = Replica(self._store)
        self._agents: dict[str, DurableAgent[Any]] = {}
        self._executions: dict[str, _Execution] = {}
        self._idle: set[str] = set()
        """Runs that are this process's, and that it did not work on when it last looked."""
        self._watchers: list[asyncio.Task[None]] = []
        self._phase = _Phase.CLOSED
        self._launched = False

    def agent(
        self,
        agent: Agent[OutputT],
        *,
        provider: Provider | None = None,
        on_event: Sink | None = None,
        user: User | None = None,
        concurrency: int | None = None,
    ) -> DurableAgent[OutputT]:
        """``agent``, with durable runs; also each agent among its tools, under its own name.

        ``provider``, ``on_event`` and ``user`` are those of :meth:`Agent.run`. ``concurrency`` is
        how many of its runs this process works on at once; more wait in a queue. Raises
        :class:`DefinitionError` for a name that another agent has, and once this is entered.
        """
        if concurrency is not None and concurrency < 1:
            raise DefinitionError(f"concurrency={concurrency!r} is not 1 or more")
        setting = Setting(provider=provider, on_event=on_event, user=user, concurrency=concurrency)
        return self._know(agent, setting)

    def _know(self, agent: Agent[OutputT], setting: Setting) -> DurableAgent[OutputT]:
        if self._phase is not _Phase.CLOSED:
            raise DefinitionError(f"name agent {agent.name!r} before you enter the Durable")
        known = self._agents.get(agent.name)
        if known is not None and (known.agent is not agent or known.setting != setting):
            raise DefinitionError(
                f"two durable agents are called {agent.name!r}, or one with different settings: "
                "a run is known by the name of its agent"
            )
        if known is None:
            known = self._agents[agent.name] = DurableAgent(agent, setting, self)
            own = agent.provider or setting.own
            inside = Setting(
                provider=setting.provider, own=own, on_event=setting.on_event, user=setting.user
            )
            for tool in agent.tools.values():
                if tool.agent is not None:
                    self._know_inside(tool.agent, inside)
        return known

    def _know_inside(self, agent: Agent[Any], setting: Setting) -> None:
        known = self._agents.get(agent.name)
        if known is None or known.agent is not agent:
            self._know(agent, setting)

    # --- open and close ------------------------------------------------------------------------

    async def __aenter__(self) -> Durable:
        """Launch the engine. Raises :class:`DefinitionError` where it cannot be."""
        if not on_asyncio():
            raise DefinitionError("durable runs need asyncio: DBOS does not run on trio")
        if Durable._entered is not None:
            raise DefinitionError("another Durable is entered: there is one in a process at a time")
        if not self._agents:
            raise DefinitionError("no agent is named: call durable.agent(...) first")
        Durable._entered = self
        self._phase = _Phase.OPEN
        try:
            held = await self._replica.join()
            await self._launch_engine()
        except BaseException:
            await self._shut_down()
            raise
        self._watch(self._replica.hold(held))
        self._watch(self._look_after())
        return self

    async def _launch_engine(self) -> None:
        config: DBOSConfig = {
            "name": self._name,
            "system_database_url": self._url,
            "executor_id": self._replica.id,
            # Recovery is for runs of the same version; what has changed is told run by run.
            "application_version": APPLICATION,
            "serializer": JSONSerializer(),
            "log_level": "CRITICAL",
            "max_executor_threads": _THREADS,
        }
        DBOS(config=config)
        if DBOS.executor_id != self._replica.id:
            raise DefinitionError("this process runs a DBOS of its own: a Durable needs its own")
        self._launched = True
        for known in self._agents.values():
            known.workflow = DBOS.workflow(name=known.name, max_recovery_attempts=None)(
                self._workflow_of(known)
            )
        DBOS.listen_queues([self._queue_of(known) for known in self._agents.values()])
        DBOS.launch()  # in the loop's own thread: this is the loop that workflows will run on
        for known in self._agents.values():
            await DBOS.register_queue_async(
                self._queue_of(known),
                worker_concurrency=known.setting.concurrency,
                polling_interval_sec=min(_POLL_SECONDS, self._store.lease / 4),
                on_conflict="always_update",
            )

    def _workflow_of(self, known: DurableAgent[Any]) -> Any:
        async def execute(order: dict[str, Any]) -> dict[str, Any]:
            return await self._execute(known, order)

        return execute

    def _queue_of(self, known: DurableAgent[Any]) -> str:
        return queue_of(self._name, known.name)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._phase = _Phase.FINISHING
        if not isinstance(error, asyncio.CancelledError):
            with anyio.move_on_after(self._grace):
                while self._executions:
                    await next(iter(self._executions.values())).over.wait()
        with anyio.CancelScope(shield=True):
            await self._park()
            await self._shut_down()

    async def _park(self) -> None:
        """Stop what still runs; its records stay, and others go on from there."""
        self._phase = _Phase.PARKING
        for execution in list(self._executions.values()):
            execution.task.cancel()
        with anyio.move_on_after(_STOP_SECONDS):
            while self._executions:
                await next(iter(self._executions.values())).over.wait()

    async def _shut_down(self) -> None:
        self._phase = _Phase.CLOSED
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        self._watchers.clear()
        if self._launched:
            self._launched = False
            await anyio.to_thread.run_sync(_destroy)
            # The engine made its own threads the loop's, and they are gone.
            asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor())
        try:
            await self._replica.leave()
        except StoreError as gone:
            log().warning("replica_left_without_saying_so", error=str(gone))
        await self._store.close()
        Durable._entered = None

    def _watch(self, work: Coroutine[Any, Any, None]) -> None:
        self._watchers.append(asyncio.create_task(work))

    # --- runs ----------------------------------------------------------------------------------

    async def launch(self, known: DurableAgent[Any], id: str, order: Order) -> None:
        """Have the engine bring ``order`` to its end as the run ``id``, unless it does already."""
        self._check_open()
        try:
            await outside(self._begin(known, id, order))
        except dbos_errors.DBOSConflictingWorkflowError as error:
            raise StateError(f"run {id!r} is one of another agent") from error

    async def _begin(self, known: DurableAgent[Any], id: str, order: Order) -> None:
        workflow = cast("Any", known.workflow)
        with SetWorkflowID(id):
            # Runs inside of others never wait in a queue: those that they are inside of hold it.
            if known.setting.concurrency is None or INSIDE in id:
                await DBOS.start_workflow_async(workflow, order.to_json())
            else:
                queue = self._queue_of(known)
                await DBOS.enqueue_workflow_async(queue, workflow, order.to_json())

    async def outcome(self, id: str) -> Any:
        """What the run ``id`` gave, once it is over. Raises what it ended with."""
        pause, longest = _WAIT_SECONDS
        while True:
            status = await self._status(id)
            if status.status == "SUCCESS":
                return status.output
            if status.status == "CANCELLED":
                raise RunCancelled(f"run {id!r} was cancelled")
            if status.status in _OVER:
                raise _raised(status)
            execution = self._executions.get(id)
            if execution is None:
                await anyio.sleep(pause)
                pause = min(pause * 2, longest)
            else:
                pause = _WAIT_SECONDS[0]  # its outcome is written right after its end
                with anyio.move_on_after(longest):
                    await execution.over.wait()

    async def info(self, id: str) -> RunInfo:
        """What is known of the run ``id``. Raises :class:`StateError` where it is not known."""
        return RunInfo.of(await self._status(id))

    async def runs(
        self, *, state: RunState | None = None, agent: str | None = None, limit: int = 100
    ) -> list[RunInfo]:
        """The latest runs, the newest first; those inside of others are not listed."""
        names = agent or list(self._agents)
        wanted = {"status": statuses(state), "name": names, "sort_desc": True, "limit": limit}
        found: list[RunInfo] = []
        offset = 0
        while len(found) < limit:
            page = await self._list(**wanted, offset=offset)
            found += [RunInfo.of(each) for each in page if INSIDE not in each.workflow_id]
            if len(page) < limit:
                break
            offset += limit
        return found[:limit]

    async def cancel(self, id: str) -> None:
        """Stop the run ``id`` and those inside of it. Raises :class:`StateError` for none."""
        await self._status(id)
        ids = [id, *await self._inside(id)]
        for each in ids:  # said first, so that nobody takes over what is being cancelled
            await outside(DBOS.update_workflow_attributes_async(each, {CANCELLED: True}))
        await outside(DBOS.cancel_workflows_async(ids))

    async def forget(self, *, older_than: float) -> int:
        """Forget runs that ended more than ``older_than`` seconds ago; how many they were."""
        before = datetime.fromtimestamp(time.time() - older_than, UTC).isoformat()
        found = await self._list(status=_OVER, name=list(self._agents), completed_before=before)
        # Those inside of others go with them: a run that goes on may need what they gave.
        old = [each.workflow_id for each in found if INSIDE not in each.workflow_id]
        for id in old:
            ids = [id, *await self._inside(id)]
            await outside(DBOS.delete_workflows_async(ids))
            for each in ids:
                await self._store.forget(claims_of(each))
        return len(old)

    async def _inside(self, id: str) -> list[str]:
        found = await self._list(workflow_id_prefix=id + INSIDE)
        return [status.workflow_id for status in found]

    async def _status(self, id: str) -> WorkflowStatus:
        self._check_open()
        status = await outside(DBOS.get_workflow_status_async(id))
        if status is None:
            raise StateError(f"there is no run {id!r}: it never was, or it is forgotten")
        return status

    async def _list(self, **wanted: Any) -> list[WorkflowStatus]:
        self._check_open()
        wanted = {"load_input": False, "load_output": False, **wanted}
        return await outside(DBOS.list_workflows_async(**wanted))

    def _check_open(self) -> None:
        if self._phase is _Phase.CLOSED:
            raise DefinitionError("durable runs need their engine: async with durable: ...")

    # --- one execution -------------------------------------------------------------------------

    async def _execute(self, known: DurableAgent[Any], data: dict[str, Any]) -> dict[str, Any]:
        id, task = DBOS.workflow_id, asyncio.current_task()
        assert id is not None
        assert task is not None
        last = _Phase.FINISHING if INSIDE in id else _Phase.OPEN
        if self._phase > last:
            raise asyncio.CancelledError  # for another process
        execution = self._executions[id] = _Execution(id, task)
        try:
            return await self._run(known, data, execution)
        except BaseException as error:
            raise self._ending(error, execution) from error
        finally:
            execution.over.set()
            if self._executions.get(id) is execution:
                del self._executions[id]

    async def _run(
        self, known: DurableAgent[Any], data: dict[str, Any], execution: _Execution
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
        status = await self._status(execution.id)
        if (
            status.status != "PENDING"
            or status.executor_id != self._replica.id
            or self._executions.get(execution.id) is not execution
        ):
            raise dbos_errors.DBOSWorkflowConflictIDError(execution.id)

    async def _delegate(self, id: str, place: Place, run: Run) -> Run | None:
        known = self._agents.get(run.definition.name)
        if known is None or known.agent.definition.digest != run.definition.digest:
            return None
        inner = f"{id}{INSIDE}{place.key}"
        try:
            await self.launch(known, inner, Order(run=run, nesting=place.nesting - 1))
            return finished(await self.outcome(inner), run.definition)
        except asyncio.CancelledError:
            if self._phase < _Phase.PARKING:  # then the tool is stopped, and not the process
                with anyio.CancelScope(shield=True):
                    await self.cancel(inner)
            raise

    # --- other processes -----------------------------------------------------------------------

    async def _look_after(self) -> None:
        """Take over the runs of processes that are gone, and forget old ones, for ever."""
        swept = 0.0
        while True:
            try:
                if self._phase is _Phase.OPEN:
                    await self._take_over()
                if self._keep is not None and time.monotonic() - swept > 60.0:
                    await self.forget(older_than=self._keep)
                    swept = time.monotonic()
            except Exception as error:  # noqa: BLE001  whatever it is: there is another time
                log().warning("takeover_failed", error_type=type(error).__name__)
            await anyio.sleep(self._store.lease / 3)

    async def _take_over(self) -> None:
        names = list(self._agents)
        running = await self._list(status="PENDING", name=names)
        mine = [status for status in running if status.executor_id == self._replica.id]
        idle = [status for status in mine if status.workflow_id not in self._executions]
        # Seen twice, it was not about to begin: it was abandoned, as where the database failed.
        await self._resume([each for each in idle if each.workflow_id in self._idle])
        self._idle = {status.workflow_id for status in idle}
        for other in {status.executor_id for status in running} - {self._replica.id, None}:
            if await self._replica.is_gone(cast("str", other)):
                # Listed again: until just now, somebody else may have taken them over.
                theirs = await self._list(status="PENDING", name=names, executor_id=other)
                await self._resume(theirs)
                await self._replica.bury(cast("str", other))

    async def _resume(self, found: Iterable[WorkflowStatus]) -> None:
        for known in self._agents.values():
            ids = [status.workflow_id for status in found if status.name == known.name]
            if not ids:
                continue
            log().info("runs_taken_over", agent=known.name, runs=len(ids))
            try:
                await outside(DBOS.resume_workflows_async(ids, queue_name=self._queue_of(known)))
            except dbos_errors.DBOSNonExistentWorkflowError:
                continue  # forgotten meanwhile
            # To resume a run brings it back even if it was cancelled in this very moment.
            again = await self._list(workflow_ids=ids)
            cancelled = [s.workflow_id for s in again if (s.attributes or {}).get(CANCELLED)]
            if cancelled:
                await outside(DBOS.cancel_workflows_async(cancelled))

    def __repr__(self) -> str:
        return f"Durable({self._store!r}, agents={list(self._agents)})"


class _Phase(IntEnum):
    """Which runs are worked on."""

    OPEN = 1
    FINISHING = 2
    """Those that were begun, and those inside of them."""
    PARKING = 3
    CLOSED = 4


class _Execution:
    """One time that a run is worked on in this process."""

    def __init__(self, id: str, task: asyncio.Task[Any]) -> None:
        self.id = id
        self.task = task
        self.over = anyio.Event()


async def outside(work: Coroutine[Any, Any, T]) -> T:
    """Await ``work`` as code that is in no workflow: the engine counts what is done inside."""
    return await Context().run(asyncio.create_task, work)


def _destroy() -> None:
    DBOS.destroy(destroy_registry=True)


def _raised(status: WorkflowStatus) -> Exception:
    error = status.error
    return error if isinstance(error, AgentLoopError) else AgentLoopError(str(error))
