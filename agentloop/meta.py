"""What rides in ``_meta``: the keys that are ours, and how they are read and written.

SEP-1577 has no field for token usage or for a provider's own state (signed thinking blocks,
reasoning items, response ids). ``_meta`` survives both protocol eras unchanged, and clients
SHOULD preserve it, so both travel there.
"""

from __future__ import annotations

from typing import Any

from mcp_types import CreateMessageResult, CreateMessageResultWithTools

from agentloop.usage import Usage

USAGE_KEY = "dev.agentloop/usage"
"""On a sampling result: token usage, see :meth:`Usage.to_json`."""

PROVIDER_KEY = "dev.agentloop/provider"
"""On a block, a message or a sampling result: what a provider needs to get back verbatim."""

INVALID_KEY = "dev.agentloop/invalid"
"""On a tool use block: what its provider found wrong with it. The call is not run; this text is its
result."""

NOTICE_KEY = "dev.agentloop/notice"
"""On a text block: written by the runtime for the model, not by a tool."""

Reply = CreateMessageResult | CreateMessageResultWithTools
"""What answers an ask: the SDK's sampling result, with one block or a list of them."""


def usage_of(reply: Reply) -> Usage | None:
    """The usage that a reply reports, or None where it reports none."""
    if not reply.meta or USAGE_KEY not in reply.meta:
        return None
    return Usage.from_json(reply.meta[USAGE_KEY])


def with_usage(meta: dict[str, Any] | None, usage: Usage) -> dict[str, Any]:
    """``meta`` with ``usage`` under our key."""
    return {**(meta or {}), USAGE_KEY: usage.to_json()}
