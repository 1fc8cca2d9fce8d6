"""Rounds whose state stays in a store: each is entered once, and only a handle crosses the wire."""

from __future__ import annotations

import hashlib
import json
import secrets
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
from agentloop.mcp.request import Request
from agentloop.mcp.rounds import RoundsHost, Suspended
from agentloop.mcp.served import Serving
from agentloop.mcp.state import pack, unpack
from agentloop.place import Place
from agentloop.provider import Provider
from agentloop.run import Run
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
    while True:
        entered = await _enter(named, store)
        if isinstance(entered, Settled):
            return _thaw(entered.outcome)
        try:
            host = await _host(request, store, entered.round, serving, sink)
            return await _own(host, function, store, entered.round)
        except StaleOwnerError:
            log().warning("round_taken_over", round=entered.round.number)


async def _host(
    request: Request, store: Store, held: Round, serving: Serving, sink: Sink | None
) -> _StoredHost:
    try:
        return _StoredHost(request, store, held, serving, sink)
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
        if isinstance(outcome, Suspended):
            next_state = outcome.state
            outcome = outcome.result(pack({"v": 1, "call": held.call, "round": held.number + 1}))
        else:
            next_state = None
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


async def _enter(named: tuple[str, int, str], store: Store) -> Entered | Settled:
    call, number, answers = named
    wait, longest = _POLL_SECONDS
    while True:
        if number == 0:
            found = await store.begin(call, lease=store.lease, keep=store.keep)
        else:
            found = await store.enter(call, number, answers, lease=store.lease)
        if not isinstance(found, Busy):
            return found
        await anyio.sleep(wait)
        wait = min(wait * 2, longest)


def _named(request: Request) -> tuple[str, int, str]:
    """The call and the round that a request is about, and the answers that it brings."""
    if request.state is None:
        return _new_name(request), 0, ""
    handle = unpack(request.state)
    call, number = handle.get("call"), handle.get("round")
    if not isinstance(call, str) or not isinstance(number, int):
        raise StateError("the state is no handle of a stored call; start the call again")
    answers = _ANSWERS.dump_json(request.answers, by_alias=True, exclude_none=True).decode()
    return call, number, answers


def _new_name(request: Request) -> str:
    if request.named is None:
        return secrets.token_urlsafe(24)
    return "k" + hashlib.sha256("\n".join(request.named).encode("utf-8", "replace")).hexdigest()


class _StoredHost(RoundsHost):
    """Rounds with a ledger of the calls that must not run twice."""

    def __init__(
        self,
        request: Request,
        store: Store,
        held: Round,
        serving: Serving,
        sink: Sink | None,
    ) -> None:
        answers = _ANSWERS.validate_json(held.answers) if held.answers else {}
        super().__init__(
            request, state=held.state or None, answers=answers, serving=serving, sink=sink
        )
        self._store, self._round = store, held
        self._unsaved = False
        self._begun: set[str] = set()
        """The places of calls that must not run twice, and have begun."""

    def check(self, tools: Iterable[Tool]) -> None:
        """Every promise can be kept here."""

    def keep(self, key: str, run: Run) -> None:
        super().keep(key, run)
        self._unsaved = True

    def keep_value(self, key: str, value: Any) -> None:
        super().keep_value(key, value)
        self._unsaved = True

    async def before_ask(self, provider: Provider) -> None:
        if provider is not self.client:  # which answers in the next round, so nothing is lost
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
        if self._unsaved:
            self._unsaved = False
            await self._store.save(self._round, self.state(self.rounds))


def _freeze(outcome: Any) -> str:
    """What the function gave, as text, to be given again."""
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
        if "asks" in data:
            return InputRequiredResult.model_validate(data["asks"])
        if "result" in data:
            return CallToolResult.model_validate(data["result"])
        if "error" not in data:
            return data["value"]
    except (ValueError, LookupError, TypeError) as error:
        raise StoreError("the store holds an outcome that cannot be read") from error
    raise HostToolError(data["error"])
