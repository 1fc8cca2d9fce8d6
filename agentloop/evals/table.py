"""The report for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from agentloop.evals.comparison import Change, Comparison, compared_within
from agentloop.evals.intervals import Estimate
from agentloop.evals.report import Report, Summary

_MOST_CASES = 20
"""Changed cases that are listed for each pair."""


def table(report: Report) -> str:
    """What the candidates of ``report`` come to, and how they differ, in plain text."""
    parts = [_title(report), _summaries(report)]
    if report.scorers:
        parts += [comparison_table(each) for each in compared_within(report)]
    return "\n\n".join(parts)


def comparison_table(comparison: Comparison) -> str:
    """What a comparison says, and the cases that changed."""
    changes = sorted(
        [*comparison.better, *comparison.worse], key=lambda c: (c.after - c.before, c.case)
    )
    if not changes:
        return comparison.verdict()
    rows = [["case", comparison.a, comparison.b, ""]]
    rows += [
        [c.case, percent(c.before), percent(c.after), _arrow(c)] for c in changes[:_MOST_CASES]
    ]
    text = f"{comparison.verdict()}\n\n{_aligned(rows)}"
    left = len(changes) - _MOST_CASES
    return f"{text}\n  and {left} more" if left > 0 else text


def percent(value: float) -> str:
    """A share as a person reads it; only what is whole is 0 % or 100 %."""
    shown = round(value * 100)
    if (shown == 0 and value > 0) or (shown == 100 and value < 1):
        return f"{value * 100:.1f} %"
    return f"{shown} %"


def interval(value: Estimate) -> str:
    """An interval of shares."""
    return f"{value.low * 100:.0f} to {value.high * 100:.0f} %"


def money(value: float) -> str:
    """A cost, with as many digits as say something."""
    return f"{value:,.2f}" if value >= 1 or value == 0 else f"{value:.4f}"


def seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:,.1f} s"


def scope(report: Report) -> str:
    """What was evaluated, in a few words."""
    facts = [_count(len(report.cases), "case"), _count(len(report.candidates), "candidate")]
    if report.repeat > 1:
        facts.append(f"{report.repeat} times each")
    return ", ".join(facts)


def _title(report: Report) -> str:
    missing = report.wanted - len(report.trials)
    title = f"{report.agent}: {scope(report)}"
    if missing <= 0:
        return title
    return f"{title} ({missing:,} of {report.wanted:,} trials are missing)"


def _summaries(report: Report) -> str:
    summaries = report.summaries
    scorers = report.scorers if len(report.scorers) > 1 else []
    header = ["", *(["score", "95 %", "right"] if report.scorers else []), *scorers]
    priced = any(s.cost is not None for s in summaries)
    header += ["steps", "time", "tokens", *(["cost"] if priced else []), "early", "failed"]
    rows = [header, *(_row(s, bool(report.scorers), scorers, priced) for s in summaries)]
    text = _aligned(rows)
    if any(s.estimated for s in summaries):
        text += "\n  ~ estimated, as the provider does not report it"
    return text


def _row(summary: Summary, scored: bool, scorers: Sequence[str], priced: bool) -> list[str]:
    row = [summary.candidate]
    if scored:
        score = summary.score
        row += [percent(score.mean), interval(score)] if score else ["-", "-"]
        row.append(f"{summary.right}/{len(summary.trials)}")
    row += [percent(e.mean) if (e := summary.scores[name]) else "-" for name in scorers]
    row += [f"{summary.steps:.1f}", seconds(summary.seconds)]
    row.append(f"{'~' if summary.estimated else ''}{summary.tokens:,}")
    if priced:
        row.append(money(summary.cost) if summary.cost is not None else "-")
    return [*row, str(summary.early), str(summary.failed)]


def _arrow(change: Change) -> str:
    return "better" if change.after > change.before else "worse"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns: the first flush left, the others flush right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join(f"  {line.rstrip()}" for line in lines)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
