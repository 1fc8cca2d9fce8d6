"""Where a run runs: its place in the tree of what a function is doing, and what surrounds it.

A served function is entered again at every round, so each run inside it needs a key that is the
same each time: its place. The tree also knows when the function can go no further: when every
branch of it ends in a run that is parked, waiting for the model.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextvars import ContextVar
from typing import Any

from mcp_types import ElicitRequestParams, ElicitResult, SamplingMessage, ToolResultContent

from agentloop.definition import Definition
from agentloop.errors import DefinitionError, StateError, ToolError
from agentloop.events import Sink
from agentloop.journal import Journal
from agentloop.patience import Patience
from agentloop.provider import Provider
from agentloop.run import Run
from agentloop.tools import Effect, Tool
from agentloop.usage import Usage

MAX_NESTING = 4
"""How many agents may run inside one another."""

HERE: ContextVar[Place | None] = ContextVar("agentloop_place", default=None)
"""The place of the code that runs now; None outside of any run and any served function."""


class Left(BaseException):
    """Raised in a function that is left at the end of its round, where it does not hear that it is
    cancelled: behind a shield, or in a thread. No :class:`Exception`, as cancellation is none."""


User = Callable[[ElicitRequestParams], Awaitable[ElicitResult]]
"""Answers for the person behind a call; the shape of a client's elicitation callback."""


class Host:
    """What surrounds runs: who answers their asks, who listens, what is kept while suspended.

    This one is for runs that nobody serves; :mod:`agentloop.mcp` has the ones for MCP calls.
    """

    suspends = False
    """Whether runs may be parked and the function entered again."""
    wraps_calls = False
    """Whether :meth:`call` does more than perform."""
    clock: Callable[[], float] = staticmethod(time.monotonic)
    """Seconds on the clock by which runs here count theirs; only differences mean anything."""

    def __init__(
        self, provider: Provider | None, sink: Sink | None, user: User | None = None
    ) -> None:
        self._provider = provider
        self.journal = sink if isinstance(sink, Journal) else Journal(sink)
        self.user = user

    def provider(self, definition: Definition, own: Provider | None) -> Provider:
        """Who answers the asks of a run of ``definition``; ``own`` is its agent's own provider."""
        provider = self._provider or own
        if provider is None:
            raise DefinitionError(
                f"agent {definition.name!r} has no model to ask: pass provider=... to run() or "
                "Agent(), or call it inside a served function (agentloop.mcp.resumable)"
            )
        return provider

    async def admit(self) -> None:
        """Called before a run begins, or a value that is made once; does not return where nothing
        may begin any more."""

    def is_left(self) -> bool:
        """Whether the function is being left, so that nothing that ends in it counts any more."""
        return False

    def begin(self, place: Place) -> tuple[str, float]:
        """The id of a run that begins at ``place``, and the time, in seconds since the epoch."""
        return secrets.token_hex(8), time.time()

    def resume(self, place: Place, run: Run) -> Run | None:
        """What was kept of ``run``, which is about to begin at ``place``; None where nothing was.

        ``place`` gets the key under which it was kept."""

    async def delegate(self, place: Place, run: Run) -> Run | None:
        """``run``, which is about to begin at ``place``, as somebody else brought it to its end;
        None where it is to be driven here."""

    def keep(self, key: str, run: Run) -> None:
        """Remember the run at ``key`` as it is now."""

    def value(self, key: str) -> tuple[Any] | None:
        """The value that was kept at ``key``, if there is one, in a tuple."""

    def keep_value(self, key: str, value: Any) -> None:
        """Remember a JSON value at ``key``."""

    def room(self, key: str, run: Run) -> int | None:
        """How many asks the caller still grants ``run``, which is at ``key``, counting the one
        that it is about to send; None where nobody counts."""

    def check(self, tools: Iterable[Tool]) -> None:
        """Raises :class:`DefinitionError` where a tool's promise cannot be kept here."""

    async def before_ask(self, provider: Provider) -> None:
        """Called before an ask leaves for ``provider``."""

    async def before_calls(self) -> None:
        """Called before the tool calls of a turn begin."""

    async def call(
        self, effect: Effect, perform: Callable[[], Awaitable[ToolResultContent]]
    ) -> ToolResultContent:
        """What came of a tool call, whatever it was: refused, too late, or performed.

        Entered for the calls of a turn in their order, before any of them waits for anything.
        """
        return await perform()

    async def guard(
        self, effect: Effect, perform: Callable[[], Awaitable[ToolResultContent]]
    ) -> ToolResultContent:
        """What came of ``effect``, of a tool that must not run twice: perform it, unless it was
        performed before."""
        return await perform()

    async def ask_user(self, place: Place, params: ElicitRequestParams) -> ElicitResult:
        """What the person behind the call answers to a question asked at ``place``.

        Raises :class:`ToolError` where they cannot be asked.
        """
        if self.user is None:
            raise ToolError("There is nobody to ask here.")
        return await self.user(params)

    async def put_by(self, key: str, run: Run) -> str | None:
        """Keep ``run``, which ended on a limit at ``key``, for a later call to go on from.

        Gives its handle; None where nothing is kept.
        """

    async def take_up(self, handle: str, definition: Definition) -> Sequence[SamplingMessage]:
        """The messages of the run that :meth:`put_by` gave ``handle`` for.

        Raises :class:`StateError` where there is none.
        """
        raise StateError("no runs are kept here: a handle is for a served call with a store")

    def stalled(self, root: Place) -> None:
        """Called when every branch of the function, whose place is ``root``, ends in a parked
        run."""


