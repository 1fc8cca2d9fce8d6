"""The command ``agentloop``.

Each command is a module with a ``SUMMARY``, ``configure(parser)`` and ``execute(options)``, which
returns the exit code. They load what they need when they are executed, so that help is quick.

Exit codes: 0 done, 1 failed or denied, 2 a mistake in the command line or in the agent's
definition, 3 ended early (on a limit, say) with what there is, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NoReturn, Protocol, cast

from agentloop._version import __version__
from agentloop.errors import AgentLoopError, DefinitionError

COMMANDS = {
    "run": "agentloop.cli._run",
    "serve": "agentloop.cli._serve",
    "eval": "agentloop.cli._eval",
    "show": "agentloop.cli._show",
    "runs": "agentloop.cli._runs",
    "providers": "agentloop.cli._providers",
}
"""The commands and the modules that have them."""

FAILED = 1
MISTAKE = 2
EARLY = 3
INTERRUPTED = 130
BROKEN_PIPE = 141


class _Command(Protocol):
    SUMMARY: str
    configure: Callable[[argparse.ArgumentParser], None]
    execute: Callable[[argparse.Namespace], int]


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        raise DefinitionError(f"{message} (try: {self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Do what ``argv`` (``sys.argv`` without it) says, and return the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")
    try:
        options = _parser().parse_args(argv)
        code: int = options.execute(options)
        sys.stdout.flush()
        return code
    except SystemExit as end:  # argparse ends so after --help and --version
        return end.code if isinstance(end.code, int) else 0
    except BrokenPipeError:  # whoever read the output has gone: nothing more can be said
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except (AgentLoopError, KeyboardInterrupt, BaseExceptionGroup) as error:
        return _explain(error)


def _explain(error: BaseException) -> int:
    """Say in one line what ended the command. Raises ``error`` where it is nothing expected."""
    from agentloop.cli._terminal import complain

    # Task groups, the author's or the SDK's, wrap what goes through them.
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        inner = group.subgroup((KeyboardInterrupt, AgentLoopError))
        if inner is None:
            raise group
        return _explain(inner.exceptions[0])
    if isinstance(error, KeyboardInterrupt):
        complain("interrupted")
        return INTERRUPTED
    complain(str(error))
    return MISTAKE if isinstance(error, DefinitionError) else FAILED


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="agentloop", description="Run and serve agents, wherever the model is.")
    parser.add_argument("--version", action="version", version=f"agentloop {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, module in COMMANDS.items():
        command = cast("_Command", import_module(module))
        below = commands.add_parser(name, help=command.SUMMARY, description=command.SUMMARY)
        command.configure(below)
        below.set_defaults(execute=command.execute)
    return parser
