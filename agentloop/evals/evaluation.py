"""Evaluate an agent: every case, with every candidate, as often as it takes to be sure."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from agentloop._version import __version__
from agentloop.agent import Agent
from agentloop.branches import gather
from agentloop.errors import DefinitionError, StateError
from agentloop.evals.budget import Budget, Price
from agentloop.evals.candidates import Candidate, Providers, candidates
from agentloop.evals.case import Case, Cases, numbered, plain
from agentloop.evals.report import Report
from agentloop.evals.results import Header, Results, transcript_name
from agentloop.evals.score import Scorer, answer_of, check_expectations, named, score_all
from agentloop.evals.trial import Key, Trial
from agentloop.place import User
from agentloop.testing.carry import Carrier, carry
from agentloop.usage import Limits

AgentOf = Agent[Any] | Callable[[Case], Agent[Any]]
"""An agent, or a function that gives one for a case."""

Scorers = Sequence[Scorer] | Mapping[str, Scorer]
"""Scorers by their own names, or by names of your choice."""


@dataclass(frozen=True)
class Evaluation:
    """What is to be evaluated: what a file gives to ``agentloop eval``.

    The file holds a function that gives one, or the thing itself: called, it gives itself.
    """

    agent: AgentOf
    cases: Cases
    scorers: Scorers = ()
    providers: Providers = ()
    """By default the agent's own."""
    prices: Mapping[str, Price] = field(default_factory=dict[str, Price])
    """What tokens cost, by the providers' names."""
    limits: Limits | None = None
    """Of one run; by default the agent's own."""
    user: User | None = None
    """Answers for the person, where tools ask for approval or for values."""

    def __call__(self) -> Evaluation:
        return self


async def evaluate(
    agent: AgentOf,
    cases: Cases,
    *,
    providers: Providers = (),
    scorers: Scorers = (),
    repeat: int = 1,
    concurrency: int = 10,
    carriers: Sequence[Carrier] = ("direct",),
    limits: Limits | None = None,
    budget: Budget | None = None,
    prices: Mapping[str, Price] | None = None,
    user: User | None = None,
    folder: str | Path | None = None,
    retry: bool = False,
    on_progress: Callable[[Report], None] | None = None,
) -> Report:
    """Run ``agent`` on every case with every provider, ``repeat`` times, and score the answers.

    At most ``concurrency`` runs go on at the same time. With a ``folder`` results and transcripts
    are kept as they come, and what is there already is not run again, however the evaluation
    ended; with ``retry``, trials that failed or could not be scored are. ``on_progress`` is told
    of the report at the beginning and after each trial.

    Raises :class:`DefinitionError` for what cannot work and :class:`StateError` where the results
    in ``folder`` are of something else. What goes wrong in a run is in its trial.
    """
    known, by_name = _checked(cases, scorers, repeat, concurrency)
    async with candidates(providers or _own_provider(agent), carriers) as chosen:
        with Results(folder) as results:
            results.begin(_header(agent, known, chosen, by_name, repeat))
            sitting = _Sitting(
                agent=agent,
                scorers=by_name,
                limits=limits,
                budget=budget or Budget(),
                prices=prices or {},
                user=user,
                results=results,
                report=Report.of(results.headers, results.folder),
                on_progress=on_progress or (lambda report: None),
            )
            todo = list(_todo(known, chosen, repeat, results, retry=retry))
            return await sitting.go(todo, concurrency)


def _checked(
    cases: Cases, scorers: Scorers, repeat: int, concurrency: int
) -> tuple[list[Case], dict[str, Scorer]]:
    if repeat < 1 or concurrency < 1:
        raise DefinitionError("repeat and concurrency are whole numbers of at least 1")
    known, by_name = numbered(cases), named(scorers)
    check_expectations(by_name, known)
    return known, by_name


def _own_provider(agent: AgentOf) -> Providers:
    one = _one_agent(agent)
    return () if one is None or one.provider is None else one.provider


@dataclass(frozen=True, slots=True)
class _Todo:
    """A trial that is to be run."""

    case: Case
    candidate: Candidate
    number: int

    @property
    def key(self) -> Key:
        return self.case.id, self.candidate.name, self.number


