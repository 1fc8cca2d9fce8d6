"""What surrounds a durable run: its asks and its tool calls are steps, recorded when they end."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Protocol

import anyio
from dbos import DBOS, StepReservation
from dbos import error as dbos_errors
from mcp_types import CreateMessageRequestParams, ToolResultContent

from agentloop.answers import error_to_json, message_to_json, read_answer
from agentloop.definition import Definition
from agentloop.durable.claims import Claims
from agentloop.durable.records import Order
from agentloop.errors import DeadlineError, ProviderError, StateError, where
from agentloop.events import Sink
from agentloop.log import log
from agentloop.meta import Reply
from agentloop.place import Host, Place, User
from agentloop.provider import Provider
from agentloop.run import Run
from agentloop.tools import Effect

_INSIDE: ContextVar[bool] = ContextVar("agentloop_durable_step", default=False)
"""Whether this code runs inside a step: then it is recorded with it, and not by itself."""


class Abandoned(BaseException):
    """The execution cannot go on, and nothing may be recorded of its end. ``why`` it cannot."""

    def __init__(self, why: Exception) -> None:
        super().__init__(str(why))
        self.why = why


class Delegate(Protocol):
    """Brings a run inside of another one to its end as a durable run of its own, where it can."""

    async def __call__(self, place: Place, run: Run) -> Run | None: ...


class DurableHost(Host):
    """Surrounds one execution of a durable run."""

    wraps_calls = True

    def __init__(
        self,
        order: Order,
        provider: Provider | None,
        sink: Sink | None,
        user: User | None,
        *,
        claims: Claims,
        delegate: Delegate,
    ) -> None:
        super().__init__(provider, sink, user)
        self.until = order.until
        self._run = order.run
        self._claims = claims
        self._delegate = delegate
        self._clock = _Clock()

    def begin(self, place: Place) -> tuple[str, float]:
        # The same in every execution: calls are claimed under the run's id.
        if place.key == _ROOT:
            return self._run.id, self._run.began
        return hashlib.sha256(f"{self._run.id}:{place.key}".encode()).hexdigest()[:16], time.time()

    def clock(self) -> float:
        return self._clock.reading

    def provider(self, definition: Definition, own: Provider | None) -> Provider:
        return _Recorded(super().provider(definition, own), self)

    async def delegate(self, place: Place, run: Run) -> Run | None:
        return None if place.key == _ROOT else await self._delegate(place, run)

    async def call(
        self, effect: Effect, perform: Callable[[], Awaitable[ToolResultContent]]
    ) -> ToolResultContent:
        if _INSIDE.get():
            return await perform()

        async def work() -> dict[str, Any]:
            result = await perform()
            return {"result": result.model_dump(mode="json", by_alias=True, exclude_none=True)}

        # Steps are numbered as they are reserved: in the order of the calls, however they end.
        record = await self.step(DBOS.reserve_step(), f"{effect.tool.name} {effect.key}", work)
        return ToolResultContent.model_validate(record["result"])

    async def guard(
        self, effect: Effect, perform: Callable[[], Awaitable[ToolResultContent]]
    ) -> ToolResultContent:
        return await self._claims.perform(effect, perform)

    async def step(
        self,
        reserved: StepReservation,
        name: str,
        work: Callable[[], Awaitable[dict[str, Any]]],
    ) -> dict[str, Any]:
        """The record that ``work`` gives: now, or before an interruption."""

        async def body() -> dict[str, Any]:
            _INSIDE.set(True)  # in a task of the step's own
            self._clock.start()
            try:
                record = await work()
            except Exception as error:
                raise Abandoned(error) from error
            return {**record, "at": self._clock.now()}

        try:
            record = await reserved.run_async({"name": name, "preemptible": True}, body)
        except Exception as error:
            raise Abandoned(_why(error)) from error
        self._clock.reach(record["at"])
        return record


_ROOT = "0"
_MISMATCHES = (dbos_errors.DBOSUnexpectedStepError, dbos_errors.DBOSStepNondeterminismError)
_TOO_LATE = "the time for this run was over before the model answered"


def _why(error: Exception) -> Exception:
    if isinstance(error, _MISMATCHES):
        return StateError(
            f"the run does not meet the steps that it took before ({type(error).__name__}): the "
            "code of the agent has changed since"
        )
    return error


class _Recorded:
    """A provider whose answers are steps of the run that asks."""

    def __init__(self, provider: Provider, host: DurableHost) -> None:
        self._provider = provider
        self._host = host

    @property
    def name(self) -> str:
        return self._provider.name

    async def sample(self, request: CreateMessageRequestParams) -> Reply:
        if _INSIDE.get():
            return await self._provider.sample(request)
        record = await self._host.step(DBOS.reserve_step(), "ask", lambda: self._answer(request))
        answer = read_answer(record)
        if isinstance(answer, ProviderError):
            raise answer
        return answer

    async def _answer(self, request: CreateMessageRequestParams) -> dict[str, Any]:
        until = self._host.until
        left = math.inf if until is None else until - time.time()
        with anyio.move_on_after(left):
            try:
                reply = await self._provider.sample(request)
                return {"reply": message_to_json(reply)}
            except ProviderError as error:
                return {"error": error_to_json(error)}
            except Exception as error:  # noqa: BLE001  a provider that breaks its contract
                kind = type(error).__name__
                log().warning(
                    "provider_broke_its_contract",
                    provider=self.name,
                    error_type=kind,
                    at=where(error),
                )
                broke = ProviderError(f"{self.name} raised {kind}")
                return {"error": error_to_json(broke)}
        return {"error": error_to_json(DeadlineError(_TOO_LATE))}


class _Clock:
    """The time that a run took, over all of its executions, as of its last step.

    It is read between steps, and there it says what the records say: so each execution sees the
    same times, and none counts the time in which there was no process.
    """

    def __init__(self) -> None:
        self.reading = 0.0
        self._since: float | None = None

    def start(self) -> None:
        """A step is worked on, so the records end here."""
        if self._since is None:
            self._since = time.monotonic() - self.reading

    def now(self) -> float:
        assert self._since is not None
        return round(time.monotonic() - self._since, 6)

    def reach(self, at: float) -> None:
        """A step ended, now or before an interruption."""
        self.reading = max(self.reading, at)
