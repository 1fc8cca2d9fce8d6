"""An ordinary tool function, in which agents run wherever the model is."""

from __future__ import annotations

import functools
import inspect
import math
import sys
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar, overload

import anyio
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR, INVALID_PARAMS, InputRequiredResult

from agentloop.errors import (
    AgentLoopError,
    CapabilityError,
    DefinitionError,
    StateError,
    first_of,
    where,
)
from agentloop.events import Sink
from agentloop.log import log
from agentloop.mcp.alongside import alongside
from agentloop.mcp.handover import (
    HANDOVER,
    Continued,
    Handover,
    When,
    tasks_not_declared,
    with_setting,
)
from agentloop.mcp.input_limits import InputLimits
from agentloop.mcp.progress import Progress
from agentloop.mcp.push import PushProvider
from agentloop.mcp.request import REQUEST, Request, is_context, request_in
from agentloop.mcp.rounds import RoundsHost, Suspended
from agentloop.mcp.served import (
    DEFAULT_INPUT_LIMITS,
    LEAVE_SECONDS,
    MAX_WIRE_STATE,
    ServedHost,
    Serving,
    capability_refusal,
)
from agentloop.mcp.stored import detached, over_stored_rounds
from agentloop.mcp.stream import RETURN_SECONDS, STREAM_SECONDS
from agentloop.mcp.visit import not_cancelling_itself
from agentloop.place import HERE, Place
from agentloop.provider import Provider, check_provider
from agentloop.store import Store, StoreError, UnknownRoundError, check_store

P = ParamSpec("P")
T = TypeVar("T")


@overload
def resumable(function: Callable[P, Awaitable[T]], /) -> Callable[P, Awaitable[T]]: ...
@overload
def resumable(
    *,
    provider: Provider | None = None,
    store: Store | None = None,
    on_event: Sink | None = None,
    emulate: bool = False,
    max_state_bytes: int = MAX_WIRE_STATE,
    task: When = "when_needed",
    input_limits: InputLimits = DEFAULT_INPUT_LIMITS,
    stream_seconds: float | None = STREAM_SECONDS,
    leave_seconds: float = LEAVE_SECONDS,
) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Awaitable[T]]]: ...
def resumable(
    function: Callable[..., Any] | None = None,
    /,
    *,
    provider: Provider | None = None,
    store: Store | None = None,
    on_event: Sink | None = None,
    emulate: bool = False,
    max_state_bytes: int = MAX_WIRE_STATE,
    task: When = "when_needed",
    input_limits: InputLimits = DEFAULT_INPUT_LIMITS,
    stream_seconds: float | None = STREAM_SECONDS,
    leave_seconds: float = LEAVE_SECONDS,
) -> Callable[..., Any]:
    """Let agents inside an async tool function ask the client of the call.

    Put it under the host's own decorator::

        @server.tool()
        @resumable
        async def report(topic: str, ctx: Context) -> Report: ...

    The function must take its host's context (with FastMCP it need not), or be a low-level
    ``tools/call`` handler. Over rounds it is entered again from its first line at each round: what
    happens in it outside of agents happens again, unless it is wrapped in :func:`agentloop.once`.

    ``provider`` answers for clients that cannot be asked; ``on_event`` listens to all runs. With a
    ``store`` the state stays on the server, each round is entered once, and tools that must not
    run twice keep their promise over rounds. ``emulate`` asks clients that have ``sampling`` but
    not ``sampling.tools`` with the tools written into the prompt. Without a store, a call whose
    state would take more than ``max_state_bytes`` on the wire ends with an error that says so.
    ``task`` says when a call goes on as a task, on a server with
    :class:`~agentloop.mcp.tasks.Tasks` and for clients that can deal with them. Arguments and
    answers beyond ``input_limits`` are refused. A call of 2025-11-25 over HTTP closes its stream
    every ``stream_seconds`` where the host has an event store, so that nothing in between ends a
    long one; None for never. Over rounds the function is cancelled at the end of each round, and
    may take ``leave_seconds`` to clean up; one that takes longer fails, and is left behind.
    """
    check_provider(provider)
    check_store(store)
    if not 0 < leave_seconds < math.inf:
        raise DefinitionError(f"leave_seconds={leave_seconds!r} is no number of seconds above 0")
    serving = Serving(
        provider,
        store,
        on_event,
        emulate,
        max_state_bytes,
        task,
        input_limits,
        stream_seconds,
        leave_seconds,
    )

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        _check(function)

        @functools.wraps(function)
        async def served(*args: Any, **kwargs: Any) -> Any:
            request = request_in(args, kwargs)
            if request is None:
                raise DefinitionError(
                    f"{function.__name__} was not called by an MCP host, or takes no context"
                )
            if _is_served(request):  # by a loop, as a tool of the same server: part of that call
                return await function(*args, **kwargs)
            return await serve(request, functools.partial(function, *args, **kwargs), serving)

        return with_setting(served, lambda name: task)

    return wrap if function is None else wrap(function)


