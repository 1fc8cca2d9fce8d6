"""``agentloop eval --record`` and ``--replay``: recorded cases, run again without a model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import anyio

from agentloop.agent import Agent
from agentloop.cli import FAILED
from agentloop.cli._eval_run import wanted
from agentloop.cli._run import STAND_IN
from agentloop.cli._terminal import remark, safe, stdout_for_answers
from agentloop.errors import DefinitionError
from agentloop.evals.candidates import candidates
from agentloop.evals.case import Case, file_name, numbered
from agentloop.evals.evaluation import Evaluation
from agentloop.testing.regression import Recording, TranscriptChanged, recordings
from agentloop.testing.regression import record as record_run


def record(options: argparse.Namespace) -> int:
    """Run each case once and record it; one line for each."""
    folder = Path(options.record)
    lines: dict[str, str] = {}

    async def go() -> None:
        async with wanted(options) as evaluation:
            cases = numbered(evaluation.cases)
            given = options.provider or evaluation.providers or _agent(evaluation).provider
            if not given:
                given = STAND_IN
                remark("No model is configured: what is recorded is a stand-in.")
            async with candidates(given, ("direct",)) as chosen:
                limiter = anyio.CapacityLimiter(options.concurrency)
                async with anyio.create_task_group() as group:
                    for case in cases:
                        group.start_soon(one, evaluation, case, chosen[0], limiter)

    async def one(evaluation: Evaluation, case: Case, candidate: Any, limiter: Any) -> None:
        async with limiter, candidate.answering(case) as provider:
            result = await record_run(
                _agent(evaluation, case),
                case.prompt,
                provider=provider,
                file=folder / f"{file_name(case.id)}.json",
                evaluation=options.file,
            )
            lines[case.id] = result.story()

    with stdout_for_answers():
        anyio.run(go, backend=options.backend)
    for name, story in sorted(lines.items()):
        print(safe(f"{name}: {story}"))
    return 0


def replay(options: argparse.Namespace) -> int:
    """Check every recording; one line for each, and more for what changed."""
    found = recordings(options.replay)
    options.file = options.file or next((r.made_by for r in found if r.made_by), None)
    if not options.file:
        raise DefinitionError(f"the recordings in {options.replay} do not say of what: add FILE")
    changed: dict[str, str] = {}

    async def go() -> None:
        async with wanted(options) as evaluation:
            for recording in found:
                await one(evaluation, recording)

    async def one(evaluation: Evaluation, recording: Recording) -> None:
        case = Case(recording.prompt, id=str(recording))
        try:
            await recording.check(_agent(evaluation, case))
        except TranscriptChanged as error:
            changed[str(recording)] = str(error)

    with stdout_for_answers():
        anyio.run(go, backend=options.backend)
    for recording in found:
        print(safe(changed.get(str(recording), f"{recording}: as recorded")))
    print(f"{len(found) - len(changed)} of {len(found)} are as recorded")
    return FAILED if changed else 0


def _agent(evaluation: Evaluation, case: Case | None = None) -> Agent[Any]:
    agent = evaluation.agent
    if isinstance(agent, Agent):
        return agent  # pyright: ignore[reportUnknownVariableType]
    if case is None:
        raise DefinitionError("say with --provider who answers")
    return agent(case)
