"""Carrier *rounds*: an ask leaves in the call's own result, and the client calls again (SEP-2322).

For clients that speak 2026-07-28, which has no requests from server to client. The function is
entered again from its first line at every round. Runs that ended give their result at once, runs
that were suspended go on where they stopped, and when every branch of the function waits for the
model, all open asks leave together.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Never, cast

from mcp_types import (
    CreateMessageRequestParams,
    CreateMessageResult,
    CreateMessageResultWithTools,
    ElicitRequest,
    ElicitRequestParams,
    ElicitResult,
    InputRequest,
    InputRequiredResult,
    InputResponses,
    SamplingMessage,
)
from pydantic_core import to_json

from agentloop.definition import Definition
from agentloop.errors import (
    BadRequestError,
    DefinitionError,
    MalformedReplyError,
    StateError,
    ToolError,
)
from agentloop.events import Sink
from agentloop.mcp.deflate import MAX_BYTES
from agentloop.mcp.handover import HANDOVER
from agentloop.mcp.increments import amend
from agentloop.mcp.recent import Call
from agentloop.mcp.refused import refusal
from agentloop.mcp.request import Request
from agentloop.mcp.served import ServedHost, Serving
from agentloop.mcp.state import packed, unpack
from agentloop.mcp.visit import Visit
from agentloop.mcp.written import Writer, sending
from agentloop.meta import Reply
from agentloop.place import HERE, Place
from agentloop.run import Run
from agentloop.tools import Tool
from agentloop.transcript import WIRE, Transcript
from agentloop.turns import after_turns

STATE_VERSION = 1

_SETTLE = 5
"""Turns of the event loop that other tasks get to start a run before the function is left.

:func:`agentloop.gather` says what it starts, so that nothing is guessed there; this is for
functions with task groups of their own."""


@dataclass(frozen=True, slots=True)
class Suspended:
    """The function can go no further before the client answers."""

    asks: dict[str, InputRequest]
    """What is asked of the client, by the key under which it leaves."""
    state: str
    """What to bring back, with the answers, to go on."""
    detached: bool = False
    """Whether it goes on without the client, as a task."""

    def result(self, state: str | None) -> InputRequiredResult:
        """What the client is sent; ``state`` is what it brings back."""
        return sending(self.asks, state)

    def written(self) -> dict[str, Any]:
        """What is asked, in the protocol's own JSON."""
        return {key: request.model_dump(**WIRE) for key, request in sorted(self.asks.items())}


