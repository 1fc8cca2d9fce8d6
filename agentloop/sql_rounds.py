"""Rounds in a database, with the claims and entries of their calls; each function is one operation.

They work on a connection whose transaction somebody else begins and ends.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy import Connection

from agentloop.sql import run
from agentloop.store import (
    Busy,
    Claim,
    Entered,
    Round,
    Settled,
    StaleOwnerError,
    UnknownRoundError,
)

_OWNED = "call = :call AND number = :number AND epoch = :epoch AND outcome IS NULL"

_HELD = f"""(SELECT call, number FROM agentloop_rounds WHERE {_OWNED} FOR UPDATE) AS held"""
"""The round where it is owned, locked until the transaction ends."""
_SETTLE = f"""UPDATE agentloop_rounds SET outcome = :outcome, state = '', answers = NULL
    WHERE {_OWNED}"""
_RENEW = f"UPDATE agentloop_rounds SET leased_until = :clock + :lease WHERE {_OWNED}"
_RELEASE = f"UPDATE agentloop_rounds SET leased_until = 0 WHERE {_OWNED}"
_LOCK = f"UPDATE agentloop_rounds SET epoch = epoch WHERE {_OWNED}"
_SWEEP = "DELETE FROM agentloop_calls WHERE expires < :clock"
_DROP = "DELETE FROM agentloop_calls WHERE call = :call"
_FORGET = f"{_SWEEP} AND call = :call"
_NEW_CALL = """INSERT INTO agentloop_calls (call, keep, expires)
    VALUES (:call, :keep, :clock + :keep) ON CONFLICT (call) DO NOTHING"""
_NEW_ROUND = """INSERT INTO agentloop_rounds (call, number, state, epoch, leased_until)
    VALUES (:call, :number, :state, 0, 0) ON CONFLICT (call, number) DO NOTHING"""
_FIRST_ROUND = """INSERT INTO agentloop_rounds (call, number, state, epoch, leased_until, answers)
    VALUES (:call, 0, '', 1, :clock + :lease, '')"""
# No lease reaches as far as ten of them: then the clock was set back since.
_ENTER = """UPDATE agentloop_rounds
    SET epoch = epoch + 1, leased_until = :clock + :lease, answers = coalesce(answers, :answers)
    WHERE call = :call AND number = :number AND outcome IS NULL
    AND (leased_until <= :clock OR leased_until > :clock + :lease * 10)
    AND EXISTS (SELECT 1 FROM agentloop_calls c WHERE c.call = :call AND c.expires >= :clock)
    RETURNING epoch, state, answers"""
_FIND_ROUND = """SELECT r.outcome FROM agentloop_rounds r JOIN agentloop_calls c ON c.call = r.call
    WHERE r.call = :call AND r.number = :number AND c.expires >= :clock"""
_NEW_ENTRY = f"""INSERT INTO agentloop_entries (call, number, entry, written)
    SELECT call, number, (SELECT coalesce(max(entry), 0) + 1 FROM agentloop_entries
        WHERE call = :call AND number = :number), :written
    FROM {_HELD} WHERE true ON CONFLICT (call, number, entry) DO NOTHING"""
_ENTRIES = """SELECT written FROM agentloop_entries
    WHERE call = :call AND number = :number ORDER BY entry"""
_DROP_ENTRIES = "DELETE FROM agentloop_entries WHERE call = :call AND number = :number"
_KEEP_CALL = "UPDATE agentloop_calls SET expires = :clock + keep WHERE call = :call"
_NEW_CLAIM = f"""INSERT INTO agentloop_claims (call, effect) SELECT call, :effect
    FROM {_HELD} WHERE true ON CONFLICT (call, effect) DO NOTHING"""
_FIND_CLAIM = "SELECT result FROM agentloop_claims WHERE call = :call AND effect = :effect"
_RECORD = f"""UPDATE agentloop_claims SET result = :result FROM {_HELD}
    WHERE agentloop_claims.call = held.call AND effect = :effect"""


def begin(
    connection: Connection, call: str, *, lease: float, keep: float
) -> Entered | Busy | Settled:
    """Enter the first round of ``call``; one that has expired counts as new."""
    values = {"call": call, "keep": keep, "lease": lease}
    is_new = run(connection, _NEW_CALL, values).rowcount == 1
    if not is_new and run(connection, _FORGET, values).rowcount == 1:
        is_new = run(connection, _NEW_CALL, values).rowcount == 1
    if is_new and run(connection, _FIRST_ROUND, values).rowcount == 1:
        return Entered(Round(call, 0))
    return enter(connection, Round(call, 0), "", lease=lease)


def enter(
    connection: Connection, round: Round, answers: str, *, lease: float
) -> Entered | Busy | Settled:
    """Enter a round that nobody holds. Raises :class:`UnknownRoundError`."""
    place = _place(round)
    entering = {**place, "lease": lease, "answers": answers}
    row = run(connection, _ENTER, entering).one_or_none()
    if row is not None:
        run(connection, _KEEP_CALL, place)
        # Who enters for the first time finds nothing that was written down before.
        entries = run(connection, _ENTRIES, place) if row.epoch > 1 else ()
        written = tuple(entry.written for entry in entries)
        held = replace(
            round, epoch=row.epoch, state=row.state, answers=row.answers or "", entries=written
        )
        return Entered(held)
    found = run(connection, _FIND_ROUND, place).one_or_none()
    if found is None:
        raise UnknownRoundError("this call is not known here, or it has expired")
    return Busy() if found.outcome is None else Settled(found.outcome)


def renew(connection: Connection, round: Round, *, lease: float) -> None:
    _lease(connection, round, _RENEW, lease)


def release(connection: Connection, round: Round) -> None:
    _lease(connection, round, _RELEASE, 0.0)


def append(connection: Connection, round: Round, entry: str) -> None:
    values = {**_owner(round), "written": entry}
    if not _wrote(connection, _NEW_ENTRY, values):
        _owned(connection, _LOCK, values)
        _wrote(connection, _NEW_ENTRY, values)


def settle(connection: Connection, round: Round, outcome: str, *, next_state: str | None) -> None:
    _owned(connection, _SETTLE, {**_owner(round), "outcome": outcome})
    run(connection, _DROP_ENTRIES, _place(round))
    if next_state is not None:
        values = {"call": round.call, "number": round.number + 1, "state": next_state}
        run(connection, _NEW_ROUND, values)


def claim(connection: Connection, round: Round, key: str) -> Claim:
    values = {**_owner(round), "effect": key}
    if _wrote(connection, _NEW_CLAIM, values):
        return Claim(new=True)
    _owned(connection, _LOCK, values)
    found = run(connection, _FIND_CLAIM, values).one()
    return Claim(new=False, result=found.result)


def record(connection: Connection, round: Round, key: str, result: str) -> None:
    values = {**_owner(round), "effect": key, "result": result}
    if not _wrote(connection, _RECORD, values):
        _owned(connection, _LOCK, values)


def forget(connection: Connection, call: str) -> None:
    run(connection, _DROP, {"call": call})


def sweep(connection: Connection) -> int:
    """Forget the calls that have expired; gives how many."""
    return run(connection, _SWEEP, {}).rowcount


def _lease(connection: Connection, round: Round, sql: str, seconds: float) -> None:
    _owned(connection, sql, {**_owner(round), "lease": seconds})
    run(connection, _KEEP_CALL, _place(round))


def _place(round: Round) -> dict[str, Any]:
    return {"call": round.call, "number": round.number}


def _owner(round: Round) -> dict[str, Any]:
    return {"call": round.call, "number": round.number, "epoch": round.epoch}


def _owned(connection: Connection, sql: str, values: dict[str, Any]) -> None:
    """Write to a round that ``values`` own; the row stays locked until the transaction ends."""
    if run(connection, sql, values).rowcount != 1:
        raise StaleOwnerError("the round was taken over or has ended; nothing was written")


def _wrote(connection: Connection, sql: str, values: dict[str, Any]) -> bool:
    """Write what hangs on ``_HELD``, in one statement.

    Where that wrote nothing, either the round is not owned or somebody wrote at the same time, whom
    this statement did not see; one that follows ``_LOCK`` does.
    """
    return run(connection, sql, values).rowcount == 1
