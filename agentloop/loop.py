"""Drive a run to its end: ask, call, ask again."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass

from mcp_types import CreateMessageRequestParams, ToolResultContent, ToolUseContent

from agentloop.dispatch import dispatch
from agentloop.errors import DeniedError, ProviderError, where
from agentloop.events import AskEnded, AskStarted, RunEnded, RunStarted, RunSuspended
from agentloop.intake import short
from agentloop.journal import Journal
from agentloop.log import log
from agentloop.machine import (
    ToolCalls,
    asking,
    called,
    close,
    fail,
    pending,
    sampled,
    stop,
    traced,
)
from agentloop.patience import Patience, granting
from agentloop.place import Place
from agentloop.provider import Provider
from agentloop.run import Run, Stop
from agentloop.secret import hidden
from agentloop.strays import told_to_stop
from agentloop.tools import Toolbox
from agentloop.trace import traceparent


@dataclass(slots=True)
class Driver:
    """Everything that a run needs from outside while it runs, and how far it has come."""

    provider: Provider
    toolbox: Toolbox
    place: Place
    journal: Journal
    latest: Run
    """The run after its last change, also when it is cancelled."""

    def keep(self, run: Run) -> None:
        """Note that the run has come as far as ``run``."""
        self.latest = run
        self.place.host.keep(self.place.key, run)

    async def drive(self, *, resumed: bool = False) -> Run:
        """Drive the run until it has a stop. Raises nothing but cancellation, and what its host
        raises where it cannot keep its promises.

        ``resumed`` says that what it waits for was begun before it was suspended.
        """
        run = self._begin(resumed)
        try:
            # One for all asks: an ask that takes too long ends the run, so it is not needed again.
            with granting() as patience:
                self.place.patience = patience
                while (wanted := pending(run)) is not None:
                    if isinstance(wanted, ToolCalls):
                        run = await self._call(run, wanted.calls)
                    elif self._bounded(run):
                        run = self.latest
                        continue
                    else:
                        run = await self._ask(run, wanted.request, patience, resumed)
                    self.keep(run)
                    resumed = False
            if run.stop is None:
                run = _unanswered(self.latest)
                self.keep(run)
        except BaseException:
            self._break_off()
            raise
        finally:
            self.place.charge(self.latest.usage)
        self.journal.note(RunEnded, run, self.place.key)
        return run

    def _begin(self, resumed: bool) -> Run:
        run, place = self.latest, self.place
        self.journal.note(RunStarted, run, place.key, resumed, place.within)
        # Whoever opens spans has opened one by now: where the run goes on elsewhere, it joins it.
        if run.trace is None and (trace := traceparent()):
            run = traced(run, trace)
        self.keep(run)
        return run

    def _break_off(self) -> None:
        if self.place.host.suspends:
            self.journal.note(RunSuspended, self.latest, self.place.key)
        else:
            self.journal.note(RunEnded, stop(self.latest, Stop.CANCELLED), self.place.key)

    def _bounded(self, run: Run) -> bool:
        """Whether the run may not ask as it would, since the caller grants only so many more asks.

        Then it is closing or has ended by now.
        """
        room = self.place.host.room(self.place.key, run)
        if room is None or room > 1:
            return False
        self.keep(close(run, Stop.ROUNDS) if room == 1 else stop(run, Stop.ROUNDS))
        return self.latest is not run

    async def _ask(
        self,
        run: Run,
        request: CreateMessageRequestParams,
        patience: Patience,
        resumed: bool,
    ) -> Run:
        if not resumed:
            if self.place.host.suspends:
                run = asking(run, at=time.time())
                self.keep(run)
                await self.place.host.before_ask(self.provider)
            self.journal.note(AskStarted, run, self.place.key, self.provider.name)
        waited = max(time.time() - run.asked, 0.0) if resumed and run.asked else 0.0
        clock = self.place.host.clock
        began = clock()
        patience.grant(_seconds_for_an_ask(run))
        try:
            reply = short(await self.provider.sample(request))
            seconds = clock() - began
            run = sampled(run, reply, seconds=seconds)
            seconds += waited
            self.journal.note(AskEnded, run, self.place.key, reply, seconds, self.provider.name)
            return run
        except ProviderError as error:
            why = Stop.DENIED if isinstance(error, DeniedError) else Stop.FAILED
            spent = clock() - began
            return fail(run, hidden(f"{error.code}: {error}"), stop=why, seconds=spent)
        except (Exception, asyncio.CancelledError) as error:  # a provider that breaks its contract
            if isinstance(error, asyncio.CancelledError) and told_to_stop():
                raise
            log().warning(
                "provider_broke_its_contract",
                provider=self.provider.name,
                error_type=type(error).__name__,
                at=where(error),
            )
            what = f"provider: {self.provider.name} raised {type(error).__name__}"
            return fail(run, what, seconds=clock() - began)
        finally:
            patience.lift()

    async def _call(self, run: Run, calls: tuple[ToolUseContent, ...]) -> Run:
        limits, clock = run.definition.limits, self.place.host.clock
        began = clock()
        patience = math.inf if limits.seconds is None else limits.seconds - run.seconds
        results: dict[str, ToolResultContent] = {}
        try:
            if self.place.host.suspends:
                await self.place.host.before_calls()
            await dispatch(
                calls,
                self.toolbox,
                run=run,
                place=self.place,
                results=results,
                journal=self.journal,
                deadline=time.monotonic() + patience,
            )
        except BaseException:
            self.keep(called(run, results, seconds=clock() - began))
            raise
        seconds = clock() - began
        run = called(run, results, seconds=seconds)
        return stop(run, Stop.SECONDS) if seconds >= patience else run


def _seconds_for_an_ask(run: Run) -> float:
    """Seconds that the next ask may take."""
    limits = run.definition.limits
    left = math.inf if limits.seconds is None else limits.seconds - run.seconds
    return min(left, math.inf if limits.ask_seconds is None else limits.ask_seconds)


def _unanswered(run: Run) -> Run:
    """The run after an ask that took all the time it might."""
    limits, patience = run.definition.limits, _seconds_for_an_ask(run)
    if limits.seconds is not None and limits.seconds - run.seconds <= patience:
        error = "seconds: the time was up before the model answered"
        return fail(run, error, stop=Stop.SECONDS, seconds=patience)
    return fail(run, f"timeout: no answer within {patience:g} s", seconds=patience)
