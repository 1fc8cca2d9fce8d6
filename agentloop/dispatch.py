"""A turn's tool calls: prepared in order, run together, answered in order."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Iterable, Sequence
from copy import deepcopy
from functools import partial
from typing import Any, NamedTuple, cast

import anyio
from mcp_types import ToolResultContent, ToolUseContent

from agentloop.errors import AgentLoopError, ToolError, where
from agentloop.events import ToolEnded, ToolStarted
from agentloop.journal import Journal
from agentloop.log import log
from agentloop.meta import with_usage
from agentloop.place import HERE, Left, Place
from agentloop.results import NotWritable, error_result, to_result
from agentloop.run import Run
from agentloop.schema import ArgumentsInvalid
from agentloop.strays import Stray, at_once, left_behind, stray
from agentloop.threads import work_of
from agentloop.tools import Effect, Tool, Toolbox
from agentloop.user import refusal


def dispatch(
    calls: Sequence[ToolUseContent],
    toolbox: Toolbox,
    *,
    run: Run,
    place: Place,
    results: dict[str, ToolResultContent],
    journal: Journal,
    deadline: float = math.inf,
) -> Awaitable[None]:
    """Run ``calls`` and put the result of each into ``results``, by its id, as it comes.

    At ``deadline`` (``time.monotonic()``) what still runs is stopped, and the rest is not begun.
    Raises nothing but cancellation, and what the host raises where it cannot keep its promises;
    then ``results`` holds what finished before.
    """
    turn = _Turn(run, place, results, journal, deadline)
    number_of = _numbers(run, calls)
    prepared: list[_Prepared] = []
    for call in calls:
        ready = _prepare(call, number_of[call.id], toolbox)
        if isinstance(ready, _Prepared):
            prepared.append(ready)
        else:
            journal.note(ToolStarted, run, place.key, call)
            turn.answer(call, ready, 0.0)
    return turn.perform(prepared[0]) if len(prepared) == 1 else turn.perform_all(prepared)


def _numbers(run: Run, calls: Sequence[ToolUseContent]) -> dict[str, int]:
    """The number of each of ``calls`` in its turn, by id. Ids are the model's: they may come
    again."""
    turn = run.uses if run.results else calls  # with no results, all are open
    return {use.id: number for number, use in enumerate(turn)}


class _Prepared(NamedTuple):
    call: ToolUseContent
    number: int
    tool: Tool
    arguments: dict[str, Any]


def _prepare(call: ToolUseContent, number: int, toolbox: Toolbox) -> _Prepared | ToolResultContent:
    tool = toolbox.get(call.name)
    if tool is None:
        names = ", ".join(toolbox.nearest(call.name)) or "none"
        return error_result(
            call.id, f"There is no tool {call.name!r}. Tools with near names: {names}."
        )
    try:
        return _Prepared(call, number, tool, tool.check(_own(call.input)))
    except ArgumentsInvalid as error:
        return error_result(call.id, f"Not run, the arguments do not fit: {error}")
    except Exception as error:  # noqa: BLE001  a validator of the author's failed
        return error_result(call.id, _explain(tool, error))


def _own(arguments: dict[str, Any]) -> dict[str, Any]:
    """``arguments`` for a tool to change as it likes: the history says what the model sent."""
    for value in arguments.values():
        if isinstance(value, (dict, list)):
            return deepcopy(arguments)
    return dict(arguments)


class _Turn(NamedTuple):
    run: Run
    place: Place
    results: dict[str, ToolResultContent]
    journal: Journal
    deadline: float

    async def perform_all(self, calls: Sequence[_Prepared]) -> None:
        """Run ``calls``, together but for those that run alone."""
        together = [ready for ready in calls if not ready.tool.exclusive]
        if len(together) > 1:
            queue = iter(together)
            async with anyio.create_task_group() as group:
                for _ in range(min(len(together), self.run.definition.limits.parallel)):
                    group.start_soon(self.perform_each, queue)
        else:
            await self.perform_each(together)
        await self.perform_each(ready for ready in calls if ready.tool.exclusive)

    async def perform_each(self, queue: Iterable[_Prepared]) -> None:
        """Run one call after the other, as long as there are any."""
        for ready in queue:
            await self.perform(ready)

    async def perform(self, ready: _Prepared) -> None:
        """Run one call to its result."""
        call, run, host = ready.call, self.run, self.place.host
        began = time.monotonic()
        self.journal.note(ToolStarted, run, self.place.key, call)
        here = self.place.below(f"{run.steps}.{ready.number}")
        here.token = f"{run.id}:{here.key}"
        try:
            if host.wraps_calls or not ready.tool.plain:
                effect = Effect(ready.tool, here.token, call.id, ready.arguments)
                result = await host.call(effect, partial(self._come_to, ready, here, effect))
            else:
                result = await self._see_through(ready, here)
        finally:
            here.leave()
        self.answer(call, result, time.monotonic() - began)

    async def _come_to(self, ready: _Prepared, here: Place, effect: Effect) -> ToolResultContent:
        """Run a call, unless it is refused, or it was run before."""
        if time.monotonic() >= self.deadline:  # nobody is asked for nothing
            return _too_late(ready)
        if ready.tool.approve and (no := await self._refusal(ready, here)):
            return error_result(effect.id, no)
        if ready.tool.guarded:
            return await self.place.host.guard(effect, partial(self._see_through, ready, here))
        return await self._see_through(ready, here)

    async def _refusal(self, ready: _Prepared, here: Place) -> str | None:
        patience = self.deadline - time.monotonic()
        return await refusal(ready.tool, ready.arguments, here, seconds=patience)

    async def _see_through(self, ready: _Prepared, here: Place) -> ToolResultContent:
        tool, began = ready.tool, time.monotonic()
        if began >= self.deadline:
            return _too_late(ready)
        patience = min(tool.timeout or math.inf, self.deadline - began)
        errand = _start(ready, here)
        try:
            in_time = await errand.wait(patience)
            if not in_time:
                await _stop(errand, tool)
        except anyio.get_cancelled_exc_class():
            if not errand.ended:
                await _stop(errand, tool)
            elif not errand.cancelled and not self._is_left:
                # It ended a moment before, and what ended has a result.
                self.answer(ready.call, _result(ready, errand, here), time.monotonic() - began)
            raise
        if self._is_left:  # it waited for the model, so it has ended for being told to
            raise Left
        return _result(ready, errand, here, late_after=None if in_time else patience)

    @property
    def _is_left(self) -> bool:
        host = self.place.host
        return host.suspends and host.is_left()

    def answer(self, call: ToolUseContent, result: ToolResultContent, seconds: float) -> None:
        """Note the result of ``call``."""
        self.results[call.id] = result
        self.journal.note(ToolEnded, self.run, self.place.key, call, result, seconds)


def _too_late(ready: _Prepared) -> ToolResultContent:
    return error_result(ready.call.id, "Not run: the time is up.")


def _start(ready: _Prepared, here: Place) -> Stray:
    token = HERE.set(here)
    try:
        tool, arguments = ready.tool, ready.arguments
        if tool.waits:
            return stray(work_of(tool.fn, arguments, is_async=tool.is_async))
        return at_once(tool.fn, arguments)
    finally:
        HERE.reset(token)


async def _stop(errand: Stray, tool: Tool) -> None:
    if not await errand.stop(tool.grace):
        log().warning(
            "tool_left_behind", tool=tool.name, grace=tool.grace, left_behind=left_behind()
        )


def _result(
    ready: _Prepared, errand: Stray, here: Place, *, late_after: float | None = None
) -> ToolResultContent:
    id, tool = ready.call.id, ready.tool
    finished = errand.ended and not errand.cancelled and errand.error is None
    if late_after is not None and not finished:
        late = f"Timed out after {late_after:.3g} s."
        if not errand.ended or not tool.is_async:
            late += " It could not be stopped: it may still be at work."
        result = error_result(id, late)
    elif errand.cancelled:
        result = error_result(id, "The tool cancelled itself.")
    elif errand.error is not None:
        result = error_result(id, _explain(tool, errand.error))
    else:
        result = _written(id, tool, errand.value)
    errand.error = None  # in its traceback is all that the tool had, and the errand itself
    if here.spent is None:
        return result
    return result.model_copy(update={"meta": with_usage(result.meta, here.spent)})


def _written(id: str, tool: Tool, value: Any) -> ToolResultContent:
    try:
        return to_result(id, value, max_bytes=tool.max_bytes, max_media_bytes=tool.max_media_bytes)
    except NotWritable as error:
        return error_result(id, str(error))
    except Exception as error:  # noqa: BLE001  a serializer of the author's failed
        return error_result(id, _explain(tool, error))


def _explain(tool: Tool, error: BaseException) -> str:
    """What the model is told of an exception. Its text may hold secrets: only the type is told."""
    inner = cast("Sequence[BaseException]", getattr(error, "exceptions", ()))
    if len(inner) == 1:  # a task group's way to raise what its one task raised
        return _explain(tool, inner[0])
    if isinstance(error, ToolError | AgentLoopError):
        return _text(error) or type(error).__name__
    told = {"exc_info": error} if tool.reveal_errors else {"at": where(error)}
    log().warning("tool_failed", tool=tool.name, error_type=type(error).__name__, **told)
    if tool.reveal_errors:
        return f"{type(error).__name__}: {_text(error)}"
    return f"The tool failed with {type(error).__name__}."


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001  an exception may also fail to say what it is
        return ""