class RoundsHost(ServedHost):
    """Keeps what the function's runs and ``once`` values are, from one round to the next."""

    suspends = True
    most_state = MAX_BYTES

    def __init__(
        self,
        request: Request,
        *,
        state: str | None,
        answers: InputResponses,
        serving: Serving,
        sink: Sink | None,
        entries: Sequence[str] = (),
    ) -> None:
        """``state`` is that of the round before, ``entries`` what was written down of it since.

        Raises :class:`StateError` for one not of ours.
        """
        super().__init__(request, RoundsProvider(), serving, sink)
        recent = serving.recent.take(state) if state and not entries else None
        call = recent or Call(_read(state, self.most_state, entries), {}, Writer())
        # Without a state nothing was asked yet, so nothing can be an answer to it.
        self.answers = answers if state else {}
        self.rounds: int = call.saved.get("round", 0)
        """Rounds that are over."""
        self.writer = call.writer
        self.asks: dict[str, InputRequest] = {}
        self._saved: dict[str, Any] = call.saved.get("runs", {})
        self._known = call.runs
        """Those of the saved runs that need not be read."""
        self._runs: dict[str, Run] = {}
        self._taken: set[str] = set()
        self._strangers: dict[str, Run] = {}
        """Runs that nothing was kept of, by the key of a kept run that they began in place of."""
        self._values: dict[str, Any] = dict(call.saved.get("values", {}))
        self._recent = serving.recent
        self._stalls = 0
        self._visit = Visit(serving.leave_seconds)
        in_task = request.running is not None
        self._may_detach = not in_task and serving.task != "never" and HANDOVER.get() is not None
        self._counts_rounds = not in_task and not self._may_detach
        self._detached = False

    def check(self, tools: Iterable[Tool]) -> None:
        for tool in tools:
            if tool.guarded and tool.once != "best effort":
                raise DefinitionError(
                    f"tool {tool.name!r} must not run twice, but a client may send a round again: "
                    "give a store (mount(..., store=...) or resumable(store=...)), or accept that "
                    'it may, with once="best effort"'
                )

    def resume(self, place: Place, run: Run) -> Run | None:
        # Tasks that the author started may come here in another order than the time before, so a
        # run is known by what it was asked, and its order only tells equal ones apart.
        parent = place.key.rpartition("/")[0]
        beside = [key for key in self._saved if key.rpartition("/")[0] == parent]
        for key in sorted(beside, key=lambda key: key != place.key):
            if key not in self._taken and (kept := self._same(key, run)) is not None:
                self._taken.add(key)
                place.key = key
                return kept
        if place.key in self._saved:
            self._strangers.setdefault(place.key, run)
        number = 0
        while place.key in self._saved or place.key in self._taken:
            place.key = f"{parent}/{number}" if parent else str(number)
            number += 1
        self._taken.add(place.key)
        return None

    def _same(self, key: str, run: Run) -> Run | None:
        """The run that was kept at ``key``, if it was asked what ``run`` is asked."""
        saved = self._saved[key]
        if saved.get("of") != run.definition.digest:
            return None
        known = self._known.get(key)
        kept = Run.from_json(saved, run.definition) if known is None else known.of(run.definition)
        began = kept.messages[: len(run.messages)]
        if len(began) < len(run.messages) or any(
            a.content != b.content for a, b in zip(run.messages, began, strict=True)
        ):
            return None
        if known is None:
            self.writer.remember(zip(kept.messages, saved["messages"], strict=True))
        return kept

    def _check_all_resumed(self) -> None:
        """Raises :class:`StateError` where other runs began in the places of kept ones."""
        for key, run in self._strangers.items():
            if key not in self._taken:
                raise StateError(
                    f"run {key} was suspended, and another one of agent "
                    f"{run.definition.name!r} began in its place: instructions, tools or output "
                    "type have changed, or what is asked is not the same each time (use once() "
                    "for what it depends on); start the call again"
                )

    def keep(self, key: str, run: Run) -> None:
        self._runs[key] = run

    def value(self, key: str) -> tuple[Any] | None:
        return (self._values[key],) if key in self._values else None

    def keep_value(self, key: str, value: Any) -> None:
        self._values[key] = value

    async def take_up(self, handle: str, definition: Definition) -> Sequence[SamplingMessage]:
        # The handle may expire in the middle of the call, which has the messages by then.
        key = f"resume {_digest(handle)}"
        if (known := self.value(key)) is not None and (began := self._history(known[0])):
            return began
        messages = await super().take_up(handle, definition)
        self.keep_value(key, _digest([self.writer.message(message) for message in messages]))
        return messages

    def _history(self, digest: str) -> Transcript | None:
        """What a kept run began after, if its ``digest`` is this."""
        try:
            histories = [run["messages"][: run.get("history", 0)] for run in self._saved.values()]
            found = next((each for each in histories if _digest(each) == digest), None)
            return None if found is None else Transcript.from_json(found)
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            raise StateError(f"the saved run is damaged: {type(error).__name__}") from error

    def room(self, key: str, run: Run) -> int | None:
        if not self._counts_rounds or _ask_key(key, run) in self.answers:
            return None
        left: list[int] = []
        above = 0
        place = HERE.get()
        while place is not None:
            # A run above needs a round for words of its own, after this one is through.
            if (asker := self._runs.get(place.key)) is not None:
                if (limit := asker.definition.limits.rounds) is not None:
                    left.append(limit - self.rounds - above)
                above += 1
            place = place.parent
        return min(left, default=None)

    def ask_key(self, place: Place) -> str:
        """The key under which the run at ``place`` asks now; never the same one twice."""
        return _ask_key(place.key, self._runs[place.key])

    async def _elicit(self, place: Place, params: ElicitRequestParams) -> ElicitResult:
        key = f"{place.key}?"
        if (kept := self.value(key)) is not None:
            return _of_user(ElicitResult.model_validate(kept[0]))
        answer = self.answers.get(key)
        if answer is None:
            if why_not := self.may_not_wait(place):
                raise ToolError(why_not)
            await self.wait(place, key, ElicitRequest(params=params))
        if not isinstance(answer, ElicitResult):
            raise ToolError("The client gave no answer of its user's.")
        # The function may be entered again after this: then the answer is not in the request.
        self.keep_value(key, answer.model_dump(mode="json", by_alias=True, exclude_none=True))
        return _of_user(answer)

    def may_not_wait(self, place: Place) -> str | None:
        """Why ``place`` must not wait for the next round, if it must not."""

    async def admit(self) -> None:
        await self._visit.admit()

    def is_left(self) -> bool:
        return self._visit.left

    async def detach(self, place: Place) -> None:
        if self._may_detach:
            self._detached = True
            await self.wait(place)

    def stalled(self, root: Place) -> None:
        self._stalls += 1
        after_turns(_SETTLE, partial(self._leave, root, self._stalls))

    def _leave(self, root: Place, stall: int) -> None:
        """Leave the function, unless it could go on after all since it stalled."""
        if root.blocked and stall == self._stalls:
            self._visit.leave()

    async def run(self, function: Callable[[], Awaitable[Any]]) -> Any:
        """Enter ``function``: what it gives, or :class:`Suspended`.

        Raises what ``function`` raises.
        """
        token = HERE.set(Place("", None, self))
        try:
            outcome = await self._visit.run(function)
        finally:
            HERE.reset(token)
        self._check_all_resumed()
        return self._suspended() if self._visit.left else outcome

    async def wait(
        self, place: Place, key: str | None = None, ask: InputRequest | None = None
    ) -> Never:
        """Park ``place``, and leave the function once it can go no further.

        ``ask`` leaves then, under ``key``.
        """
        if key is not None and ask is not None and not self._visit.left:
            self.asks[key] = ask
        place.park()
        await self._visit.park()

    def _suspended(self) -> Suspended:
        detached = self._detached or (self._may_detach and self._out_of_rounds())
        return Suspended(dict(sorted(self.asks.items())), self._state(), detached)

    def _out_of_rounds(self) -> bool:
        limits = [run.definition.limits.rounds for run in self._runs.values() if run.stop is None]
        return any(limit is not None and self.rounds >= limit for limit in limits)

    def _state(self) -> str:
        """What there is to know when the function is entered in the next round."""
        write = self.writer.message
        runs = {**self._saved, **{key: run.to_json(write) for key, run in self._runs.items()}}
        saved = {"v": STATE_VERSION, "round": self.rounds + 1, "runs": runs, "values": self._values}
        written = to_json(saved)
        state = packed(written)
        call = Call(saved, {**self._known, **self._runs}, self.writer)
        self._recent.keep(state, call, len(written))
        return state


