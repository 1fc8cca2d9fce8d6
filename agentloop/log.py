"""Where the library itself logs."""

from __future__ import annotations

import sys
import traceback
from dataclasses import dataclass
from typing import Any

import structlog

from agentloop.secret import hidden


@dataclass(frozen=True, slots=True)
class Log:
    """A structlog logger whose lines hold no secret that is known (:mod:`agentloop.secret`)."""

    logger: Any

    def info(self, event: str, **fields: Any) -> None:
        self.logger.info(event, **_hidden(fields))

    def warning(self, event: str, **fields: Any) -> None:
        self.logger.warning(event, **_hidden(fields))

    def error(self, event: str, **fields: Any) -> None:
        self.logger.error(event, **_hidden(fields))


def log() -> Log:
    """The program's structlog logger; on stderr where structlog was not configured.

    Unconfigured, structlog prints to stdout, which is where programs answer and stdio servers talk.
    """
    if structlog.is_configured():
        return Log(structlog.get_logger("agentloop"))
    return Log(structlog.wrap_logger(structlog.PrintLogger(sys.stderr)))


def _hidden(fields: dict[str, Any]) -> dict[str, Any]:
    error = fields.get("exc_info")
    if isinstance(error, BaseException):
        written = "".join(traceback.format_exception(error))
        if (shown := hidden(written)) != written:  # as text, since its frames hold the secret too
            del fields["exc_info"]
            fields["exception"] = shown
    return hidden(fields)
