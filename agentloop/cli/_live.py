"""Where progress is shown: nowhere, line by line, or live in a terminal."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from agentloop.cli._progress import Line, Progress, count, duration, plain

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_REFRESHES = 10.0
"""A second."""
_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_ASCII_FRAMES = "|/-\\"
_MOST_ROWS = 12
"""Of running things that are shown at the same time."""


@contextmanager
def shown(*, quiet: bool) -> Generator[Progress]:
    """A sink that shows progress on stderr: live where that is a terminal and rich is there."""
    if quiet:
        yield Progress(lambda line: None)
    elif not _is_terminal() or find_spec("rich") is None:
        yield Progress(lambda line: print(plain(line), file=sys.stderr))
    else:
        with _live() as progress:
            yield progress


def _is_terminal() -> bool:
    return sys.stderr.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


@contextmanager
def _live() -> Generator[Progress]:
    """What ended scrolls by like any output; below it stands what runs now."""
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True, highlight=False, markup=False, emoji=False)

    def write(line: Line) -> None:
        console.print(_text(line), no_wrap=True, overflow="ellipsis")

    progress = Progress(write)
    with Live(
        get_renderable=lambda: _now(progress, console),
        console=console,
        transient=True,
        refresh_per_second=_REFRESHES,
    ):
        yield progress


def _now(progress: Progress, console: Console) -> RenderableType:
    """What runs at this moment, and what all of it has come to."""
    from rich.console import Group

    now = time.monotonic()
    frames = _FRAMES if console.encoding.startswith("utf") else _ASCII_FRAMES
    spinner = (frames[int(now * _REFRESHES) % len(frames)] + " ", "magenta")
    running = list(progress.running.values())
    room = min(_MOST_ROWS, max(console.height - 3, 1))
    rows = [_text([spinner, *item.line]) for item in running[:room]]
    if len(running) > room:
        rows.append(_text([(f"  and {len(running) - room} more", "dim")]))
    facts = [
        count(progress.asks, "ask"),
        count(progress.tool_calls, "tool call"),
        count(progress.tokens, "token"),
        duration(progress.seconds),
    ]
    return Group(*rows, _text([(f"  {', '.join(facts)}", "dim")]))


def _text(line: Line) -> RenderableType:
    from rich.text import Text

    return Text.assemble(*line, no_wrap=True, overflow="ellipsis")