class RoundsProvider:
    """The client of one request as a provider that answers in the next round."""

    name = "client (rounds)"

    async def sample(self, request: CreateMessageRequestParams) -> Reply:
        """The answer that the client brought; without one, wait until the function is left."""
        place = HERE.get()
        assert place is not None
        host = _host_of(place)
        key = host.ask_key(place)
        answer = host.answers.get(key)
        if answer is None:
            if why_not := host.may_not_wait(place):
                raise BadRequestError(why_not)
            await host.wait(place, key, host.writer.request(request))
        elif (refused := refusal(answer)) is not None:
            raise refused
        if not isinstance(answer, CreateMessageResult | CreateMessageResultWithTools):
            kind = type(cast("object", answer)).__name__
            raise MalformedReplyError(f"the client answered an ask with a {kind}")
        return answer


def _host_of(place: Place) -> RoundsHost:
    above: Place | None = place
    while above is not None:
        if isinstance(above.host, RoundsHost):
            return above.host
        above = above.parent
    raise BadRequestError("there is no call here whose client could answer")


def _read(state: str | None, most: int, entries: Sequence[str]) -> dict[str, Any]:
    """What ``state`` says, and what ``entries`` say that came of it since."""
    saved = unpack(state, most) if state else {}
    if saved and saved.get("v") != STATE_VERSION:
        raise StateError(f"the state is not of version {STATE_VERSION}; start the call again")
    return amend(saved, entries)


def _of_user(answer: ElicitResult) -> ElicitResult:
    """``answer``, which a person gave. Raises :class:`ToolError` where nobody was asked."""
    if refusal(answer) is not None:
        raise ToolError("The client could not ask its user.")
    return answer


def _digest(value: Any) -> str:
    written = json.dumps(value, sort_keys=True)
    return hashlib.sha256(written.encode()).hexdigest()


def _ask_key(place: str, run: Run) -> str:
    return f"{place}:{run.steps}"
