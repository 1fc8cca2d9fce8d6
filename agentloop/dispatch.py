"""A turn's tool calls: prepared in order, run together, answered in order."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import anyio
import structlog
from mcp_types import ToolResultContent, ToolUseContent

from agentloop.errors import AgentLoopError, ToolError
from agentloop.events import Sink, ToolEnded, ToolStarted, tell
from agentloop.meta import with_usage
from agentloop.place import HERE, Place
from agentloop.results import error_result, to_result
from agentloop.run import Run
from agentloop.schema import ArgumentsInvalid
from agentloop.threads import in_thread
from agentloop.tools import Tool, Toolbox


@dataclass(frozen=True, slots=True)
class _Prepared:
    call: ToolUseContent
    tool: Tool
    arguments: dict[str, Any]


async def dispatch(
    calls: Sequence[ToolUseContent],
    toolbox: Toolbox,
    *,
    run: Run,
    place: Place,
    results: dict[str, ToolResultContent],
    sink: Sink | None,
) -> None:
    """Run ``calls`` and put the result of each into ``results``, by its id, as it comes.

    Raises nothing but cancellation; then ``results`` holds what finished before.
    """
    prepared: list[_Prepared] = []
    for call in calls:
        ready = _prepare(call, toolbox)
        if isinstance(ready, _Prepared):
            prepared.append(ready)
        else:
            tell(sink, ToolStarted(run, place.key, call))
            results[call.id] = ready
            tell(sink, ToolEnded(run, place.key, call, ready, 0.0))

    async def perform(ready: _Prepared) -> None:
        call = ready.call
        began = time.monotonic()
        tell(sink, ToolStarted(run, place.key, call))
        result = await _perform(ready, place)
        results[call.id] = result
        tell(sink, ToolEnded(run, place.key, call, result, time.monotonic() - began))

    together = [ready for ready in prepared if not ready.tool.exclusive]
    if len(together) == 1:
        await perform(together[0])
    elif together:
        queue = iter(together)

        async def worker(queue: Iterator[_Prepared]) -> None:
            for ready in queue:
                await perform(ready)

        async with anyio.create_task_group() as group:
            for _ in range(min(len(together), run.definition.limits.parallel)):
                group.start_soon(worker, queue)
    for ready in prepared:
        if ready.tool.exclusive:
            await perform(ready)


def _prepare(call: ToolUseContent, toolbox: Toolbox) -> _Prepared | ToolResultContent:
    tool = toolbox.get(call.name)
    if tool is None:
        names = ", ".join(toolbox.nearest(call.name)) or "none"
        return error_result(
            call.id, f"There is no tool {call.name!r}. Tools with near names: {names}."
        )
    try:
        return _Prepared(call, tool, tool.check(call.input))
    except ArgumentsInvalid as error:
        return error_result(call.id, f"Not run, the arguments do not fit: {error}")
    except Exception as error:  # noqa: BLE001  a validator of the author's failed
        return error_result(call.id, _explain(tool, error))


async def _perform(ready: _Prepared, place: Place) -> ToolResultContent:
    """The result of one call, whatever happens in it but a cancellation of the run."""
    call, tool = ready.call, ready.tool
    here = place.below(call.id)
    token = HERE.set(here)
    scope = anyio.move_on_after(tool.timeout)
    try:
        with scope:
            value = await _invoke(tool, ready.arguments)
            result = to_result(call.id, value, max_bytes=tool.max_bytes)
            if here.spent is not None:
                result.meta = with_usage(result.meta, here.spent)
            return result
        return error_result(call.id, f"Timed out after {tool.timeout:g} s.")
    except anyio.get_cancelled_exc_class():
        if _is_cancelled(scope):
            raise
        return error_result(call.id, "The tool cancelled itself.")
    except BaseException as error:
        if _is_interrupt(error):
            raise
        return error_result(call.id, _explain(tool, error))
    finally:
        HERE.reset(token)
        here.leave()


async def _invoke(tool: Tool, arguments: dict[str, Any]) -> Any:
    if tool.is_async:
        return await tool.fn(**arguments)
    value = await in_thread(tool.fn, arguments)
    return await value if inspect.isawaitable(value) else value


def _is_cancelled(scope: anyio.CancelScope) -> bool:
    """Whether somebody cancels this task, as opposed to a tool that raised the exception itself."""
    if scope.cancel_called or anyio.current_effective_deadline() == float("-inf"):
        return True
    task = _asyncio_task()
    return task is not None and task.cancelling() > 0


def _asyncio_task() -> Any:
    import asyncio

    try:
        return asyncio.current_task()
    except RuntimeError:  # trio
        return None


def _is_interrupt(error: BaseException) -> bool:
    """Whether ``error`` may be a person's Ctrl-C: trio raises it in whatever code runs."""
    return isinstance(error, KeyboardInterrupt) and _asyncio_task() is None


def _explain(tool: Tool, error: BaseException) -> str:
    """What the model is told of an exception. Its text may hold secrets: only the type is told."""
    inner = cast("Sequence[BaseException]", getattr(error, "exceptions", ()))
    if len(inner) == 1:  # a task group's way to raise what its one task raised
        return _explain(tool, inner[0])
    if isinstance(error, ToolError | AgentLoopError):
        return str(error) or type(error).__name__
    structlog.get_logger("agentloop").warning(
        "tool_failed", tool=tool.name, error_type=type(error).__name__, exc_info=error
    )
    if tool.reveal_errors:
        return f"{type(error).__name__}: {error}"
    return f"The tool failed with {type(error).__name__}."
