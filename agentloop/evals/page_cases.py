"""The cases of a report's page: who got what right, and every answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from agentloop.evals.report import Report
from agentloop.evals.table import percent
from agentloop.evals.trial import Trial
from agentloop.page.html import Html, tag
from agentloop.page.words import as_json, count, duration, short
from agentloop.run import Stop

Link = Callable[[Trial], str | None]
"""Gives the address of a trial's transcript, if it has one."""

_MOST_MARKS = 12
"""Marks for one case that are shown one by one; more are told as a share."""
_ANSWER = 4_000
"""Characters of an answer that are shown; its transcript has all of it."""


def cases_table(report: Report, link: Link) -> Html:
    """All cases, each with a mark for each candidate; unfolded, with every answer."""
    of: dict[str, dict[str, list[Trial]]] = {}
    for trial in report.trials:
        of.setdefault(trial.case, {}).setdefault(trial.candidate, []).append(trial)
    cases = [_case(name, of[name], report, link) for name in report.cases if name in of]
    names = [tag("span", name, title=name) for name in report.candidates]
    return tag(
        "section",
        _toolbar(report),
        tag("div", tag("span", "case"), names, class_="entry names"),
        cases,
        tag("p", "No case fits.", id="none", hidden=True),
        class_="cases",
        style=f"--n:{len(report.candidates)}",
    )


def _toolbar(report: Report) -> Html:
    choices = [("all", "All")]
    if report.scorers:
        choices += [("differ", "They differ")] * (len(report.candidates) > 1)
        choices += [("wrong", "Not all right")]
    buttons = [
        tag("button", said, data_show=kind, aria_pressed="true" if kind == "all" else "false")
        for kind, said in choices
    ]
    return tag(
        "nav",
        tag("input", id="search", type="search", placeholder="Search", aria_label="search"),
        tag("div", buttons, class_="choices"),
        tag("output", id="found"),
        tag("button", "Dark", id="theme"),
    )


def _case(name: str, trials: dict[str, list[Trial]], report: Report, link: Link) -> Html:
    of_all = [trials.get(candidate, []) for candidate in report.candidates]
    first = next(found for found in of_all if found)[0]
    values = {_mean(found) for found in of_all}
    wrong = any(value != 1 for value in values)
    most = max(_MOST_MARKS // len(of_all), 2)
    prompt = first.prompt if isinstance(first.prompt, str) else as_json(first.prompt)
    return tag(
        "details",
        tag(
            "summary",
            tag("span", tag("b", name), " ", prompt, class_="prompt"),
            [_marks(found, scored=bool(report.scorers), most=most) for found in of_all],
            class_="entry",
        ),
        tag("div", _question(prompt, first.expected), _answers(of_all, link), class_="detail"),
        class_="case",
        data_differ=len(values) > 1,
        data_wrong=wrong,
    )


def _mean(trials: Sequence[Trial]) -> float | None:
    values = [trial.value for trial in trials if trial.value is not None]
    return sum(values) / len(values) if values else None


def _marks(trials: Sequence[Trial], *, scored: bool, most: int) -> Html:
    """A candidate's marks for a case, at most so many one by one."""
    if len(trials) > most and scored:
        right = sum(trial.value == 1 for trial in trials)
        kind = "right" if right == len(trials) else "wrong" if right == 0 else "partly"
        return tag(
            "span", tag("span", f"{right}/{len(trials)}", class_=f"mark {kind}"), class_="of"
        )
    return tag("span", [_mark(trial, scored=scored) for trial in trials], class_="of")


def _mark(trial: Trial, *, scored: bool) -> Html:
    kind, sign, said = _judged(trial, scored=scored)
    return tag("span", sign, class_=f"mark {kind}", title=said)


def _judged(trial: Trial, *, scored: bool) -> tuple[str, str, str]:
    """How a trial is shown: its kind, its sign, and in words."""
    if trial.stop in (Stop.FAILED, Stop.DENIED):
        return "broken", "failed", trial.error or str(trial.stop)
    value = trial.value
    if not scored:
        return ("right", "done", "") if trial.stop is Stop.DONE else ("partly", trial.stop, "")
    reasons = "; ".join(score.reason for score in trial.scores.values() if score.reason)
    if value is None:
        return "broken", "?", reasons
    if value == 1:
        return "right", "✓", reasons or "right"
    if value == 0:
        return "wrong", "✗", reasons or "wrong"
    return "partly", percent(value), reasons


def _question(prompt: str, expected: Any) -> Html:
    rows = [tag("dt", "asked"), tag("dd", tag("pre", prompt))]
    if expected is not None:
        several = cast("list[Any]", expected) if isinstance(expected, list) else [expected]
        said = [tag("pre", item if isinstance(item, str) else as_json(item)) for item in several]
        rows += [tag("dt", "expected"), tag("dd", said)]
    return tag("dl", rows, class_="question")


def _answers(of_all: Sequence[Sequence[Trial]], link: Link) -> Html:
    return tag("div", [_answer(t, link) for trials in of_all for t in trials], class_="answers")


def _answer(trial: Trial, link: Link) -> Html:
    answer = trial.answer if isinstance(trial.answer, str) else as_json(trial.answer)
    if len(answer) > _ANSWER:
        answer = f"{answer[:_ANSWER]}…"
    number = f" #{trial.number}" if trial.number > 1 else ""
    href = link(trial)
    kind, sign, _ = _judged(trial, scored=bool(trial.scores))
    return tag(
        "article",
        tag(
            "header",
            tag("span", sign, class_=f"mark {kind}"),
            tag("b", f"{trial.candidate}{number}"),
            tag("a", "transcript", href=href) if href else None,
        ),
        tag("p", trial.error, class_="trouble") if trial.error else None,
        tag("pre", answer) if answer else tag("p", "no answer", class_="remark"),
        tag("ul", [tag("li", line) for line in _reasons(trial)]) if trial.scores else None,
        tag("footer", _facts(trial)),
    )


def _reasons(trial: Trial) -> list[list[Html | str]]:
    """What each scorer says, where it says more than that all is right."""
    lines: list[list[Html | str]] = []
    for name, score in trial.scores.items():
        value = "no score" if score.value is None else percent(score.value)
        why = f": {score.reason}" if score.reason else ""
        if why or len(trial.scores) > 1:
            lines.append([tag("b", f"{name} {value}"), why])
    return lines


def _facts(trial: Trial) -> str:
    facts = [
        count(trial.steps, "step"),
        count(trial.tool_calls, "tool call"),
        f"{'~' if trial.usage.estimated else ''}{short(trial.usage.total_tokens)} tokens",
        duration(trial.seconds),
    ]
    if trial.stop not in (Stop.DONE, Stop.FAILED):
        facts.insert(0, f"stopped: {trial.stop}")
    return " · ".join(facts)
