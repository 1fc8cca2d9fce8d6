"""A client's refusal where only an answer has a place: it is kept, and raised where it was asked.

Over rounds a client that refuses does not come back. One that was asked by a request says so in an
error, which a task must remember until its function goes on.
"""

from __future__ import annotations

from typing import Any

from mcp_types import ElicitResult, InputResponse

from agentloop.errors import ProviderError
from agentloop.mcp.callback import ERROR_KEY

KINDS = {kind.code: kind for kind in (ProviderError, *ProviderError.__subclasses__())}
"""The errors of providers, by their stable codes."""


def as_answer(error: ProviderError) -> dict[str, Any]:
    """The refusal that ``error`` tells of, in the protocol's JSON of an answer."""
    told = {"code": error.code, "message": str(error)}
    return {"action": "decline", "_meta": {ERROR_KEY: told}}


def refusal(answer: InputResponse) -> ProviderError | None:
    """The error that ``answer`` stands for; None where it is an answer."""
    told: Any = (answer.meta or {}).get(ERROR_KEY) if isinstance(answer, ElicitResult) else None
    if not isinstance(told, dict):
        return None
    kind = KINDS.get(str(told.get("code")), ProviderError)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
    return kind(str(told.get("message")))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
