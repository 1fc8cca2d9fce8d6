"""Two candidates, case by case: which is better, on what, and is that more than chance?"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from agentloop.errors import DefinitionError
from agentloop.evals.intervals import Estimate, difference
from agentloop.evals.report import Report
from agentloop.evals.trial import Trial


class Change(NamedTuple):
    """A case whose score is not the same on both sides."""

    case: str
    before: float
    after: float


@dataclass(frozen=True)
class Comparison:
    """How candidate ``b`` does against candidate ``a``, on the cases that both have."""

    a: str
    b: str
    cases: int
    score: Estimate | None
    """By how much the score of ``b`` is higher, on average over the cases."""
    better: list[Change]
    """Cases on which ``b`` scores higher."""
    worse: list[Change]
    alike: int
    """Cases with the same answers, repeat by repeat, to the letter."""

    @property
    def same(self) -> int:
        """Cases with the same score."""
        return self.cases - len(self.better) - len(self.worse)

    @property
    def certain(self) -> bool:
        """Whether the difference is larger than chance explains, at 95 %."""
        return self.score is not None and not self.score.low <= 0 <= self.score.high

    def verdict(self) -> str:
        """The comparison in a few sentences, from the side of the one that does better."""
        if self.score is None:
            return f"{self.a} and {self.b} have no scored cases in common."
        if not self.better and not self.worse:
            alike = "the same answers" if self.alike == self.cases else "different answers"
            return f"{self.a} and {self.b} score the same on every case, with {alike}."
        up = self.score.mean >= 0
        first, second = (self.b, self.a) if up else (self.a, self.b)
        ahead, behind = (self.better, self.worse) if up else (self.worse, self.better)
        points = round(abs(self.score.mean) * 100)
        ends = sorted(round(end * 100 if up else -end * 100) for end in self.score[1:])
        how = f"{first} scores higher than {second}" if points else f"{first} scores like {second}"
        chance = "is more than chance explains" if self.certain else "may be chance"
        return (
            f"{how}: ahead on {_cases(len(ahead))}, behind on {len(behind)}, level on {self.same}. "
            f"The difference of {points} points {chance} (95 % interval {ends[0]} to {ends[1]})."
        )

    def brief(self) -> str:
        """The comparison in a line, from the side of ``b``."""
        if self.score is None:
            return f"{self.b}: no scored cases in common"
        low, mean, high = (round(self.score[i] * 100) for i in (1, 0, 2))
        chance = "" if self.certain else ", which may be chance"
        return (
            f"{self.b}: {mean:+d} points ({low:+d} to {high:+d}){chance}; "
            f"ahead on {_cases(len(self.better))}, behind on {len(self.worse)}"
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "a": self.a,
            "b": self.b,
            "cases": self.cases,
            "difference": self.score._asdict() if self.score else None,
            "certain": self.certain,
            "better": [change._asdict() for change in self.better],
            "worse": [change._asdict() for change in self.worse],
            "same": self.same,
            "alike": self.alike,
        }


def compare(a: str | Path | Report, b: str | Path | Report) -> list[Comparison]:
    """What changed from the results ``a`` to the results ``b``, folders or reports.

    Candidates of the same name are compared with each other; where each side has one only, these
    are. Raises :class:`DefinitionError` where that leaves nothing.
    """
    before, after = (r if isinstance(r, Report) else Report.read(r) for r in (a, b))
    return [
        compared(*names, before.of_candidate(x), after.of_candidate(y))
        for (x, y), names in _pairs(before, after).items()
    ]


def side_by_side(before: Report, after: Report) -> Report:
    """One report with what :func:`compare` compares, for a page of it."""
    trials: list[Trial] = []
    pairs = _pairs(before, after)
    for (x, y), (a, b) in pairs.items():
        trials += [_moved(trial, before, a) for trial in before.of_candidate(x)]
        trials += [_moved(trial, after, b) for trial in after.of_candidate(y)]
    report = Report(
        agent=before.agent,
        cases=list(dict.fromkeys([*before.cases, *after.cases])),
        candidates=[name for names in pairs.values() for name in names],
        scorers=[name for name in before.scorers if name in after.scorers],
        repeat=max(before.repeat, after.repeat),
        at=after.at,
        wanted=len(trials),
        trials=trials,
        folder=Path.cwd(),
    )
    report.sort()
    return report


def _pairs(before: Report, after: Report) -> dict[tuple[str, str], tuple[str, str]]:
    """Which candidate is compared with which, and what the two are called then."""
    pairs = {
        (name, name): (f"{name} before", f"{name} after")
        for name in before.candidates
        if name in after.candidates
    }
    if not pairs and len(before.candidates) == len(after.candidates) == 1:
        x, y = before.candidates[0], after.candidates[0]
        pairs = {(x, y): (x, y)}
    if not pairs:
        raise DefinitionError(
            f"there is nothing to compare: the one has results of {', '.join(before.candidates)}, "
            f"the other of {', '.join(after.candidates)}"
        )
    return pairs


def _moved(trial: Trial, report: Report, name: str) -> Trial:
    """``trial`` of a candidate of another name, with its transcript from the current folder."""
    transcript = trial.transcript
    if transcript is not None and report.folder is not None:
        transcript = os.path.relpath(report.folder / transcript)
    return replace(trial, candidate=name, transcript=transcript)


def compared_within(report: Report, to: str | None = None) -> list[Comparison]:
    """Each other candidate of a report against the one called ``to``, by default its first."""
    first = to or report.candidates[0]
    others = [name for name in report.candidates if name != first]
    mine = report.of_candidate(first)
    return [compared(first, other, mine, report.of_candidate(other)) for other in others]


def compared(a: str, b: str, before: Iterable[Trial], after: Iterable[Trial]) -> Comparison:
    """How the trials ``after``, of ``b``, do against those ``before``, of ``a``."""
    ours, theirs = _by_case(before), _by_case(after)
    common = [case for case in ours if case in theirs]
    scored: list[Change] = []
    for case in common:
        x, y = _mean(ours[case]), _mean(theirs[case])
        if x is not None and y is not None:
            scored.append(Change(case, x, y))
    return Comparison(
        a=a,
        b=b,
        cases=len(scored),
        score=difference([change.after - change.before for change in scored]),
        better=[change for change in scored if change.after > change.before],
        worse=[change for change in scored if change.after < change.before],
        alike=sum(_answers(ours[c.case]) == _answers(theirs[c.case]) for c in scored),
    )


def _by_case(trials: Iterable[Trial]) -> dict[str, list[Trial]]:
    found: dict[str, list[Trial]] = defaultdict(list)
    for trial in trials:
        found[trial.case].append(trial)
    return found


def _mean(trials: Sequence[Trial]) -> float | None:
    values = [trial.value for trial in trials if trial.value is not None]
    return sum(values) / len(values) if values else None


def _answers(trials: Sequence[Trial]) -> list[tuple[int, Any]]:
    return [(trial.number, trial.answer) for trial in trials]


def _cases(number: int) -> str:
    return "1 case" if number == 1 else f"{number} cases"
