"""Rounds whose state stays in a store: each is entered once, and only a handle crosses the wire."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any

import anyio
from mcp.server.mcpserver.exceptions import ToolError as HostToolError
from mcp_types import (
    CallToolResult,
    InputRequiredResult,
    InputResponse,
    InputResponses,
    ToolResultContent,
)
from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python

from agentloop.errors import CapabilityError, StateError, first_of
from agentloop.events import Sink
from agentloop.ledger import insist, perform_once
from agentloop.log import log
from agentloop.mcp.alongside import alongside
from agentloop.mcp.handover import HANDOVER, Continued
from agentloop.mcp.increments import Increments
from agentloop.mcp.request import Request
from agentloop.mcp.rounds import RoundsHost, Suspended
from agentloop.mcp.served import Serving
from agentloop.mcp.state import pack, unpack
from agentloop.place import Place
from agentloop.provider import Provider
from agentloop.store import (
    Busy,
    Entered,
    Round,
    Settled,
    StaleOwnerError,
    Store,
    StoreError,
)
from agentloop.tools import Effect, Tool
from agentloop.transcript import WIRE

_ANSWERS: TypeAdapter[InputResponses] = TypeAdapter(dict[str, InputResponse])
_POLL_SECONDS = (0.02, 0.5)


async def over_stored_rounds(
    request: Request,
    function: Callable[[], Awaitable[Any]],
    store: Store,
    serving: Serving,
    sink: Sink | None,
) -> Any:
    """Enter ``function`` for one round: what it gives, or an ``InputRequiredResult``.

    A round that was entered before gives what it gave then, and one that is taken over from here
    what it gives there. Raises :class:`UnknownRoundError` for a call that has expired, and
    :class:`StoreError` where the store fails; then the same round may be sent again.
    """
    named = _named(request)
    keep = _keep(request, store, serving)
    while True:
        entered = await _enter(named, store, keep)
        if isinstance(entered, Settled):
            return _thaw(entered.outcome)
        try:
            # The answers that count are those of the first time.
            came = request.answers if entered.round.answers == named[2] else None
            host = await _host(request, store, entered.round, came, serving, sink)
            return await _own(host, function, store, entered.round)
        except StaleOwnerError:
            log().warning("round_taken_over", round=entered.round.number)


def _keep(request: Request, store: Store, serving: Serving) -> float:
    """Seconds for which the call must be kept: as long as a task, where it is or may become one."""
    may_become = HANDOVER.get() if serving.task != "never" else None
    task = request.running or may_become
    return store.keep if task is None else max(store.keep, task.keep)


async def _host(
    request: Request,
    store: Store,
    held: Round,
    answers: InputResponses | None,
    serving: Serving,
    sink: Sink | None,
) -> _StoredHost:
    """The host of a round; without ``answers``, with those that the store has."""
    try:
        if answers is None:
            answers = _ANSWERS.validate_python(json.loads(held.answers or "{}"))
        return _StoredHost(request, store, held, answers, serving, sink)
    except StateError:
        await _release(store, held)
        raise
    except ValueError as error:
        await _release(store, held)
        raise StoreError("the store holds answers that cannot be read") from error


async def _own(
    host: _StoredHost, function: Callable[[], Awaitable[Any]], store: Store, held: Round
) -> Any:
    """Run a round while its lease is held. Raises :class:`StaleOwnerError` once it is not."""
    scope = anyio.CancelScope()

    async def hold() -> None:
        await _hold(store, held)
        scope.cancel()

    async def run() -> Any:
        with scope:
            return await _run(host, function, store, held)

    outcome = await alongside(hold, run)
    if scope.cancelled_caught:
        raise StaleOwnerError("the round was taken over while it ran")
    return outcome


async def _run(
    host: _StoredHost, function: Callable[[], Awaitable[Any]], store: Store, held: Round
) -> Any:
    """Run the round and settle it; release it where it was interrupted."""
    try:
        outcome = await host.run(function)
        next_state = None
        if isinstance(outcome, Suspended):
            next_state = outcome.state
            outcome = _left(outcome, held, in_task=host.request.running is not None)
        frozen = _freeze(outcome)
    except anyio.get_cancelled_exc_class():
        await _release(store, held)
        raise
    except Exception as error:
        if (interrupted := first_of(error, StateError, CapabilityError, StoreError)) is not None:
            await _release(store, held)
            raise interrupted from error
        # Settled, too: else a client could try its luck again and again from this state.
        text = f"The call failed with {type(error).__name__}."
        failed = json.dumps({"error": text})
        await insist(store, lambda: store.settle(held, failed, next_state=None))
        raise
    await insist(store, lambda: store.settle(held, frozen, next_state=next_state))
    return outcome


def _left(suspended: Suspended, held: Round, *, in_task: bool) -> InputRequiredResult | Continued:
    """What is told of a function that was left: what is asked, and how the call goes on."""
    if suspended.detached:
        return Continued(held.call, held.number + 1, suspended.written())
    if in_task:  # which knows by itself where it is
        return suspended.result(None)
    return suspended.result(pack({"v": 1, "call": held.call, "round": held.number + 1}))


async def detached(suspended: Suspended, store: Store, *, keep: float) -> Continued:
    """Keep a call whose state has crossed the wire so far. The same state is the same call."""
    name = "d" + hashlib.sha256(suspended.state.encode()).hexdigest()
    entered = await store.begin(name, lease=store.lease, keep=max(keep, store.keep))
    if isinstance(entered, Entered):
        await store.settle(entered.round, "{}", next_state=suspended.state)
    return Continued(name, 1, suspended.written())


async def _release(store: Store, held: Round) -> None:
    """Let the round be entered again at once, and not only when its lease has run out."""
    with anyio.CancelScope(shield=True), suppress(StoreError):
        await store.release(held)


async def _hold(store: Store, held: Round) -> None:
    """Renew the lease of a round; return when it is lost."""
    while True:
        await anyio.sleep(store.lease / 3)
        try:
            await store.renew(held, lease=store.lease)
        except StaleOwnerError:
            return
        except StoreError as error:
            log().warning("lease_not_renewed", error=str(error))


async def _enter(named: tuple[str, int, str], store: Store, keep: float) -> Entered | Settled:
    call, number, answers = named
    wait, longest = _POLL_SECONDS
    while True:
        if number == 0:
            found = await store.begin(call, lease=store.lease, keep=keep)
        else:
            found = await store.enter(call, number, answers, lease=store.lease)
        if not isinstance(found, Busy):
            return found
        await anyio.sleep(wait)
        wait = min(wait * 2, longest)


def _named(request: Request) -> tuple[str, int, str]:
    """The call and the round that a request is about, and the answers that it brings."""
    # Not pydantic's JSON, neither here nor where it is read: it takes no broken text of a model's.
    answers = json.dumps(_ANSWERS.dump_python(request.answers, **WIRE))
    if (running := request.running) is not None:
        return running.task.call, running.task.round, answers
    if request.state is None:
        return request.new_call(), 0, ""
    handle = unpack(request.state)
    call, number = handle.get("call"), handle.get("round")
    if not isinstance(call, str) or not isinstance(number, int):
        raise StateError("the state is no handle of a stored call; start the call again")
    return call, number, answers


class _StoredHost(RoundsHost):
    """Rounds with a ledger of the calls that must not run twice."""

    most_state = 0  # it comes from the server's own store

    def __init__(
        self,
        request: Request,
        store: Store,
        held: Round,
        answers: InputResponses,
        serving: Serving,
        sink: Sink | None,
    ) -> None:
        super().__init__(
            request,
            state=held.state or None,
            answers=answers,
            serving=serving,
            sink=sink,
            entries=held.entries,
        )
        self._store = store
        self.named = held.call
        self._round = held
        self._increments = Increments()
        self._saving = anyio.Lock()
        self._heard = False
        """Whether a model that is not the client's has answered since the state was saved: asked
        again it would say something else, and what it calls would have other keys."""
        self._begun: set[str] = set()
        """The places of calls that must not run twice, and have begun."""

    def check(self, tools: Iterable[Tool]) -> None:
        """Every promise can be kept here."""

    async def before_ask(self, provider: Provider) -> None:
        if provider is not self.client:  # which answers in the next round, so nothing is lost
            await self._save()
            self._heard = True

    async def before_calls(self) -> None:
        if self._heard:
            await self._save()

    async def guard(
        self, effect: Effect, perform: Callable[[], Awaitable[ToolResultContent]]
    ) -> ToolResultContent:
        # Whoever enters the round after an interruption must come to this very call again.
        await self._save()

        async def begin() -> ToolResultContent:
            self._begun.add(effect.key.partition(":")[2])
            return await perform()

        return await perform_once(effect, begin, self._store, self._round)

    def may_not_wait(self, place: Place) -> str | None:
        above: Place | None = place
        while above is not None:
            if above.key in self._begun:
                return (
                    "A tool that must not run twice cannot wait for the client while it runs: "
                    "it would have to be run again. Ask before it begins, with approve=."
                )
            above = above.parent
        return None

    async def _save(self) -> None:
        async with self._saving:  # who finds it saved must not go on before it is
            self._heard = False
            entry = self._increments.take(self._runs, self._values, self.writer.message)
            if entry is not None:
                await self._store.append(self._round, entry)


def _freeze(outcome: Any) -> str:
    """What the function gave, as text, to be given again."""
    if isinstance(outcome, Continued):
        return json.dumps({"continued": dataclasses.asdict(outcome)})
    if isinstance(outcome, InputRequiredResult):
        return json.dumps(
            {"asks": outcome.model_dump(mode="json", by_alias=True, exclude_none=True)}
        )
    if isinstance(outcome, CallToolResult):
        return json.dumps(
            {"result": outcome.model_dump(mode="json", by_alias=True, exclude_none=True)}
        )
    return json.dumps({"value": to_jsonable_python(outcome, inf_nan_mode="constants")})


def _thaw(frozen: str) -> Any:
    try:
        data = json.loads(frozen)
        if "continued" in data:
            return Continued(**data["continued"])
        if "asks" in data:
            return InputRequiredResult.model_validate(data["asks"])
        if "result" in data:
            return CallToolResult.model_validate(data["result"])
        if "error" not in data:
            return data["value"]
    except (ValueError, LookupError, TypeError) as error:
        raise StoreError("the store holds an outcome that cannot be read") from error
    raise HostToolError(data["error"])
