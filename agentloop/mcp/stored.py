"""Rounds whose state stays in a store: each is entered once, and only a handle crosses the wire."""

from __future__ import annotations

import hashlib
import inspect
import json
import secrets
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import anyio
import structlog
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

from agentloop.errors import CapabilityError, NotDone, StateError
from agentloop.events import Sink
from agentloop.mcp.alongside import alongside
from agentloop.mcp.request import Request
from agentloop.mcp.rounds import RoundsHost, Suspended
from agentloop.mcp.served import Serving
from agentloop.mcp.state import pack, unpack
from agentloop.results import error_result, to_result
from agentloop.store import (
    KEEP_SECONDS,
    LEASE_SECONDS,
    Busy,
    Entered,
    Round,
    Settled,
    StaleOwnerError,
    Store,
    StoreError,
)
from agentloop.tools import Effect, Tool

UNKNOWN = (
    "Unknown outcome: this call was begun before an interruption, and nobody knows whether it had "
    "its effect. It is not run again. Find out before you rely on it."
)

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

    A round that was entered before gives what it gave then. Raises :class:`UnknownRoundError` for
    a call that has expired.
    """
    entered = await _enter(request, store)
    if isinstance(entered, Settled):
        return _thaw(entered.outcome)
    held = entered.round
    host = _StoredHost(request, store, held, serving, sink)

    async def run() -> Any:
        return await _run(host, function, store, held)

    return await alongside(lambda: _hold(store, held), run)


async def _run(
    host: RoundsHost, function: Callable[[], Awaitable[Any]], store: Store, held: Round
) -> Any:
    """Run the round and settle it; release it where it was interrupted."""
    try:
        outcome = await host.run(function)
    except (anyio.get_cancelled_exc_class(), StateError, CapabilityError):
        with anyio.CancelScope(shield=True):
            await store.release(held)
        raise
    except Exception as error:
        # Settled, too: else a client could try its luck again and again from this state.
        text = f"The call failed with {type(error).__name__}."
        await store.settle(held, json.dumps({"error": text}), next_state=None)
        raise
    if isinstance(outcome, Suspended):
        result = outcome.result(pack({"v": 1, "call": held.call, "round": held.number + 1}))
        await store.settle(held, _freeze(result), next_state=outcome.state)
        return result
    await store.settle(held, _freeze(outcome), next_state=None)
    return outcome


async def _hold(store: Store, held: Round) -> None:
    """Renew the lease of a round for as long as it is entered."""
    while True:
        await anyio.sleep(LEASE_SECONDS / 3)
        try:
            await store.renew(held, lease=LEASE_SECONDS)
        except StaleOwnerError:
            return  # settling will be refused, and say so
        except StoreError as error:
            structlog.get_logger("agentloop").warning("lease_not_renewed", exc_info=error)


async def _enter(request: Request, store: Store) -> Entered | Settled:
    call, number, answers = _named(request)
    wait, longest = _POLL_SECONDS
    while True:
        if number == 0:
            found = await store.begin(call, lease=LEASE_SECONDS, keep=KEEP_SECONDS)
        else:
            found = await store.enter(call, number, answers, lease=LEASE_SECONDS)
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
        super().__init__(request, state=held.state, answers=answers, serving=serving, sink=sink)
        self._store, self._round = store, held

    def check(self, tools: Iterable[Tool]) -> None:
        """Every promise can be kept here."""

    async def guard(
        self, effect: Effect, perform: Callable[[], Awaitable[ToolResultContent]]
    ) -> ToolResultContent:
        claim = await self._store.claim(self._round, effect.key)
        if claim.result is not None:
            return ToolResultContent.model_validate_json(claim.result)
        result = None if claim.new else await _reconciled(effect)
        if result is None:
            result = await perform()
        written = result.model_dump_json(by_alias=True, exclude_none=True)
        await self._store.record(self._round, effect.key, written)
        return result


async def _reconciled(effect: Effect) -> ToolResultContent | None:
    """What is told of an effect whose outcome is unknown; None where it is known not to be."""
    tool = effect.tool
    if tool.reconcile is None:
        return error_result(effect.id, UNKNOWN)
    try:
        found = tool.reconcile(effect.key, **effect.arguments)
        value = await found if inspect.isawaitable(found) else found
        return to_result(effect.id, value, max_bytes=tool.max_bytes)
    except NotDone:
        return None
    except Exception as error:  # noqa: BLE001  then the outcome stays unknown
        structlog.get_logger("agentloop").warning(
            "reconcile_failed", tool=tool.name, exc_info=error
        )
        return error_result(effect.id, UNKNOWN)


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
    data = json.loads(frozen)
    if "asks" in data:
        return InputRequiredResult.model_validate(data["asks"])
    if "result" in data:
        return CallToolResult.model_validate(data["result"])
    if "error" in data:
        raise HostToolError(data["error"])
    return data["value"]
