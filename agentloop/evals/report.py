"""What an evaluation came to."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentloop.evals.intervals import Estimate, estimate
from agentloop.evals.results import Header, read
from agentloop.evals.trial import Trial
from agentloop.run import Stop


@dataclass(frozen=True)
class Summary:
    """What all trials of one candidate come to."""

    candidate: str
    trials: list[Trial] = field(repr=False)
    score: Estimate | None
    """The mean over the cases; each case counts once, however often it was repeated."""
    scores: dict[str, Estimate | None]
    """The same for each scorer."""

    @property
    def right(self) -> int:
        """Trials with a full score."""
        return sum(trial.value == 1 for trial in self.trials)

    @property
    def failed(self) -> int:
        """Trials whose run failed, or that could not be scored."""
        return sum(trial.failed for trial in self.trials)

    @property
    def early(self) -> int:
        """Trials whose run ended early, on a limit for instance."""
        ended = (Stop.DONE, Stop.FAILED, Stop.DENIED)
        return sum(trial.stop not in ended for trial in self.trials)

    @property
    def tokens(self) -> int:
        return sum(trial.tokens for trial in self.trials)

    @property
    def estimated(self) -> bool:
        """Whether some of the tokens are an estimate."""
        return any(trial.usage.estimated for trial in self.trials)

    @property
    def cost(self) -> float | None:
        """None where the price is not known."""
        costs = [trial.cost for trial in self.trials if trial.cost is not None]
        return sum(costs) if costs else None

    @property
    def seconds(self) -> float:
        """Of one trial, the median."""
        return statistics.median(t.seconds for t in self.trials) if self.trials else 0.0

    @property
    def steps(self) -> float:
        """Of one trial, on average."""
        return statistics.fmean(t.steps for t in self.trials) if self.trials else 0.0

    def to_json(self) -> dict[str, Any]:
        return {
            "candidate": self.candidate,
            "trials": len(self.trials),
            "score": _estimate_to_json(self.score),
            "scores": {name: _estimate_to_json(e) for name, e in self.scores.items()},
            "right": self.right,
            "failed": self.failed,
            "early": self.early,
            "tokens": self.tokens,
            "estimated": self.estimated,
            "cost": self.cost,
            "median_seconds": round(self.seconds, 4),
            "mean_steps": round(self.steps, 2),
        }


@dataclass
class Report:
    """The trials of an evaluation, and what they come to; it may still be growing."""

    agent: str
    cases: list[str]
    """The ids of the cases, in order."""
    candidates: list[str]
    scorers: list[str]
    repeat: int
    at: float
    """When it began, in seconds since the epoch."""
    wanted: int
    """How many trials there should be."""
    trials: list[Trial] = field(default_factory=list[Trial], repr=False)
    folder: Path | None = None
    """Where the results are kept."""
    stopped: str | None = None
    """Why the evaluation ended early, where a budget was spent."""
    ran: int = 0
    """How many trials ran in this sitting."""
    spent: float = 0.0
    """How many seconds this sitting took."""

    @classmethod
    def read(cls, folder: str | Path) -> Report:
        """The report of the results in ``folder``. Raises :class:`DefinitionError`."""
        headers, trials = read(folder)
        path = Path(folder)
        report = cls.of(headers, path if path.is_dir() else path.parent)
        report.trials = list(trials.values())
        report.sort()
        return report

    @classmethod
    def of(cls, headers: Sequence[Header], folder: Path | None) -> Report:
        """An empty report on all that the sittings set out to do; the last one says how much."""
        last = headers[-1]
        return cls(
            agent=last.agent,
            cases=_union(header.cases for header in headers),
            candidates=_union(header.candidates for header in headers),
            scorers=last.scorers,
            repeat=last.repeat,
            at=headers[0].at,
            wanted=last.wanted,
            folder=folder,
        )

    def sort(self) -> None:
        """Put the trials in the order of the cases, the candidates and the repeats."""
        case_at = {name: n for n, name in enumerate(self.cases)}
        candidate_at = {name: n for n, name in enumerate(self.candidates)}
        self.trials.sort(key=lambda t: (case_at[t.case], candidate_at[t.candidate], t.number))

    @property
    def score(self) -> float | None:
        """The mean over all trials."""
        values = [trial.value for trial in self.trials if trial.value is not None]
        return statistics.fmean(values) if values else None

    @property
    def summaries(self) -> list[Summary]:
        """For each candidate what its trials come to."""
        return [summary(name, self.of_candidate(name), self.scorers) for name in self.candidates]

    def of_candidate(self, name: str) -> list[Trial]:
        """The trials of one candidate."""
        return [trial for trial in self.trials if trial.candidate == name]

    def table(self) -> str:
        """The report for a terminal, in plain text."""
        from agentloop.evals.table import table

        return table(self)

    def save_page(self, file: str | Path) -> None:
        """Write the report as one HTML page, which links the page of each transcript."""
        from agentloop.evals.page import save_page

        save_page(self, Path(file))

    def to_json(self) -> dict[str, Any]:
        """The summaries, and every trial."""
        return {
            "agent": self.agent,
            "cases": len(self.cases),
            "repeat": self.repeat,
            "wanted": self.wanted,
            "stopped": self.stopped,
            "candidates": [summary.to_json() for summary in self.summaries],
            "trials": [trial.to_json() for trial in self.trials],
        }


def summary(candidate: str, trials: Sequence[Trial], scorers: Sequence[str]) -> Summary:
    """What ``trials`` of one candidate come to."""
    by_case: dict[str, list[Trial]] = defaultdict(list)
    for trial in trials:
        by_case[trial.case].append(trial)
    cases = list(by_case.values())

    def of(scorer: str) -> Estimate | None:
        given = [[t.scores[scorer].value for t in case if scorer in t.scores] for case in cases]
        return estimate([[v for v in values if v is not None] for values in given])

    overall = estimate([[t.value for t in case if t.value is not None] for case in cases])
    return Summary(candidate, list(trials), overall, {name: of(name) for name in scorers})


def _estimate_to_json(value: Estimate | None) -> dict[str, float] | None:
    return {name: round(x, 6) for name, x in value._asdict().items()} if value else None


def _union(lists: Iterable[Sequence[str]]) -> list[str]:
    return list(dict.fromkeys(item for items in lists for item in items))
