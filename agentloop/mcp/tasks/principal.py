"""Who called, for the time after the call: everything but the token that proved it."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

from mcp.server.auth.middleware.auth_context import auth_context_var, get_access_token
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken


def caller() -> dict[str, Any] | None:
    """Who calls now, as JSON; None where the transport authenticated nobody.

    The token itself is left out, and with it what could be done in the caller's name elsewhere.
    """
    token = get_access_token()
    if token is None:
        return None
    issuer = (token.claims or {}).get("iss")
    known = token.model_dump(mode="json", exclude={"token", "claims", "expires_at"})
    return known | ({"claims": {"iss": issuer}} if issuer is not None else {})


@contextmanager
def acting_for(known: Mapping[str, Any] | None) -> Generator[None]:
    """Let the code inside see the caller that ``known`` tells of, with an empty token."""
    user = None
    if known is not None:
        user = AuthenticatedUser(AccessToken.model_validate({**known, "token": ""}))
    reset = auth_context_var.set(user)
    try:
        yield
    finally:
        auth_context_var.reset(reset)
