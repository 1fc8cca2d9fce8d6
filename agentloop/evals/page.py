"""The report as one HTML page that needs nothing else, and the pages of the transcripts."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path

from agentloop import page as transcript_page
from agentloop import timeline
from agentloop.errors import AgentLoopError
from agentloop.evals.case import file_name
from agentloop.evals.comparison import compared_within
from agentloop.evals.page_cases import Link, cases_table
from agentloop.evals.report import Report, Summary
from agentloop.evals.table import interval, money, percent, scope
from agentloop.evals.trial import Key, Trial
from agentloop.page.html import Html, inside, tag
from agentloop.page.words import count, duration, moment, short


def save_page(report: Report, file: Path) -> None:
    """Write the report to ``file``, and the page of each transcript, to which it links."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pages = _transcript_pages(report)

    def link(trial: Trial) -> str | None:
        page = pages.get(trial.key)
        return None if page is None else Path(os.path.relpath(page, file.parent)).as_posix()

    file.write_text(render(report, link), encoding="utf-8", errors="replace")


def render(report: Report, link: Link = lambda trial: None) -> str:
    """The report's page; ``link`` gives the address of a trial's transcript, if it has one.

    Whatever models and cases say is text on it and nothing else: no script runs but its own, and
    nothing is loaded.
    """
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_policy()),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{report.agent[:80]} evaluated · agentloop"),
        tag("style", _shipped("agentloop.page", "page.css")),
        tag("style", _shipped("agentloop.evals", "report.css")),
    )
    body = tag(
        "body",
        tag("main", _title(report), _verdicts(report), _candidates(report)),
        cases_table(report, link),
        tag("script", _shipped("agentloop.evals", "report.js")),
    )
    return inside([Html("<!doctype html>"), tag("html", head, body, lang="en")])


def _title(report: Report) -> Html:
    missing = report.wanted - len(report.trials)
    said, mood = ("complete", "good") if missing <= 0 else (f"{missing:,} trials missing", "early")
    return tag(
        "header",
        tag("h1", report.agent),
        tag("span", said, class_=f"pill {mood}"),
        tag("p", f"{scope(report)} · {moment(report.at)}"),
        class_="title",
    )


def _verdicts(report: Report) -> Html | None:
    """What it all comes to, in sentences."""
    scored = [(s, s.score.mean) for s in report.summaries if s.score]
    if not scored:
        return None
    best, mean = max(scored, key=lambda pair: pair[1])
    if len(report.candidates) == 1:
        right = f"{best.right:,} of {count(len(best.trials), 'trial')}"
        said = [tag("p", f"{best.candidate} scores {percent(mean)}: {right} fully right.")]
    elif len(report.candidates) == 2:
        said = [tag("p", comparison.verdict()) for comparison in compared_within(report)]
    else:
        lines = [tag("li", each.brief()) for each in compared_within(report, best.candidate)]
        said = [
            tag("p", f"{best.candidate} scores highest, {percent(mean)}. The others against it:"),
            tag("ul", lines),
        ]
    return tag("div", said, class_="verdict")


def _candidates(report: Report) -> Html:
    """A row for each candidate: its score on an axis from 0 to 100 %, and what it took."""
    summaries = report.summaries
    priced = any(s.cost is not None for s in summaries)
    several = len(report.scorers) > 1
    header = [tag("th")]
    if report.scorers:
        header.append(tag("th", tag("div", _axis()), class_="axis-cell"))
    header += [tag("th", name) for name in (report.scorers if several else [])]
    names = ["fully right"] * bool(report.scorers)
    names += ["steps", "time", "tokens/run", *["total cost"] * priced, "cut short", "failed"]
    header += [tag("th", name) for name in names]
    rows = [_candidate(s, report.scorers, several=several, priced=priced) for s in summaries]
    notes = ["The bar is the 95 % interval: where the score may lie for other cases of this kind."]
    if any(s.estimated for s in summaries):
        notes.append("~ tokens are estimated: the provider does not report them.")
    return tag(
        "section",
        tag("table", tag("thead", tag("tr", header)), tag("tbody", rows)),
        tag("p", " ".join(notes), class_="remark") if report.scorers else None,
        class_="candidates",
    )


def _axis() -> list[Html]:
    return [tag("span", f"{n}", style=f"left:{n}%") for n in (0, 25, 50, 75, 100)]


def _candidate(summary: Summary, scorers: Sequence[str], *, several: bool, priced: bool) -> Html:
    cells = [tag("th", summary.candidate, scope="row", title=summary.candidate)]
    if scorers:
        cells.append(_track(summary))
    for name in scorers if several else ():
        score = summary.scores[name]
        cells.append(tag("td", percent(score.mean) if score else "-"))
    trials = max(len(summary.trials), 1)
    if scorers:
        cells.append(tag("td", f"{summary.right:,}", tag("i", f"/{len(summary.trials):,}")))
    tokens = f"{'~' if summary.estimated else ''}{short(round(summary.tokens / trials))}"
    cells += [
        tag("td", f"{summary.steps:.1f}"),
        tag("td", duration(summary.seconds)),
        tag("td", tokens, title=f"{summary.tokens:,} in all"),
    ]
    if priced:
        cells.append(tag("td", money(summary.cost) if summary.cost is not None else "-"))
    cells.append(tag("td", f"{summary.early:,}", class_="warn" if summary.early else None))
    cells.append(tag("td", f"{summary.failed:,}", class_="fail" if summary.failed else None))
    return tag("tr", cells)


def _track(summary: Summary) -> Html:
    """The score and its interval as a picture."""
    score = summary.score
    if score is None:
        return tag("td", tag("div", class_="scale"), tag("b", "-"), class_="score")
    low, high, mean = score.low * 100, score.high * 100, score.mean * 100
    return tag(
        "td",
        tag(
            "div",
            tag("span", class_="range", style=f"left:{low:.2f}%;width:{high - low:.2f}%"),
            tag("span", class_="dot", style=f"left:{mean:.2f}%"),
            class_="scale",
        ),
        tag("b", percent(score.mean)),
        class_="score",
        title=f"95 % interval: {interval(score)}",
    )


def _transcript_pages(report: Report) -> dict[Key, Path]:
    """The pages of the transcripts that are there, written if they are not there yet."""
    pages: dict[Key, Path] = {}
    by_file: dict[Path, list[Trial]] = {}
    for trial in report.trials:
        if report.folder is not None and trial.transcript is not None:
            by_file.setdefault(report.folder / trial.transcript, []).append(trial)
    for transcript, trials in by_file.items():
        try:
            stories = {story.id: story for story in timeline.read(transcript)}
        except (OSError, AgentLoopError):  # it was taken away, or is damaged: there are no links
            continue
        folder = transcript.with_suffix("")
        folder.mkdir(exist_ok=True)
        for trial in trials:
            if trial.run in stories:
                page = folder / f"{file_name(trial.case)}.{trial.number}.{trial.run}.html"
                if not page.exists():
                    text = transcript_page.render([stories[trial.run]])
                    page.write_text(text, encoding="utf-8", errors="replace")
                pages[trial.key] = page
    return pages


@cache
def _shipped(package: str, name: str) -> Html:
    return Html(resources.files(package).joinpath(name).read_text(encoding="utf-8"))


@cache
def _policy() -> str:
    script = _shipped("agentloop.evals", "report.js").encode()
    digest = base64.b64encode(hashlib.sha256(script).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "base-uri 'none'; form-action 'none'"
    )
