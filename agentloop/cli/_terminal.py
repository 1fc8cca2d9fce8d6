"""What goes to the terminal: safe, on the right stream."""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Generator, Mapping, MutableMapping
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO

_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_NEEDED = frozenset("\n\t\u200c\u200d")
"""Line ends and tabs; and the joiners, which several scripts and emoji are written with."""


def safe(text: str) -> str:
    """``text`` with every character that steers a terminal written as an escape.

    Models and tools may say anything; escape sequences and marks that turn the direction of
    writing could rewrite what a person sees.
    """
    if text.isprintable():
        return text
    return "".join(
        char
        if char.isprintable() or char in _NEEDED or unicodedata.category(char) not in _UNSAFE
        else char.encode("unicode_escape").decode()
        for char in text
    )


def one_line(text: str, width: int = 200) -> str:
    """``text`` safe and on one line, cut at ``width`` characters."""
    line = " ".join(safe(text[: width * 4]).split())
    return line if len(line) <= width else line[: width - 3] + "..."


def complain(message: str) -> None:
    """Say on stderr, in one line, what went wrong."""
    print(f"agentloop: {one_line(message, 1000)}", file=sys.stderr)


def remark(message: str) -> None:
    """Say something by the way on stderr, dim where there is a terminal."""
    line = one_line(message)
    colour = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    print(f"\x1b[2m{line}\x1b[0m" if colour else line, file=sys.stderr)


def say(text: str) -> None:
    """Print an answer on stdout: as it is into a pipe or file, safe and set off on a terminal."""
    print(f"\n{safe(text)}" if sys.stdout.isatty() else text)


@contextmanager
def logs_on_stderr() -> Generator[None]:
    """Write log lines to stderr, where the author has not configured logging otherwise."""
    import structlog

    ours = not structlog.is_configured()
    if ours:
        structlog.configure(
            processors=[structlog.processors.add_log_level, _log_line],
            logger_factory=_Logger,
            cache_logger_on_first_use=False,
        )
    try:
        yield
    finally:
        if ours:
            structlog.reset_defaults()


@contextmanager
def stdout_for_answers() -> Generator[None]:
    """Keep stdout for what the command itself says: what others print or log goes to stderr."""
    with logs_on_stderr(), redirect_stdout(sys.stderr):
        yield


class _Logger:
    """Writes to what stderr is at that moment: a live view puts something else there."""

    def __init__(self, *_: Any) -> None:
        self._file: TextIO = sys.stderr

    def msg(self, line: str) -> None:
        print(line, file=self._file)

    debug = info = warning = error = critical = exception = msg


def _log_line(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    """One line for a log entry; of an exception what it is and where it came from."""
    words = [str(event.pop("level", "info")), str(event.pop("event", ""))]
    error: Any = event.pop("exc_info", None)
    error = sys.exception() if error is True else error
    words += _pairs(event)
    if isinstance(error, BaseException):
        words.append(f"({type(error).__name__}: {error}, {_origin(error)})")
    return one_line(" ".join(words), 1000)


def _pairs(event: Mapping[str, Any]) -> list[str]:
    return [f"{name}={value}" for name, value in event.items()]


def _origin(error: BaseException) -> str:
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    if trace is None:
        return "nowhere"
    return f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"
