"""From the options of ``agentloop eval`` to a report."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import sys
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import anyio

from agentloop.agent import Agent
from agentloop.cli import _options
from agentloop.cli._eval_progress import progress
from agentloop.cli._load import load, opened
from agentloop.cli._run import STAND_IN
from agentloop.cli._terminal import remark, stdout_for_answers
from agentloop.errors import DefinitionError
from agentloop.evals import Budget, Case, Evaluation, Price, Report, evaluate, judge, read_cases
from agentloop.evals import scorers as built_in
from agentloop.evals.evaluation import AgentOf
from agentloop.evals.score import Scorer

FUNCTION = "evaluation"
"""What the function in FILE is called, where nothing else is said."""


def run(options: argparse.Namespace) -> Report:
    """Evaluate. Raises :class:`DefinitionError` for what cannot work."""
    if find_spec(options.backend) is None:
        raise DefinitionError(f"--backend {options.backend}: try: pip install {options.backend}")
    budget, prices = budget_of(options.budget), prices_of(options.price)
    limits = _options.pairs("--limit", options.limit)
    folder: list[Path] = []

    async def go() -> Report:
        async with wanted(options) as evaluation:
            agent = evaluation.agent
            if limits:
                agent = _limited(agent, limits)
            out = Path(options.out) if options.out else new_folder(agent)
            folder.append(out)
            with progress(quiet=options.quiet) as on_progress:
                return await evaluate(
                    agent,
                    evaluation.cases,
                    scorers=evaluation.scorers,
                    providers=_providers(options, evaluation),
                    repeat=options.repeat,
                    concurrency=options.concurrency,
                    carriers=tuple(options.carrier or ("direct",)),
                    limits=None if limits else evaluation.limits,
                    budget=budget,
                    prices={**evaluation.prices, **prices},
                    user=evaluation.user,
                    folder=out,
                    retry=options.retry,
                    on_progress=on_progress,
                )

    try:
        with stdout_for_answers():
            return anyio.run(go, backend=options.backend)
    except (KeyboardInterrupt, BaseExceptionGroup):
        if folder and folder[0].exists():
            remark(f"What ran is kept. Go on with the same command and --out {folder[0]}")
        raise


@asynccontextmanager
async def wanted(options: argparse.Namespace) -> AsyncGenerator[Evaluation]:
    """What is to be evaluated. Raises :class:`DefinitionError`."""
    arguments = _options.pairs("--arg", options.arg)
    if options.file.endswith((".jsonl", ".ndjson")):
        if not options.agent:
            raise DefinitionError(f"{options.file} holds cases: say with --agent who is asked")
        cases = read_cases(options.file)
        scorers = _scorers(options, cases)
        async with opened(options.agent, load(options.agent, arguments)) as agent:
            yield Evaluation(agent, cases, scorers)
        return
    spec = options.file if _names_something(options.file) else f"{options.file}:{FUNCTION}"
    if options.agent or options.scorer:
        raise DefinitionError(f"--agent and --scorer are for cases in JSONL; {spec} says its own")
    async with AsyncExitStack() as stack:
        with redirect_stdout(sys.stderr):
            loaded = load(spec, arguments)
            if inspect.isawaitable(loaded):
                loaded = await loaded
            if hasattr(loaded, "__aenter__"):
                loaded = await stack.enter_async_context(loaded)
        yield _checked(spec, loaded)


def _checked(spec: str, loaded: object) -> Evaluation:
    if isinstance(loaded, Agent):
        raise DefinitionError(
            f"{spec} is an agent: evaluate it over cases with eval CASES.jsonl --agent {spec}"
        )
    if not isinstance(loaded, Evaluation):
        raise DefinitionError(f"{spec} gives no Evaluation, but: {type(loaded).__name__}")
    return loaded


def budget_of(given: Sequence[str]) -> Budget:
    """``--budget`` as a budget. Raises :class:`DefinitionError`."""
    values: dict[str, Any] = {}
    names = [field.name for field in dataclasses.fields(Budget)]
    for name, text in _options.pairs("--budget", given).items():
        if name not in names:
            raise DefinitionError(f"there is no budget {name!r}; there are: {', '.join(names)}")
        values[name] = _amount("--budget", f"{name}={text}", text)
    return Budget(**values)


def prices_of(given: Sequence[str]) -> dict[str, Price]:
    """``--price`` as prices by provider. Raises :class:`DefinitionError`."""
    prices: dict[str, Price] = {}
    for item in given:
        name, _, both = item.rpartition("=")
        read, slash, written = both.partition("/")
        if not name or not slash:
            raise DefinitionError(f"--price {item}: write it as --price SPEC=IN/OUT")
        prices[name] = Price(_amount("--price", item, read), _amount("--price", item, written))
    return prices


def new_folder(agent: Any) -> Path:
    """A folder for results that is not there yet."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", getattr(agent, "name", "agent"))
    return Path("evals") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"


def _names_something(spec: str) -> bool:
    """Whether ``spec`` says which function of a file, not only which file."""
    home, colon, name = spec.rpartition(":")
    return bool(colon and home and not name.endswith(".py"))


def _amount(option: str, item: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not value >= 0:
        raise DefinitionError(f"{option} {item}: {text!r} is not an amount")
    return value


def _limited(agent: AgentOf, limits: Mapping[str, str]) -> AgentOf:
    if isinstance(agent, Agent):
        return _options.limited(cast("Agent[Any]", agent), limits)

    def limited(case: Case) -> Agent[Any]:
        return _options.limited(agent(case), limits)

    return limited


def _scorers(options: argparse.Namespace, cases: Sequence[Case]) -> list[Scorer]:
    names: list[str] = list(options.scorer or ())
    if not names and any(case.expected is not None for case in cases):
        names = ["contains"]
    scorers: list[Scorer] = []
    for name in dict.fromkeys(names):
        if name != "judge":
            scorers.append(getattr(built_in, name)())
        elif not options.judge:
            raise DefinitionError("--scorer judge needs a model to ask: --judge SPEC")
        else:
            scorers.append(judge(provider=_options.provider_of(options.judge)))
    return scorers


def _providers(options: argparse.Namespace, evaluation: Evaluation) -> Any:
    if options.provider:
        return options.provider
    own = getattr(evaluation.agent, "provider", None)
    if evaluation.providers or own is not None:
        return evaluation.providers
    if not options.quiet:
        remark(
            "No model is configured: a stand-in answers that is no language model "
            "(--provider SPEC for a real one)."
        )
    return STAND_IN
