"""``agentloop show``: a transcript, as a timeline in the terminal or as a page."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from agentloop.errors import DefinitionError

if TYPE_CHECKING:
    from agentloop.cli._progress import Line
    from agentloop.story import Story

SUMMARY = "show a transcript as a timeline, or where two of them part"

_DIFFERENT = 1


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", metavar="FILE", nargs="?", help="a transcript, e.g. of: agentloop run --save FILE"
    )
    parser.add_argument(
        "--html", metavar="OUT", help="write a page instead: one file that needs nothing else"
    )
    parser.add_argument(
        "--diff",
        nargs=2,
        metavar=("A", "B"),
        help="two transcripts: show where their runs part; the exit code is 1 if they do",
    )
    parser.add_argument("--full", action="store_true", help="also what was said, and every result")
    parser.add_argument("--steps", metavar="N-M", help="only these steps, on an axis of their own")
    parser.add_argument("--run", metavar="ID", help="only the run whose id begins so")


def execute(options: argparse.Namespace) -> int:
    """Show it on stdout."""
    if options.diff:
        return _diff(*options.diff, run=options.run)
    if not options.file:
        raise DefinitionError("which transcript? agentloop show FILE, or agentloop show --diff A B")
    stories = _read(options.file, options.run)
    if options.html:
        return _write_page(stories, options.html)
    from agentloop.cli._bars import Bars

    first, last = _steps(options.steps)
    bars = Bars(_width(), ascii_only=not _shows("━╸╺"), full=options.full)
    lines: list[Line] = []
    for story in stories:
        lines += [[], *bars.of(story, first, last)] if lines else bars.of(story, first, last)
    _print(lines)
    return 0


def _diff(a: str, b: str, *, run: str | None) -> int:
    from agentloop.cli._parting import compare, parting

    left, right = (_read(file, run) for file in (a, b))
    for file, stories in ((a, left), (b, right)):
        if len(stories) != 1:
            ids = ", ".join(story.id for story in stories[:5])
            raise DefinitionError(f"{file} has {len(stories)} runs, pick one with --run: {ids}")
    _print(compare(left[0], right[0], (a, b)))
    return 0 if parting(left[0], right[0]) is None else _DIFFERENT


def _write_page(stories: list[Story], out: str) -> int:
    from agentloop.page import render

    try:
        Path(out).write_text(render(stories), encoding="utf-8", newline="\n")
    except OSError as error:
        raise DefinitionError(f"{out}: {error.strerror}") from error
    return 0


def _read(file: str, run: str | None) -> list[Story]:
    from agentloop.errors import StateError
    from agentloop.timeline import read

    try:
        stories = read(file)
    except OSError as error:
        raise DefinitionError(f"{file}: {error.strerror}") from error
    except StateError as error:
        raise DefinitionError(f"{file}: {error}") from error
    if run is not None:
        stories = [s for outer in stories for s in outer.inside() if s.id.startswith(run)]
    if not stories:
        raise DefinitionError(f"{file} tells of no run" + (f" {run}" if run else ""))
    return stories


def _steps(given: str | None) -> tuple[int, int]:
    if given is None:
        return 1, 10**9
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", given)
    if found is None:
        raise DefinitionError(f"--steps {given}: write it as 3 or 3-7")
    return int(found[1]), int(found[2] or found[1])


def _width() -> int:
    return shutil.get_terminal_size((120, 40)).columns


def _shows(text: str) -> bool:
    """Whether stdout can show ``text``."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _print(lines: Iterable[Line]) -> None:
    """In colour on a terminal, if rich is there; plain otherwise."""
    from agentloop.cli._progress import plain

    if find_spec("rich") is None or not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        for line in lines:
            print(plain(line))
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    for line in lines:
        console.print(Text.assemble(*line))
