"""Where the library itself logs."""

from __future__ import annotations

import sys
from typing import Any

import structlog


def log() -> Any:
    """The program's structlog logger; on stderr where structlog was not configured.

    Unconfigured, structlog prints to stdout, which is where programs answer and stdio servers talk.
    """
    if structlog.is_configured():
        return structlog.get_logger("agentloop")
    return structlog.wrap_logger(structlog.PrintLogger(sys.stderr))
