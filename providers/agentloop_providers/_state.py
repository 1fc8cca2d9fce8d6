"""A provider's own state, carried in ``_meta`` so that it gets it back as it was.

Signed thinking, encrypted reasoning, phases and ids have no place in MCP's blocks, and some APIs
refuse a history that lacks them. So a reply carries a *form*: the native message with a
:data:`HOLE` in the place of everything that MCP's blocks hold. With the holes filled from those
blocks, the native message is as it was, byte for byte; and where a client or the runtime changed a
block on the way, what was changed is what the model sees.
"""

from __future__ import annotations

from typing import Any, cast

from mcp_types import SamplingMessage

from agentloop.meta import PROVIDER_KEY

HOLE = True
"""Stands for a value that a block holds. No text, id or name of a native message is ``True``."""

RESPONSE_KEY = "dev.agentloop/response"
"""On a sampling result: the response's ids and details, for whoever looks into a run."""


def own_form(message: SamplingMessage, kind: str, model: str) -> list[dict[str, Any]] | None:
    """The form that a message carries, if one of ``kind`` for ``model`` wrote it.

    Another provider's, another model's and anything of the wrong shape count as none: then the
    message is mapped from its blocks.
    """
    state = message.meta.get(PROVIDER_KEY) if message.meta else None
    if not isinstance(state, dict):
        return None
    known = cast("dict[str, Any]", state)
    form = known.get("form")
    if known.get("kind") != kind or known.get("model") != model or not isinstance(form, list):
        return None
    parts = cast("list[Any]", form)
    return parts if all(isinstance(part, dict) for part in parts) else None
