"""What surrounds the runs of a served call: the client answers, or else a provider does."""

from __future__ import annotations

from mcp.shared.exceptions import MCPError
from mcp_types import MISSING_REQUIRED_CLIENT_CAPABILITY

from agentloop.definition import Definition
from agentloop.errors import CapabilityError
from agentloop.events import Sink
from agentloop.mcp.request import Request
from agentloop.place import Host
from agentloop.provider import Provider


class ServedHost(Host):
    """Asks the client where it declared that it can be asked; else the author's provider."""

    def __init__(
        self, request: Request, client: Provider, *, fallback: Provider | None, sink: Sink | None
    ) -> None:
        """``client`` brings asks to the client of ``request``; ``fallback`` is for clients that
        cannot be asked."""
        super().__init__(fallback, sink)
        self.request = request
        self._client = client

    def provider(self, definition: Definition, own: Provider | None) -> Provider:
        """Raises :class:`CapabilityError` where neither client nor provider can answer."""
        missing = self._missing(definition)
        if missing is None:
            return self._client
        provider = self._provider or own
        if provider is None:
            raise CapabilityError(
                f"agent {definition.name!r} needs a client with the capability {missing!r}, or a "
                "provider on the server's side",
                capability=missing,
            )
        return provider

    def _missing(self, definition: Definition) -> str | None:
        """The capability that the client would have to declare; None if it can be asked.

        Tools MUST NOT be sent to a client without ``sampling.tools`` (SEP-1577).
        """
        session = self.request.session
        declared = session.client_capabilities
        reachable = self.request.in_rounds or session.can_send_request
        if declared is None or declared.sampling is None or not reachable:
            return "sampling.tools" if definition.offered else "sampling"
        if definition.offered and declared.sampling.tools is None:
            return "sampling.tools"
        return None


def capability_refusal(error: CapabilityError) -> MCPError:
    """The protocol's own error for a capability that is missing, naming it."""
    required: dict[str, object] = {}
    level = required
    for part in error.capability.split("."):
        level[part] = level = {}
    return MCPError(
        code=MISSING_REQUIRED_CLIENT_CAPABILITY,
        message=str(error),
        data={"requiredCapabilities": required},
    )
