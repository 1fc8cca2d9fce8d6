"""``agentloop runs``: what goes on in a store without its caller, and what became of it."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from agentloop.errors import DefinitionError

if TYPE_CHECKING:
    from agentloop.cli._longruns import AllRuns, LongRun

SUMMARY = "list, show, cancel and resume long runs: tasks and durable runs of a store"

VARIABLE = "AGENTLOOP_STORE"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--store",
        metavar="STORE",
        default=os.environ.get(VARIABLE),
        help=f"a SQLite file, or a database's URL (default: ${VARIABLE})",
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    listing = verbs.add_parser("list", help="the latest runs, the newest first, and counts")
    listing.add_argument(
        "--state",
        help="only those that are queued, running, waiting, completed, failed or cancelled",
    )
    listing.add_argument("--limit", type=int, default=20, help="how many (default: %(default)s)")
    listing.add_argument("--json", action="store_true", help="one JSON object a line")
    listing.set_defaults(verb=_list)
    for name, verb, what in (
        ("show", _show, "everything that is known of a run, as JSON"),
        ("cancel", _cancel, "stop a run"),
        ("resume", _resume, "let another process take a run up now, whoever has it"),
    ):
        below = verbs.add_parser(name, help=what)
        below.add_argument("id", metavar="ID", help="the run's id, or how it begins")
        below.set_defaults(verb=verb)


def execute(options: argparse.Namespace) -> int:
    """Do it, and print what came of it."""
    import anyio

    if not options.store:
        raise DefinitionError(f"which store? pass --store, or set ${VARIABLE}")
    anyio.run(_execute, options)
    return 0


async def _execute(options: argparse.Namespace) -> None:
    from agentloop.cli._longruns import opened

    verb: Callable[[AllRuns, argparse.Namespace], Awaitable[None]] = options.verb
    async with opened(options.store) as runs:
        await verb(runs, options)


async def _list(runs: AllRuns, options: argparse.Namespace) -> None:
    found = await runs.list(options.state, options.limit)
    if options.json:
        for run in found:
            print(json.dumps(run.outline()))
        return
    rows = [("ID", "KIND", "WHAT", "STATE", "AGE", "")]
    rows += [_row(run) for run in found]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row[:5], widths, strict=True)]
        print("  ".join([*cells, row[5]]).rstrip())
    counts = await runs.count()
    print(", ".join(f"{number} {state}" for state, number in counts.items() if number) or "no runs")


def _row(run: LongRun) -> tuple[str, ...]:
    from agentloop.cli._terminal import one_line

    what, message = one_line(run.what, 40), one_line(run.message, 60)
    return (run.id, run.kind, what, run.state, _age(time.time() - run.created), message)


async def _show(runs: AllRuns, options: argparse.Namespace) -> None:
    print(json.dumps(await (await runs.find(options.id)).details(), indent=2, ensure_ascii=False))


async def _cancel(runs: AllRuns, options: argparse.Namespace) -> None:
    run = await runs.find(options.id)
    await run.cancel()
    print(f"cancelled: {run.id}")


async def _resume(runs: AllRuns, options: argparse.Namespace) -> None:
    run = await runs.find(options.id)
    await run.resume()
    print(f"free to be taken up: {run.id}")


def _age(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
