"""How far an evaluation is."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from agentloop.cli._progress import duration

if TYPE_CHECKING:
    from agentloop.evals import Report

OnProgress = Callable[["Report"], None]

_BETWEEN = 5.0
"""Seconds between two lines where there is no terminal."""
_REFRESH = 0.1
"""Seconds between two looks of the bar."""


@contextmanager
def progress(*, quiet: bool) -> Generator[OnProgress]:
    """Shows a report as it grows on stderr: a bar where that is a terminal and rich is there."""
    if quiet:
        yield lambda report: None
    elif not _is_terminal() or find_spec("rich") is None:
        yield _Seldom(_line, _BETWEEN)
    else:
        with _bar() as on_progress:
            yield on_progress


class _Seldom:
    """Shows a report at the beginning, at the end, and every so many seconds in between: to look
    through all of its trials at each of them would take longer than the trials."""

    def __init__(self, show: OnProgress, seconds: float) -> None:
        self._show = show
        self._seconds = seconds
        self._last = float("-inf")

    def __call__(self, report: Report) -> None:
        now = time.monotonic()
        if now - self._last >= self._seconds or len(report.trials) == report.wanted:
            self._last = now
            self._show(report)


def _line(report: Report) -> None:
    done = f"{len(report.trials)}/{report.wanted}"
    print(f"{done}  {facts(report)}", file=sys.stderr, flush=True)


def facts(report: Report) -> str:
    """What there is to say of a report that grows."""
    failed = sum(trial.failed for trial in report.trials)
    tokens = sum(trial.tokens for trial in report.trials)
    told = [f"{tokens:,} tokens"]
    if report.score is not None:
        told.insert(0, f"score {report.score:.0%}")
    if failed:
        told.append(f"{failed} failed")
    left = report.wanted - len(report.trials)
    if report.ran and left > 0:
        told.append(f"about {duration(report.spent / report.ran * left)} left")
    return ", ".join(told)


def _is_terminal() -> bool:
    return sys.stderr.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


@contextmanager
def _bar() -> Generator[OnProgress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    columns: list[Any] = [
        BarColumn(complete_style="green", finished_style="green"),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[facts]}", style="dim", markup=False),
    ]
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None, facts="")

        def show(report: Report) -> None:
            done = len(report.trials)
            bar.update(task, completed=done, total=report.wanted, facts=facts(report))

        yield _Seldom(show, _REFRESH)
