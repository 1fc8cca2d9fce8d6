"""The engine of durable runs: DBOS, with a lease for each process and a ledger of claims."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, ClassVar, TypeVar

import anyio
import anyio.to_thread
from dbos import DBOS, DBOSConfig

from agentloop.agent import Agent
from agentloop.durable.agent import DurableAgent
from agentloop.durable.executions import Executions, Phase
from agentloop.durable.info import RunInfo, RunState
from agentloop.durable.known import Known, Setting
from agentloop.durable.records import APPLICATION, JSONSerializer, queue_of
from agentloop.durable.replicas import Replica
from agentloop.durable.runs import Runs
from agentloop.durable.takeover import Takeover
from agentloop.errors import DefinitionError, StoreError
from agentloop.events import Sink
from agentloop.log import log
from agentloop.place import User
from agentloop.provider import Provider
from agentloop.sql_store import SQLStore
from agentloop.store import LEASE_SECONDS
from agentloop.strays import on_asyncio

OutputT = TypeVar("OutputT")

_POLL_SECONDS = 0.5
"""How often queues are looked into, at least; oftener where leases are short."""
_SWEEP_SECONDS = 60.0
_THREADS = 32


def takes_sqlite(
    python: tuple[int, int] = (sys.version_info.major, sys.version_info.minor),
    sqlite: tuple[int, ...] = sqlite3.sqlite_version_info,
) -> bool:
    """Whether the engine can keep its tables in SQLite here: on Python 3.12 and later DBOS counts
    time with ``unixepoch('subsec')``, which came with SQLite 3.42."""
    return python < (3, 12) or sqlite >= (3, 42)


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
        self._agents: dict[str, Known] = {}
        self._runs = Runs(self._agents, self._store)
        self._executions = Executions(
            self._agents, self._runs, self._store, replica=self._replica.id
        )
        self._watchers: list[asyncio.Task[None]] = []
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
        return DurableAgent(agent, self._know(agent, setting), self._executions)

    def _know(self, agent: Agent[Any], setting: Setting) -> Known:
        if self._runs.open:
            raise DefinitionError(f"name agent {agent.name!r} before you enter the Durable")
        known = self._agents.get(agent.name)
        if known is not None and (known.agent is not agent or known.setting != setting):
            raise DefinitionError(
                f"two durable agents are called {agent.name!r}, or one with different settings: "
                "a run is known by the name of its agent"
            )
        if known is None:
            queue = queue_of(self._name, agent.name)
            known = self._agents[agent.name] = Known(agent, setting, queue)
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
        if self._url.startswith("sqlite") and not takes_sqlite():
            raise DefinitionError(
                f"durable runs need SQLite 3.42 on Python 3.12 and later, and this Python has "
                f"SQLite {sqlite3.sqlite_version}: take PostgreSQL, or another build of Python"
            )
        if Durable._entered is not None:
            raise DefinitionError("another Durable is entered: there is one in a process at a time")
        if not self._agents:
            raise DefinitionError("no agent is named: call durable.agent(...) first")
        Durable._entered = self
        self._runs.open, self._executions.phase = True, Phase.OPEN
        try:
            held = await self._replica.join()
            await self._launch_engine()
        except BaseException:
            await self._shut_down()
            raise
        self._watch(self._replica.hold(held))
        takeover = Takeover(self._agents, self._executions, self._replica)
        self._watch(takeover.watch(every=self._store.lease / 3))
        if self._keep is not None:
            self._watch(self._sweep(self._keep))
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
        DBOS.listen_queues([known.queue for known in self._agents.values()])
        DBOS.launch()  # in the loop's own thread: this is the loop that workflows will run on
        for known in self._agents.values():
            await DBOS.register_queue_async(
                known.queue,
                worker_concurrency=known.setting.concurrency,
                polling_interval_sec=min(_POLL_SECONDS, self._store.lease / 4),
                on_conflict="always_update",
            )

    def _workflow_of(self, known: Known) -> Any:
        async def execute(order: dict[str, Any]) -> dict[str, Any]:
            return await self._executions.execute(known, order)

        return execute

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._executions.phase = Phase.FINISHING
        if not isinstance(error, asyncio.CancelledError):
            with anyio.move_on_after(self._grace):
                await self._executions.over()
        with anyio.CancelScope(shield=True):
            await self._executions.park()
            await self._shut_down()

    async def _shut_down(self) -> None:
        self._runs.open = False
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

    async def runs(
        self, *, state: RunState | None = None, agent: str | None = None, limit: int = 100
    ) -> list[RunInfo]:
        """The latest runs, the newest first; those inside of others are not listed."""
        return await self._runs.latest(state=state, agent=agent, limit=limit)

    async def forget(self, *, older_than: float) -> int:
        """Forget runs that ended more than ``older_than`` seconds ago; how many they were."""
        return await self._runs.forget(older_than=older_than)

    async def _sweep(self, keep: float) -> None:
        """Forget what is older than ``keep`` seconds, every minute for ever."""
        while True:
            try:
                await self._runs.forget(older_than=keep)
            except Exception as error:  # noqa: BLE001  whatever it is: there is another time
                log().warning("runs_not_forgotten", error_type=type(error).__name__)
            await anyio.sleep(_SWEEP_SECONDS)

    def __repr__(self) -> str:
        return f"Durable({self._store!r}, agents={list(self._agents)})"


def _destroy() -> None:
    DBOS.destroy(destroy_registry=True)