@dataclass(kw_only=True)
class _Sitting:
    """One call of :func:`evaluate`: from what is there to what there should be."""

    agent: AgentOf
    scorers: Mapping[str, Scorer]
    limits: Limits | None
    budget: Budget
    prices: Mapping[str, Price]
    user: User | None
    results: Results
    report: Report
    on_progress: Callable[[Report], None]
    began: float = field(default_factory=time.monotonic)
    tokens: int = 0
    cost: float = 0.0

    async def go(self, todo: Sequence[_Todo], concurrency: int) -> Report:
        """Run the trials in ``todo`` and report on all there are."""
        again = {item.key for item in todo}
        for trial in self.results.trials.values():
            self._count(trial)
            if trial.key not in again:
                self.report.trials.append(trial)
        self.on_progress(self.report)
        queue = iter(todo)
        await gather(*(self._work(queue) for _ in range(min(concurrency, len(todo)))))
        self.report.sort()
        return self.report

    async def _work(self, queue: Iterator[_Todo]) -> None:
        """Take trials from the queue as long as there are some, and the budget lasts."""
        for item in queue:
            if self._spent():
                return
            trial = await self._trial(item)
            self.results.add(trial)
            self._count(trial)
            self.report.trials.append(trial)
            self.report.ran += 1
            self.report.spent = time.monotonic() - self.began
            self.on_progress(self.report)

    def _spent(self) -> bool:
        seconds = time.monotonic() - self.began
        why = self.budget.spent(tokens=self.tokens, cost=self.cost, seconds=seconds)
        self.report.stopped = self.report.stopped or why
        return why is not None

    def _count(self, trial: Trial) -> None:
        self.tokens += trial.tokens
        self.cost += trial.cost or 0.0

    async def _trial(self, item: _Todo) -> Trial:
        case, candidate = item.case, item.candidate
        agent = _agent_for(case, self.agent)
        transcript = self.results.transcript(candidate.name)
        at, began = time.time(), time.monotonic()
        async with candidate.answering(case) as provider:
            result = await carry(
                _limited(agent, self.limits),
                case.prompt,
                provider=provider,
                carrier=candidate.carrier,
                on_event=transcript,
                user=self.user,
            )
            seconds = time.monotonic() - began
        trial = Trial(
            case=case.id,
            candidate=candidate.name,
            number=item.number,
            prompt=plain(case.prompt),
            expected=plain(case.expected),
            answer=answer_of(result),
            scores=await score_all(self.scorers, result, case),
            stop=result.stop,
            error=result.error,
            steps=result.steps,
            tool_calls=result.run.tool_calls,
            seconds=round(seconds, 4),
            usage=result.usage,
            transcript=transcript_name(candidate.name) if transcript else None,
            run=result.run.id,
            at=round(at, 3),
        )
        return dataclasses.replace(trial, cost=self._cost(trial, candidate))

    def _cost(self, trial: Trial, candidate: Candidate) -> float | None:
        price = self.prices.get(candidate.label)
        costs = [score.cost for score in trial.scores.values()]
        known = [cost for cost in [price and price.of(trial.usage), *costs] if cost is not None]
        return sum(known) if known else None


def _header(
    agent: AgentOf,
    cases: Sequence[Case],
    chosen: Sequence[Candidate],
    scorers: Mapping[str, Scorer],
    repeat: int,
) -> Header:
    one = _one_agent(agent)
    return Header(
        agent=one.name if one else getattr(agent, "__name__", "agent"),
        digest=one.definition.digest if one else None,
        cases=[case.id for case in cases],
        candidates=[candidate.name for candidate in chosen],
        scorers=list(scorers),
        repeat=repeat,
        at=round(time.time(), 3),
        by=__version__,
    )


def _todo(
    cases: Sequence[Case],
    chosen: Sequence[Candidate],
    repeat: int,
    results: Results,
    *,
    retry: bool,
) -> Iterator[_Todo]:
    """The trials that are wanted and not there. Raises :class:`StateError` where a case of which
    there are results has changed."""
    for number in range(1, repeat + 1):
        for case in cases:
            for candidate in chosen:
                item = _Todo(case, candidate, number)
                kept = results.trials.get(item.key)
                if kept is not None:
                    _check_same(case, kept, results)
                if kept is None or (retry and kept.failed):
                    yield item


def _check_same(case: Case, kept: Trial, results: Results) -> None:
    if (plain(case.prompt), plain(case.expected)) != (kept.prompt, kept.expected):
        raise StateError(
            f"case {case.id!r} has changed since the results in {results.folder}: keep these "
            "results elsewhere, or give the case another id"
        )


def _one_agent(agent: AgentOf) -> Agent[Any] | None:
    """The agent that all cases have, if there is one."""
    return cast("Agent[Any]", agent) if isinstance(agent, Agent) else None


def _agent_for(case: Case, agent: AgentOf) -> Agent[Any]:
    return cast("Agent[Any]", agent) if isinstance(agent, Agent) else agent(case)


def _limited(agent: Agent[Any], limits: Limits | None) -> Agent[Any]:
    if limits is None:
        return agent
    changed = copy.copy(agent)
    changed.definition = dataclasses.replace(agent.definition, limits=limits)
    return changed
