"""Calls of tools that must not run twice: claimed before they begin, recorded when they end."""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable

import anyio
from mcp_types import ToolResultContent

from agentloop.errors import NotDone, where
from agentloop.log import log
from agentloop.results import error_result, to_result
from agentloop.store import Round, StaleOwnerError, Store, StoreError
from agentloop.tools import Effect

UNKNOWN = (
    "Unknown outcome: this call was begun before an interruption, and nobody knows whether it had "
    "its effect. It is not run again. Find out before you rely on it."
)

_PAUSE_SECONDS = (0.02, 0.5)


async def perform_once(
    effect: Effect,
    perform: Callable[[], Awaitable[ToolResultContent]],
    store: Store,
    round: Round,
) -> ToolResultContent:
    """Perform ``effect`` unless ``store`` has a claim to it; what came of it the first time.

    Where that is not known, the tool's ``reconcile`` finds out, or the model is told so. Raises
    :class:`StaleOwnerError` where ``round`` was taken over, and :class:`StoreError` where the store
    fails: then nothing was performed, or its result could not be recorded within a lease's time.
    """
    claim = await store.claim(round, effect.key)
    if claim.result is not None:
        return _recorded(claim.result)
    result = None if claim.new else await _reconciled(effect)
    if result is None:
        result = await perform()
    await insist(store, lambda: store.record(round, effect.key, written(result)))
    return result


def written(result: ToolResultContent) -> str:
    """``result`` as it is recorded."""
    return result.model_dump_json(by_alias=True, exclude_none=True)


async def insist(store: Store, write: Callable[[], Awaitable[None]]) -> None:
    """Write what has happened already, also to a store that fails for a while.

    Raises :class:`StaleOwnerError`, and :class:`StoreError` once a lease's time is over.
    """
    until = time.monotonic() + store.lease
    wait, longest = _PAUSE_SECONDS
    while True:
        try:
            return await write()
        except StaleOwnerError:
            raise
        except StoreError:
            if time.monotonic() + wait > until:
                raise
        await anyio.sleep(wait)
        wait = min(wait * 2, longest)


def _recorded(result: str) -> ToolResultContent:
    try:
        return ToolResultContent.model_validate_json(result)
    except ValueError as error:
        raise StoreError("the store holds a result that cannot be read") from error


async def _reconciled(effect: Effect) -> ToolResultContent | None:
    """What is told of an effect whose outcome is unknown; None where it is known not to be."""
    tool = effect.tool
    if tool.reconcile is None:
        return error_result(effect.id, UNKNOWN)
    try:
        found = tool.reconcile(effect.key, **effect.arguments)
        value = await found if inspect.isawaitable(found) else found
        return to_result(
            effect.id, value, max_bytes=tool.max_bytes, max_media_bytes=tool.max_media_bytes
        )
    except NotDone:
        return None
    except Exception as error:  # noqa: BLE001  then the outcome stays unknown
        log().warning(
            "reconcile_failed", tool=tool.name, error_type=type(error).__name__, at=where(error)
        )
        return error_result(effect.id, UNKNOWN)
