"""A trial: one run of one case, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agentloop.evals.score import Score
from agentloop.run import Stop
from agentloop.usage import Usage

Key = tuple[str, str, int]
"""Which trial: the case's id, the candidate's name, and the trial's number among its repeats."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One run of one case by one candidate, and what came of it. All of it is JSON."""

    case: str
    candidate: str
    number: int
    """Counts the repeats of a case, from 1."""
    prompt: Any
    expected: Any = None
    answer: Any = None
    scores: Mapping[str, Score] = field(default_factory=dict[str, Score])
    stop: Stop = Stop.DONE
    error: str | None = None
    steps: int = 0
    tool_calls: int = 0
    seconds: float = 0.0
    usage: Usage = field(default_factory=Usage)
    cost: float | None = None
    """Of the run and of its judges, as far as the prices are known."""
    transcript: str | None = None
    """The file with the run's transcript, from the folder of the results."""
    run: str = ""
    """The run's id."""
    at: float = 0.0
    """When it began, in seconds since the epoch."""

    @property
    def key(self) -> Key:
        return self.case, self.candidate, self.number

    @property
    def value(self) -> float | None:
        """The mean of the scores, None where there are none."""
        values = [score.value for score in self.scores.values() if score.value is not None]
        return sum(values) / len(values) if values else None

    @property
    def failed(self) -> bool:
        """Whether the run failed, or a score could not be found out: worth another try."""
        unscored = any(score.value is None for score in self.scores.values())
        return unscored or self.stop in (Stop.FAILED, Stop.DENIED)

    @property
    def tokens(self) -> int:
        """Tokens of the run and of its judges."""
        judges = (score.usage for score in self.scores.values() if score.usage)
        return self.usage.total_tokens + sum(usage.total_tokens for usage in judges)

    def to_json(self) -> dict[str, Any]:
        """Everything; what is at its default is left out."""
        data: dict[str, Any] = {
            "case": self.case,
            "candidate": self.candidate,
            "number": self.number,
            "prompt": self.prompt,
            "answer": self.answer,
            "stop": str(self.stop),
            "steps": self.steps,
            "tool_calls": self.tool_calls,
            "seconds": self.seconds,
            "usage": self.usage.to_json(),
            "at": self.at,
            "run": self.run,
        }
        if self.scores:
            data["scores"] = {name: score.to_json() for name, score in self.scores.items()}
        for name in ("expected", "error", "cost", "transcript"):
            if (value := getattr(self, name)) is not None:
                data[name] = value
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Trial:
        """Read what :meth:`to_json` wrote. Raises ``LookupError``, ``TypeError`` or ``ValueError``
        where it is something else."""
        return cls(
            case=data["case"],
            candidate=data["candidate"],
            number=int(data["number"]),
            prompt=data["prompt"],
            expected=data.get("expected"),
            answer=data["answer"],
            scores={name: Score.from_json(s) for name, s in data.get("scores", {}).items()},
            stop=Stop(data["stop"]),
            error=data.get("error"),
            steps=data["steps"],
            tool_calls=data["tool_calls"],
            seconds=data["seconds"],
            usage=Usage.from_json(data["usage"]),
            cost=data.get("cost"),
            transcript=data.get("transcript"),
            at=data["at"],
            run=data["run"],
        )
