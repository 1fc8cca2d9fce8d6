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


@contextmanager
def progress(*, quiet: bool) -> Generator[OnProgress]:
    """Shows a report as it grows on stderr: a bar where that is a terminal and rich is there."""
    if quiet:
        yield lambda report: None
    elif not _is_terminal() or find_spec("rich") is None:
        yield _Lines()
    else:
        with _bar() as on_progress:
            yield on_progress


class _Lines:
    """A line at the beginning, every few seconds, and at the end."""

    def __init__(self) -> None:
        self._last = float("-inf")

    def __call__(self, report: Report) -> None:
        now, done = time.monotonic(), len(report.trials)
        if now - self._last >= _BETWEEN or done == report.wanted:
            self._last = now
            print(f"{done}/{report.wanted}  {facts(report)}", file=sys.stderr, flush=True)


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

        def on_progress(report: Report) -> None:
            done = len(report.trials)
            bar.update(task, completed=done, total=report.wanted, facts=facts(report))

        yield on_progress
