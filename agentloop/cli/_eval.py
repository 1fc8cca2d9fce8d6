"""``agentloop eval``: an agent over many cases, scored, compared, and gone on with."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from agentloop.cli import EARLY, FAILED, _options
from agentloop.errors import DefinitionError

if TYPE_CHECKING:
    from agentloop.evals import Report

SUMMARY = "evaluate an agent over cases, with one provider or several"

SCORERS = ("contains", "exact", "regex", "json_match", "judge")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        nargs="?",
        metavar="FILE",
        help="file.py or file.py:name, an Evaluation or a function that gives one (by default "
        "called evaluation); or cases.jsonl, with --agent",
    )
    parser.add_argument("--agent", metavar="AGENT", help="the agent for cases in JSONL")
    parser.add_argument(
        "--arg",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a parameter of the function that FILE or AGENT names",
    )
    _add_what(parser)
    _add_how(parser)
    other = parser.add_argument_group("instead of an evaluation")
    other.add_argument(
        "--compare",
        nargs=2,
        metavar=("A", "B"),
        help="compare two folders of results, and list the cases that changed",
    )
    other.add_argument("--record", metavar="DIR", help="run each case once and record it in DIR")
    other.add_argument(
        "--replay",
        metavar="DIR",
        help="run the recorded cases again, without a model; exit code 1 where one has changed",
    )


def _add_what(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--provider",
        action="append",
        metavar="SPEC",
        help="who answers for the model; several are compared (default: what FILE says, else "
        "the agent's own, else a stand-in)",
    )
    parser.add_argument(
        "--carrier",
        action="append",
        choices=("direct", "push", "rounds", "task"),
        help="how asks travel to it; several are compared (default: direct)",
    )
    parser.add_argument(
        "--scorer",
        action="append",
        choices=SCORERS,
        help="how answers to cases in JSONL are scored (default: contains, where they expect "
        "anything)",
    )
    parser.add_argument("--judge", metavar="SPEC", help="the provider that --scorer judge asks")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="run each case N times")
    _options.add_limits(parser)
    parser.add_argument(
        "--budget",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="what all runs together may spend: tokens, cost or seconds",
    )
    parser.add_argument(
        "--price",
        action="append",
        default=[],
        metavar="SPEC=IN/OUT",
        help="what a million tokens cost with a provider, read and written, e.g. offline=3/15",
    )


def _add_how(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--concurrency",
        type=int,
        default=10,
        metavar="N",
        help="how many runs go on at the same time (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="where results, transcripts and report are kept; what is there is not run again "
        "(default: a new folder in evals/)",
    )
    parser.add_argument(
        "--retry", action="store_true", help="run those again that failed or have no score"
    )
    parser.add_argument("--html", metavar="FILE", help="where to write the report's page")
    parser.add_argument(
        "--fail-under",
        type=float,
        metavar="SHARE",
        help="exit code 1 where a score is lower, e.g. 0.8",
    )
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object")
    parser.add_argument("--quiet", action="store_true", help="do not show progress")
    parser.add_argument(
        "--backend",
        choices=("asyncio", "trio"),
        default="asyncio",
        help="the event loop to run in (default: %(default)s)",
    )


def execute(options: argparse.Namespace) -> int:
    """Do what is asked for. Progress goes to stderr, the report and nothing else to stdout."""
    if options.compare:
        return _compare(options)
    if options.replay:
        from agentloop.cli._eval_replay import replay

        return replay(options)
    if not options.file:
        raise DefinitionError("eval needs a FILE, or --compare A B, or --replay DIR")
    if options.record:
        from agentloop.cli._eval_replay import record

        return record(options)
    from agentloop.cli._eval_run import run

    return _report(run(options), options)


def _report(report: Report, options: argparse.Namespace) -> int:
    from agentloop.cli._terminal import complain, remark

    page = options.html or (report.folder / "report.html" if report.folder else None)
    if page:
        report.save_page(page)
    _print(report.to_json() if options.json else report.table())
    sys.stdout.flush()
    if page and not options.quiet:
        remark(f"The report with every answer: {page}")
    if report.stopped:
        complain(f"{report.stopped}: {len(report.trials)} of {report.wanted} trials have run")
        return EARLY
    low = [s for s in report.summaries if not s.score or s.score.mean < (options.fail_under or 0)]
    if options.fail_under is not None and low:
        names = ", ".join(summary.candidate for summary in low)
        complain(f"the score is lower than {options.fail_under:g}: {names}")
        return FAILED
    return 0


def _compare(options: argparse.Namespace) -> int:
    from agentloop.evals import Report, compare
    from agentloop.evals.comparison import side_by_side
    from agentloop.evals.table import comparison_table

    before, after = (Report.read(folder) for folder in options.compare)
    found = compare(before, after)
    if options.html:
        side_by_side(before, after).save_page(options.html)
    if options.json:
        _print([comparison.to_json() for comparison in found])
    else:
        _print("\n\n".join(comparison_table(comparison) for comparison in found))
    return 0


def _print(said: Any) -> None:
    from agentloop.cli._terminal import safe

    print(safe(said) if isinstance(said, str) else json.dumps(said))
