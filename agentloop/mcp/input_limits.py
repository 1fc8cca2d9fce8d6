"""What a server takes of a client beside the replies of its model, which :class:`Limits` bounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mcp_types import ElicitResult

from agentloop.errors import ToolError
from agentloop.intake import size_of
from agentloop.mcp.request import Request
from agentloop.text import MAX_DEPTH, too_deep


@dataclass(frozen=True, slots=True, kw_only=True)
class InputLimits:
    """How much a client may send in the arguments of a call, or in one answer of its user."""

    bytes: int = 1024 * 1024
    depth: int = MAX_DEPTH
    """How deep it may nest."""

    def excess(self, request: Request) -> str | None:
        """Which limit ``request`` is beyond, in words for the client; None where it is within."""
        if why_not := self._excess("the input of the call", request.arguments):
            return why_not
        for key, answer in request.answers.items():
            if isinstance(answer, ElicitResult) and (
                why_not := self._excess(f"the answer {key[:128]!r}", answer.content)
            ):
                return why_not
        return None

    def check(self, answer: ElicitResult) -> None:
        """Raises :class:`ToolError` for an answer of a user that is beyond a limit."""
        if why_not := self._excess("the answer", answer.content):
            raise ToolError(f"The user could not be heard: {why_not}.")

    def _excess(self, what: str, value: Any) -> str | None:
        if too_deep(value, self.depth):
            return f"{what} nests deeper than {self.depth} levels"
        if (size := size_of(value)) > self.bytes:
            return f"{what} takes {size} bytes, and at most {self.bytes} are taken"
        return None
