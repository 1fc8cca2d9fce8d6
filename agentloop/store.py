"""What a server remembers of suspended calls, so that a client cannot play them twice.

Without a store, a call's state rides the wire, sealed. That is safe against tampering, but not
against being sent again: SEP-2322 leaves single use to the server. With a store only a handle
rides the wire, each round is entered once, a tool that must not run twice is claimed before it
starts, and a state may be of any size.

A round is in one of three conditions:

    open ──enter──> entered (by one owner, for the length of a lease) ──settle──> settled

Whoever brings a settled round again gets the outcome that was settled. Whoever brings an entered
one waits for that outcome, or takes the round over once its lease has run out: then the epoch
rises, and what the former owner still writes is refused.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from agentloop.errors import DefinitionError, StaleOwnerError, StoreError, UnknownRoundError
from agentloop.task import MemoryTasks, TaskStore

LEASE_SECONDS = 10.0
"""How long a round stays with an owner that is not heard of; owners renew it meanwhile."""

KEEP_SECONDS = 3600.0
"""How long a suspended call is kept for its client to come back."""

__all__ = [
    "KEEP_SECONDS",
    "LEASE_SECONDS",
    "Busy",
    "Claim",
    "Entered",
    "MemoryStore",
    "Round",
    "Settled",
    "StaleOwnerError",
    "Store",
    "StoreError",
    "UnknownRoundError",
]


@dataclass(frozen=True, slots=True)
class Round:
    """One round of one call, as its owner holds it."""

    call: str
    """Names the call; unguessable."""
    number: int
    """Rounds before this one."""
    epoch: int = 1
    """How often the round was entered."""
    state: str = ""
    """What the call was when the round before was settled."""
    answers: str = ""
    """What the client brought when the round was entered for the first time."""
    entries: tuple[str, ...] = ()
    """What was written down of the round by those who entered it before."""


@dataclass(frozen=True, slots=True)
class Entered:
    """The caller owns the round now, until its lease runs out."""

    round: Round


@dataclass(frozen=True, slots=True)
class Busy:
    """Another owner holds the round; look again in a while."""


@dataclass(frozen=True, slots=True)
class Settled:
    """The round is over; this came of it."""

    outcome: str


@dataclass(frozen=True, slots=True)
class Claim:
    """What is known of one effect. ``new`` says that nobody claimed it before."""

    new: bool
    result: str | None = None
    """What came of it, if its end was recorded."""


class Store(Protocol):
    """Remembers rounds and claims.

    Every method may raise :class:`StoreError`, and then did nothing. Implementations must be safe
    to use from several processes at once where their storage is.
    """

    lease: float
    """Seconds for which a round is entered or held, unless it is renewed."""
    keep: float
    """Seconds for which a suspended call is kept."""

    @property
    def tasks(self) -> TaskStore:
        """The calls that go on without their callers."""
        ...

    async def begin(self, call: str, *, lease: float, keep: float) -> Entered | Busy | Settled:
        """Enter round 0 of ``call``, which the caller names, creating it where it is new."""
        ...

    async def enter(
        self, call: str, number: int, answers: str, *, lease: float
    ) -> Entered | Busy | Settled:
        """Enter a round that was opened before. Raises :class:`UnknownRoundError`.

        The ``answers`` that count are those of the first time: a client that comes again with
        others does not fork the call.
        """
        ...

    async def renew(self, round: Round, *, lease: float) -> None:
        """Hold the round for another ``lease`` seconds. Raises :class:`StaleOwnerError`."""
        ...

    async def append(self, round: Round, entry: str) -> None:
        """Write down what whoever enters the round again must know besides its state.

        Raises :class:`StaleOwnerError`.
        """
        ...

    async def settle(self, round: Round, outcome: str, *, next_state: str | None) -> None:
        """End the round with ``outcome``; with a ``next_state``, open the next one.

        Raises :class:`StaleOwnerError`.
        """
        ...

    async def release(self, round: Round) -> None:
        """Give the round back unsettled, for somebody to enter it again at once."""
        ...

    async def claim(self, round: Round, key: str) -> Claim:
        """Claim the effect ``key`` of the call, or learn what is known of it.

        The claim is durable before this returns. Raises :class:`StaleOwnerError`.
        """
        ...

    async def record(self, round: Round, key: str, result: str) -> None:
        """Record what came of a claimed effect. Raises :class:`StaleOwnerError`."""
        ...

    async def forget(self, call: str) -> None:
        """Forget ``call`` with its rounds and claims, whether its time is over or not."""
        ...

    async def sweep(self) -> int:
        """Forget calls whose time to be kept is over; how many they were."""
        ...


def check_store(store: Any) -> None:
    """Raises :class:`DefinitionError` for what is no store, such as the path of one."""
    if store is None or (hasattr(store, "enter") and not isinstance(store, type)):
        return
    if isinstance(store, str) and "://" in store:  # not quoted: there may be a password in it
        raise DefinitionError("store= is a text: give a store, e.g. SQLStore(URL)")
    path = str(store) if isinstance(store, str | Path) else "runs.db"
    raise DefinitionError(
        f"store={store!r} is no store: give one, e.g. agentloop.sql_store.SQLiteStore({path!r})"
    )


@dataclass(slots=True)
class _Call:
    expires: float
    keep: float
    rounds: dict[int, _Row] = field(default_factory=dict["int", "_Row"])
    claims: dict[str, str | None] = field(default_factory=dict[str, "str | None"])


@dataclass(frozen=True, slots=True)
class _Row:
    state: str
    answers: str | None = None
    epoch: int = 0
    leased_until: float = 0.0
    outcome: str | None = None
    entries: list[str] = field(default_factory=list[str])


class MemoryStore:
    """A store for one process; what it holds ends with it."""

    def __init__(self, *, lease: float = LEASE_SECONDS, keep: float = KEEP_SECONDS) -> None:
        """``lease`` and ``keep`` are in seconds, see :class:`Store`."""
        self.lease, self.keep = lease, keep
        self.tasks = MemoryTasks()
        self._calls: dict[str, _Call] = {}
        """In the order in which they expire."""

    async def begin(self, call: str, *, lease: float, keep: float) -> Entered | Busy | Settled:
        await self.sweep()
        if (known := self._calls.get(call)) is None or known.expires < time.monotonic():
            found = self._calls[call] = _Call(time.monotonic() + keep, keep)
            found.rounds[0] = _Row("")
        return await self.enter(call, 0, "", lease=lease)

    async def enter(
        self, call: str, number: int, answers: str, *, lease: float
    ) -> Entered | Busy | Settled:
        found = self._calls.get(call)
        row = found.rounds.get(number) if found else None
        now = time.monotonic()
        if found is None or row is None or found.expires < now:
            raise UnknownRoundError("this call is not known here, or it has expired")
        if row.outcome is not None:
            return Settled(row.outcome)
        if row.leased_until > now:
            return Busy()
        self._touch(call)
        if row.answers is None:
            row = replace(row, answers=answers)
        row = replace(row, epoch=row.epoch + 1, leased_until=now + lease)
        found.rounds[number] = row
        held = Round(call, number, row.epoch, row.state, row.answers or "", tuple(row.entries))
        return Entered(held)

    async def renew(self, round: Round, *, lease: float) -> None:
        self._write(round, leased_until=time.monotonic() + lease)
        self._touch(round.call)

    async def append(self, round: Round, entry: str) -> None:
        self._owned(round).rounds[round.number].entries.append(entry)

    async def settle(self, round: Round, outcome: str, *, next_state: str | None) -> None:
        self._write(round, outcome=outcome, leased_until=0.0, state="", answers=None, entries=[])
        if next_state is not None:
            self._calls[round.call].rounds[round.number + 1] = _Row(next_state)

    async def release(self, round: Round) -> None:
        self._write(round, leased_until=0.0)

    async def claim(self, round: Round, key: str) -> Claim:
        claims = self._owned(round).claims
        if key in claims:
            return Claim(new=False, result=claims[key])
        claims[key] = None
        return Claim(new=True)

    async def record(self, round: Round, key: str, result: str) -> None:
        self._owned(round).claims[key] = result

    async def forget(self, call: str) -> None:
        self._calls.pop(call, None)

    async def sweep(self) -> int:
        now = time.monotonic()
        old: list[str] = []
        for call, found in self._calls.items():
            if found.expires >= now:
                break
            old.append(call)
        for call in old:
            del self._calls[call]
        return len(old)

    def _touch(self, call: str) -> None:
        found = self._calls[call] = self._calls.pop(call)
        found.expires = time.monotonic() + found.keep

    def _owned(self, round: Round) -> _Call:
        found = self._calls.get(round.call)
        row = found.rounds.get(round.number) if found else None
        if found is None or row is None or row.epoch != round.epoch or row.outcome is not None:
            raise StaleOwnerError("the round was taken over or has ended; nothing was written")
        return found

    def _write(self, round: Round, **changes: object) -> None:
        rounds = self._owned(round).rounds
        rounds[round.number] = replace(rounds[round.number], **changes)  # pyright: ignore[reportArgumentType]
