"""Seals state as the SDK does, in fewer bytes."""

from __future__ import annotations

import os
from collections.abc import Sequence

from mcp.server.request_state import AESGCMRequestStateCodec, InvalidRequestState

from agentloop.mcp.deflate import deflate, inflate


class StateCodec:
    """The SDK's own codec, over state that is deflated before it is encrypted.

    State crosses the wire twice at every round, and the larger part of the traffic of a long call
    is state: this takes a quarter off it. It goes where the SDK takes a codec::

        MCPServer("papers", request_state_security=RequestStateSecurity(codec=StateCodec()))

    Everything else about the seal is the SDK's: AES-256-GCM, what it is bound to, when it expires.
    """

    def __init__(self, keys: Sequence[bytes | str] | None = None) -> None:
        """``keys`` are the SDK's: the first one seals, and all unseal. Without them the key is this
        process's own."""
        self._codec = AESGCMRequestStateCodec([os.urandom(32)] if keys is None else keys)

    def seal(self, payload: bytes) -> str:
        """``payload`` as a token that nobody else can read or make."""
        return self._codec.seal(deflate(payload))

    def unseal(self, token: str) -> bytes:
        """What was sealed. Raises ``InvalidRequestState`` for any other token."""
        try:
            return inflate(self._codec.unseal(token))
        except ValueError as error:
            raise InvalidRequestState("malformed") from error