async def serve(request: Request, function: Callable[[], Awaitable[Any]], serving: Serving) -> Any:
    """Run ``function`` as the handler of ``request``: what it gives, or an InputRequiredResult.

    Raises ``MCPError`` where the client lacks a capability, sends too much, or brings a state that
    does not fit, and whatever ``function`` raises.
    """
    if (excess := serving.input_limits.excess(request)) is not None:
        raise MCPError(code=INVALID_PARAMS, message=excess, data={"reason": "input_too_large"})
    token = REQUEST.set(request)
    try:
        return await _with_progress(request, function, serving)
    except CapabilityError as error:
        raise capability_refusal(error) from error
    except (StateError, UnknownRoundError) as error:
        data = {"reason": "state_mismatch"}
        raise MCPError(code=INVALID_PARAMS, message=str(error), data=data) from error
    except StoreError as error:
        # No result: the call is not over, and goes on where the same request comes again.
        log().warning("store_failed", store=repr(serving.store), error=str(error))
        message = "What this call has come to cannot be reached; send the same request again later"
        data = {"reason": "store", "retryable": True}
        raise MCPError(code=INTERNAL_ERROR, message=message, data=data) from error
    except MCPError:
        raise
    except Exception as error:
        if not isinstance(request.context, ServerRequestContext):
            raise  # the host decides what its clients are told
        told = {"error": str(error)} if isinstance(error, AgentLoopError) else {}
        log().warning("handler_failed", error_type=type(error).__name__, at=where(error), **told)
        raise MCPError(code=INTERNAL_ERROR, message="Internal server error") from error
    finally:
        REQUEST.reset(token)


def _is_served(request: Request) -> bool:
    outer = REQUEST.get()
    return outer is not None and (outer.session, outer.id) == (request.session, request.id)


async def _with_progress(
    request: Request, function: Callable[[], Awaitable[Any]], serving: Serving
) -> Any:
    progress = Progress(request.session, serving.on_event)
    sink = progress if request.wants_progress else serving.on_event

    async def enter() -> Any:
        try:
            outcome = await _enter(request, function, serving, sink)
            await progress.flush()
            return outcome
        except ExceptionGroup as errors:
            raise first_of(errors, CapabilityError, StateError, StoreError) or errors from None

    async def enter_and_return() -> Any:
        try:
            return await enter()
        finally:
            with anyio.move_on_after(RETURN_SECONDS):
                await request.stream.open()

    try:
        seconds, wire = serving.stream_seconds, request.wire
        if seconds is None or wire.close_sse_stream is None:
            return await enter()
        return await alongside(
            lambda: request.stream.keep_short(wire, seconds, progress.beat), enter_and_return
        )
    finally:
        await progress.stop()


async def _enter(
    request: Request, function: Callable[[], Awaitable[Any]], serving: Serving, sink: Sink | None
) -> Any:
    if (running := request.running) is not None:
        store = serving.store or running.store
        return await over_stored_rounds(request, function, store, serving, sink)
    if serving.task in ("always", "required") and request.state is None:
        if (handover := HANDOVER.get()) is not None:
            return await _hand_over(handover, Continued(request.new_call()))
        if serving.task == "required":
            raise tasks_not_declared()
    if request.in_rounds:
        _check_sealed(request)
        return await _over_rounds(request, function, serving, sink)
    host = ServedHost(request, PushProvider(request), serving, sink)
    token = HERE.set(Place("", None, host))
    try:
        return await not_cancelling_itself(function)
    finally:
        HERE.reset(token)


async def _over_rounds(
    request: Request, function: Callable[[], Awaitable[Any]], serving: Serving, sink: Sink | None
) -> Any:
    handover = HANDOVER.get()
    if serving.store is not None:
        outcome = await over_stored_rounds(request, function, serving.store, serving, sink)
    else:
        host = RoundsHost(
            request, state=request.state, answers=request.answers, serving=serving, sink=sink
        )
        outcome = await host.run(function)
        if isinstance(outcome, Suspended):
            if not outcome.detached or handover is None:
                return _sent(outcome, serving)
            outcome = await detached(outcome, handover.store, keep=handover.keep)
    if not isinstance(outcome, Continued):
        return outcome
    if handover is None:
        raise StateError("this call went on as a task, and its client cannot deal with tasks now")
    return await _hand_over(handover, outcome)


async def _hand_over(handover: Handover, continued: Continued) -> InputRequiredResult:
    """Let the call go on as a task."""
    await handover.take(continued)
    return InputRequiredResult(request_state="a task")  # the client gets the task's handle instead


def _sent(suspended: Suspended, serving: Serving) -> InputRequiredResult:
    size, limit = len(suspended.state), serving.max_state_bytes
    if size <= limit:
        return suspended.result(suspended.state)
    raise MCPError(
        code=INTERNAL_ERROR,
        message=f"the state of this call takes {size} bytes, and at most {limit} cross the wire: "
        "the server needs a store, or tools that give less",
        data={"reason": "state_too_large"},
    )


def _check_sealed(request: Request) -> None:
    """Raises :class:`DefinitionError` where state would cross the wire unprotected."""
    declared = request.session.client_capabilities
    may_suspend = declared is not None and bool(declared.sampling or declared.elicitation)
    if not request.sealed and (may_suspend or request.state is not None):
        raise DefinitionError(
            "this server has no boundary that seals its requestState, so a client could change it "
            "(SEP-2322): call agentloop.mcp.seal(server) before it serves"
        )


def _check(function: Callable[..., Any]) -> None:
    if not inspect.iscoroutinefunction(function):
        raise DefinitionError(f"@resumable is for async functions; {function!r} is not one")
    if "fastmcp" in sys.modules:
        return  # it finds its context by itself
    try:
        signature = inspect.signature(function, eval_str=True)
    except NameError:
        return
    annotations = [p.annotation for p in signature.parameters.values()]
    if not any(is_context(annotation) for annotation in annotations):
        raise DefinitionError(
            f"@resumable: {function.__name__} takes no context; give it one, e.g. ctx: Context"
        )
