"""Runs that ended on a limit, kept for a later call to go on from."""

from __future__ import annotations

import hashlib
import json
from typing import Any, cast

from agentloop.definition import Definition
from agentloop.errors import StateError, UnknownRoundError
from agentloop.run import Run
from agentloop.store import Entered, Settled, Store

_UNKNOWN = (
    "nothing is kept under this handle: it has expired, or it was given to somebody else; "
    "leave it out to begin anew"
)


async def keep(store: Store, run: Run, *, name: str, principal: str | None) -> str:
    """Keep ``run``; gives the handle, which is as unguessable as ``name``.

    The same name has the same handle, and what is kept under it first stays.
    """
    handle = "h" + hashlib.sha256(name.encode()).hexdigest()[:32]
    entered = await store.begin(handle, lease=store.lease, keep=store.keep)
    if isinstance(entered, Entered):
        kept = json.dumps({"principal": principal, "run": run.to_json()})
        await store.settle(entered.round, kept, next_state=None)
    return handle


async def recall(
    store: Store, handle: str, definition: Definition, *, principal: str | None
) -> Run:
    """The run that was kept under ``handle``.

    Raises :class:`StateError` where there is none for this principal, or it is of another agent or
    of one that has changed since.
    """
    try:
        found = await store.enter(handle, 0, "", lease=store.lease)
    except UnknownRoundError as error:
        raise StateError(_UNKNOWN) from error
    if not handle.startswith("h") or not isinstance(found, Settled):
        raise StateError(_UNKNOWN)
    kept: Any = json.loads(found.outcome)
    if not isinstance(kept, dict) or "run" not in kept or kept["principal"] != principal:
        raise StateError(_UNKNOWN)
    return Run.from_json(cast("Any", kept["run"]), definition)
