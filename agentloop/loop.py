"""Drive a run to its end: ask, call, ask again."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import anyio
import structlog
from mcp_types import CreateMessageRequestParams, ToolResultContent, ToolUseContent

from agentloop.dispatch import dispatch
from agentloop.errors import DeniedError, ProviderError
from agentloop.events import AskEnded, AskStarted, Sink, tell
from agentloop.place import Place
from agentloop.provider import Provider
from agentloop.run import Ask, Run, Stop, called, close, fail, pending, sampled, stop
from agentloop.tools import Toolbox


@dataclass(frozen=True, slots=True)
class Driver:
    """Everything that a run needs from outside while it runs."""

    provider: Provider
    toolbox: Toolbox
    place: Place
    sink: Sink | None
    keep: Callable[[Run], None]
    """Told of the run after every change, also when it is cancelled."""

    async def drive(self, run: Run, *, resumed: bool = False) -> Run:
        """Drive ``run`` until it has a stop. Raises nothing but cancellation.

        ``resumed`` says that what it waits for was begun before it was suspended.
        """
        while (wanted := pending(run := self._in_bounds(run))) is not None:
            if isinstance(wanted, Ask):
                if not resumed:
                    tell(self.sink, AskStarted(run, self.place.key))
                run = await self._ask(run, wanted.request)
            else:
                run = await self._call(run, wanted.calls)
            self.keep(run)
            resumed = False
        return run

    def _in_bounds(self, run: Run) -> Run:
        """The run as it may go on: the caller may grant only so many more asks."""
        if run.stop is not None or run.messages[-1].role == "assistant":
            return run
        room = self.place.host.room(self.place.key, run)
        if room is None or room > 1:
            return run
        run = close(run, Stop.ROUNDS) if room == 1 else stop(run, Stop.ROUNDS)
        self.keep(run)
        return run

    async def _ask(self, run: Run, request: CreateMessageRequestParams) -> Run:
        limits = run.definition.limits
        left = None if limits.seconds is None else limits.seconds - run.seconds
        patience = _least(left, limits.ask_seconds)
        began = time.monotonic()
        try:
            with anyio.move_on_after(patience) as self.place.patience:
                reply = await self.provider.sample(request)
                seconds = time.monotonic() - began
                run = sampled(run, reply, seconds=seconds)
                tell(self.sink, AskEnded(run, self.place.key, reply, seconds))
                return run
        except ProviderError as error:
            why = Stop.DENIED if isinstance(error, DeniedError) else Stop.FAILED
            spent = time.monotonic() - began
            return fail(run, f"{error.code}: {error}", stop=why, seconds=spent)
        except Exception as error:  # noqa: BLE001  a provider that breaks its contract ends the run, with its transcript
            structlog.get_logger("agentloop").warning(
                "provider_broke_its_contract", provider=self.provider.name, exc_info=error
            )
            what = f"provider: {self.provider.name} raised {type(error).__name__}"
            return fail(run, what, seconds=time.monotonic() - began)
        spent = time.monotonic() - began
        if left is not None and left <= patience:
            return fail(
                run, "seconds: the time was up before the model answered", stop=Stop.SECONDS
            )
        return fail(run, f"timeout: no answer within {patience:g} s", seconds=spent)

    async def _call(self, run: Run, calls: tuple[ToolUseContent, ...]) -> Run:
        limits = run.definition.limits
        left = math.inf if limits.seconds is None else limits.seconds - run.seconds
        results: dict[str, ToolResultContent] = {}
        began = time.monotonic()
        try:
            with anyio.move_on_after(left) as scope:
                await dispatch(
                    calls,
                    self.toolbox,
                    run=run,
                    place=self.place,
                    results=results,
                    sink=self.sink,
                )
        except BaseException:
            self.keep(called(run, results, seconds=time.monotonic() - began))
            raise
        run = called(run, results, seconds=time.monotonic() - began)
        return stop(run, Stop.SECONDS) if scope.cancelled_caught else run


def _least(a: float | None, b: float | None) -> float:
    return min(math.inf if a is None else a, math.inf if b is None else b)
