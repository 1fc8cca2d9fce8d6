"""Carrier *rounds*: an ask leaves in the call's own result, and the client calls again (SEP-2322).

For clients that speak 2026-07-28, which has no requests from server to client. The function is
entered again from its first line at every round. Runs that ended give their result at once, runs
that were suspended go on where they stopped, and when every branch of the function waits for the
model, all open asks leave together.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

import anyio
import anyio.lowlevel
from mcp_types import (
    CreateMessageRequest,
    CreateMessageRequestParams,
    CreateMessageResult,
    CreateMessageResultWithTools,
    InputRequest,
    InputRequiredResult,
)

from agentloop.definition import Definition
from agentloop.errors import MalformedReplyError, StateError
from agentloop.events import Sink
from agentloop.mcp.request import Request
from agentloop.mcp.served import ServedHost
from agentloop.mcp.state import pack, unpack
from agentloop.meta import Reply
from agentloop.place import HERE, Place
from agentloop.provider import Provider
from agentloop.run import Run

STATE_VERSION = 1

_SETTLE = 5
"""Turns of the event loop that other tasks get to start a run before the function is left.

:func:`agentloop.gather` says what it starts, so that nothing is guessed there; this is for
functions with task groups of their own."""


class RoundsHost(ServedHost):
    """Keeps what the function's runs and ``once`` values are, from one round to the next."""

    suspends = True

    def __init__(self, request: Request, *, fallback: Provider | None, sink: Sink | None) -> None:
        """Raises :class:`StateError` where the request brings a state that is not ours."""
        super().__init__(request, RoundsProvider(self), fallback=fallback, sink=sink)
        state: dict[str, Any] = unpack(request.state) if request.state is not None else {}
        if state and state.get("v") != STATE_VERSION:
            raise StateError(f"the state is not of version {STATE_VERSION}; start the call again")
        self.rounds: int = state.get("round", 0)
        """Rounds that are over."""
        self.asks: dict[str, CreateMessageRequestParams] = {}
        """The asks that are open, by the key under which they leave."""
        self.root = Place("", None, self)
        self._saved: dict[str, Any] = state.get("runs", {})
        self._runs: dict[str, Run] = {}
        self._values: dict[str, Any] = state.get("values", {})
        self._stalled = anyio.Event()

    def load(self, key: str, definition: Definition) -> Run | None:
        saved = self._saved.get(key)
        return None if saved is None else Run.from_json(saved, definition)

    def keep(self, key: str, run: Run) -> None:
        self._runs[key] = run

    def value(self, key: str) -> tuple[Any] | None:
        return (self._values[key],) if key in self._values else None

    def keep_value(self, key: str, value: Any) -> None:
        self._values[key] = value

    def room(self, key: str, run: Run) -> int | None:
        limit = run.definition.limits.rounds
        if limit is None or _ask_key(key, run) in self.request.answers:
            return None
        return limit - self.rounds

    def ask_key(self, place: Place) -> str:
        """The key under which the run at ``place`` asks now; never the same one twice."""
        return _ask_key(place.key, self._runs[place.key])

    def stalled(self) -> None:
        self._stalled.set()

    async def run(self, function: Callable[[], Awaitable[Any]]) -> Any:
        """Enter ``function``: what it gives, or an ``InputRequiredResult`` with all open asks.

        Raises what ``function`` raises.
        """
        outcome: Any = None
        raised: BaseException | None = None
        left = False
        async with anyio.create_task_group() as group:
            scope = anyio.CancelScope()

            async def leave_when_stalled() -> None:
                nonlocal left
                while True:
                    await self._stalled.wait()
                    for _ in range(_SETTLE):
                        await anyio.lowlevel.checkpoint()
                    if self.root.blocked:
                        left = True
                        scope.cancel()
                        return
                    self._stalled = anyio.Event()

            group.start_soon(leave_when_stalled)
            token = HERE.set(self.root)
            try:
                with scope:
                    outcome = await function()
            except Exception as error:  # noqa: BLE001  raised again below, outside of the group
                raised = error
            finally:
                HERE.reset(token)
            group.cancel_scope.cancel()
        if left:
            return self._suspended()
        if raised is not None:
            raise raised
        return outcome

    def _suspended(self) -> InputRequiredResult:
        requests: dict[str, InputRequest] = {
            key: CreateMessageRequest.model_construct(
                method="sampling/createMessage", params=params
            )
            for key, params in self.asks.items()
        }
        runs = {**self._saved, **{key: run.to_json() for key, run in self._runs.items()}}
        state = {
            "v": STATE_VERSION,
            "round": self.rounds + 1,
            "runs": runs,
            "values": self._values,
        }
        return InputRequiredResult(input_requests=requests, request_state=pack(state))


class RoundsProvider:
    """The client of one request as a provider that answers in the next round."""

    name = "client (rounds)"

    def __init__(self, host: RoundsHost) -> None:
        self._host = host

    async def sample(self, request: CreateMessageRequestParams) -> Reply:
        """The answer that the client brought; without one, wait until the function is left."""
        place = HERE.get()
        assert place is not None
        key = self._host.ask_key(place)
        answer = self._host.request.answers.get(key)
        if answer is None:
            self._host.asks[key] = request
            place.park()
            await anyio.sleep_forever()
        if not isinstance(answer, CreateMessageResult | CreateMessageResultWithTools):
            kind = type(cast("object", answer)).__name__
            raise MalformedReplyError(f"the client answered an ask with a {kind}")
        return answer


def _ask_key(place: str, run: Run) -> str:
    return f"{place}:{run.steps}"