class Place:
    """One node of the tree: the function, a branch of it, a run, or a tool call of a run."""

    __slots__ = (
        "_blocked",
        "_born",
        "_live",
        "_names",
        "_parked",
        "host",
        "key",
        "nesting",
        "own",
        "parent",
        "patience",
        "spent",
        "token",
    )

    def __init__(self, key: str, parent: Place | None, host: Host, *, nesting: int = 0) -> None:
        self.key = key
        self.parent = parent
        self.host = host
        self.nesting = nesting
        self.own: Provider | None = parent.own if parent else None
        """The provider of the agents around this place, for those that have none."""
        self.spent: Usage | None = None
        """What the runs below used, for the run above to count as its own."""
        self.token: str | None = None
        """Names the tool call of this place, the same each time that it is made."""
        self.patience: Patience | None = None
        """Bounds the ask that the run here waits for."""
        self._born = 0
        self._live = 0
        self._blocked = 0
        self._parked = False
        self._names: set[str] | None = None

    def below(
        self, name: str | None = None, *, host: Host | None = None, nesting: int = 0
    ) -> Place:
        """A new place below this one, called ``name`` or by its order; leave it when done."""
        if name is None:
            name = str(self._born)
            self._born += 1
        key = f"{self.key}/{name}" if self.key else name
        place = Place(key, self, host or self.host, nesting=self.nesting + nesting)
        if self.host.suspends:
            self._change(live=1)
        return place

    def name(self, name: str) -> None:
        """Take ``name`` for a value that is kept here. Raises :class:`DefinitionError` for one that
        is taken: which of the two is meant would change from round to round."""
        self._names = self._names or set()
        if name in self._names:
            raise DefinitionError(f"once({name!r}): this name is taken already; each needs its own")
        self._names.add(name)

    def leave(self) -> None:
        """This place is done."""
        if (parent := self.parent) is None or not parent.host.suspends:
            return
        parent._change(live=-1, blocked=-1 if self.blocked else 0)

    @property
    def within(self) -> str | None:
        """The id of the run in whose tool call this is; None outside of any."""
        place = self
        while place is not None and place.token is None:
            place = place.parent
        return None if place is None or place.token is None else place.token.partition(":")[0]

    def charge(self, usage: Usage) -> None:
        """Count what the run here used for the run above it, in whose tool call this is."""
        above = self.parent
        while above is not None and above.token is None and above.parent is not None:
            above = above.parent  # a branch, or a value that is made once
        if above is not None:
            above.spent = usage if above.spent is None else above.spent + usage

    @property
    def blocked(self) -> bool:
        """Whether nothing here can go on before the model answers."""
        return self._parked or (self._live > 0 and self._blocked == self._live)

    def park(self) -> None:
        """This place waits for an answer that will not come before the function is left."""
        before = self.blocked
        self._parked = True
        if self.patience is not None:
            self.patience.lift()
        self._changed(before)

    def _change(self, *, live: int, blocked: int = 0) -> None:
        before = self.blocked
        self._live += live
        self._blocked += blocked
        self._changed(before)

    def _changed(self, before: bool) -> None:
        now = self.blocked
        if now == before:
            return
        if self.parent is None:
            if now:
                self.host.stalled(self)
        elif self.parent.host.suspends:
            self.parent._change(live=0, blocked=1 if now else -1)


def idempotency_key() -> str:
    """The key of the tool call that runs now, the same each time that this call is made.

    Pass it on to services that take one, so that a call which is made again after an interruption
    has its effect once. Raises :class:`DefinitionError` outside of a tool.
    """
    place = HERE.get()
    while place is not None and place.token is None:
        place = place.parent
    if place is None or place.token is None:
        raise DefinitionError("idempotency_key() is for code that runs inside a tool call")
    return place.token
