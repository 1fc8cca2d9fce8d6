"""Evaluate agents over cases: with any provider, in parallel, with scores, costs and a report."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentloop.evals.budget import Budget, Price
    from agentloop.evals.case import Case, read_cases
    from agentloop.evals.comparison import Comparison, compare
    from agentloop.evals.evaluation import Evaluation, evaluate
    from agentloop.evals.judging import judge
    from agentloop.evals.report import Report
    from agentloop.evals.score import Score, Scorer
    from agentloop.evals.scorers import contains, exact, json_match, regex
    from agentloop.evals.trial import Trial

__all__ = [
    "Budget",
    "Case",
    "Comparison",
    "Evaluation",
    "Price",
    "Report",
    "Score",
    "Scorer",
    "Trial",
    "compare",
    "contains",
    "evaluate",
    "exact",
    "json_match",
    "judge",
    "read_cases",
    "regex",
]

_HOME = {
    "Budget": "budget",
    "Case": "case",
    "Comparison": "comparison",
    "Evaluation": "evaluation",
    "Price": "budget",
    "Report": "report",
    "Score": "score",
    "Scorer": "score",
    "Trial": "trial",
    "contains": "scorers",
    "exact": "scorers",
    "json_match": "scorers",
    "read_cases": "case",
    "regex": "scorers",
    "compare": "comparison",
    "evaluate": "evaluation",
    "judge": "judging",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'agentloop.evals' has no attribute {name!r}")
    return getattr(import_module(f"agentloop.evals.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
