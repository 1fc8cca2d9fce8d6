"""What surrounds the runs of a served call: the client answers, or else a provider does."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from mcp.shared.exceptions import MCPError
from mcp_types import (
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    ElicitRequest,
    ElicitRequestParams,
    ElicitResult,
    SamplingMessage,
)
from pydantic import ValidationError

from agentloop.definition import Definition
from agentloop.emulation import Emulated
from agentloop.errors import CapabilityError, ToolError
from agentloop.events import Sink
from agentloop.mcp.handle import keep, recall
from agentloop.mcp.handover import When
from agentloop.mcp.input_limits import InputLimits
from agentloop.mcp.recent import Recent
from agentloop.mcp.request import Request
from agentloop.mcp.stream import STREAM_SECONDS
from agentloop.place import Host, Place
from agentloop.provider import Provider
from agentloop.run import Run
from agentloop.store import Store

MAX_WIRE_STATE = 2 * 1024 * 1024
"""What a state may take on its way over the wire, before it is sealed.

It comes back in a request, of which the SDK takes 4 MiB, together with the client's answers.
"""

LEAVE_SECONDS = 30.0
"""What a function may take to clean up at the end of a round; clients begin to give up after 60."""

DEFAULT_INPUT_LIMITS = InputLimits()


@dataclass(frozen=True, slots=True)
class Serving:
    """How the author wants calls to be served."""

    provider: Provider | None = None
    """Answers for clients that cannot be asked."""
    store: Store | None = None
    """Keeps suspended calls; without one they cross the wire."""
    on_event: Sink | None = None
    """Listens to all runs."""
    emulate: bool = False
    """Ask clients that have ``sampling`` but not ``sampling.tools`` with tools written into the
    prompt, see :mod:`agentloop.emulation`."""
    max_state_bytes: int = MAX_WIRE_STATE
    """What a state may take that crosses the wire."""
    task: When = "when_needed"
    """When a call becomes a task, where the server has tasks and the client can deal with them."""
    input_limits: InputLimits = DEFAULT_INPUT_LIMITS
    """What is taken of a client."""
    stream_seconds: float | None = STREAM_SECONDS
    """How long a call's stream lasts before it is closed, see :mod:`agentloop.mcp.stream`."""
    leave_seconds: float = LEAVE_SECONDS
    """How long a function may take to be left at the end of a round."""
    recent: Recent = field(default_factory=Recent)
    """Keeps what suspended calls were, see :mod:`agentloop.mcp.recent`."""


class ServedHost(Host):
    """Asks the client where it declared that it can be asked; else the author's provider."""

    def __init__(
        self, request: Request, client: Provider, serving: Serving, sink: Sink | None
    ) -> None:
        """``client`` brings asks to the client of ``request``; ``sink`` listens to its runs."""
        super().__init__(serving.provider, sink)
        self.request = request
        self.client = client
        """The client as a provider, whatever it declared."""
        self._emulate = serving.emulate
        self.store = serving.store
        self.named = "" if serving.store is None else secrets.token_urlsafe(24)
        """Names the call where it is kept, if it is."""
        self._input_limits = serving.input_limits

    def provider(self, definition: Definition, own: Provider | None) -> Provider:
        """Raises :class:`CapabilityError` where neither client nor provider can answer."""
        missing = self.missing(tools=bool(definition.offered))
        if missing is None:
            return self.client
        provider = self._provider or own
        if provider is not None:
            return provider
        if self._emulate and self.missing(tools=False) is None:
            return Emulated(self.client)
        raise CapabilityError(
            f"agent {definition.name!r} needs a client with the capability {missing!r}, or a "
            "provider on the server's side",
            capability=missing,
        )

    async def ask_user(self, place: Place, params: ElicitRequestParams) -> ElicitResult:
        declared = self.request.session.client_capabilities
        modes = declared.elicitation if declared else None
        # A bare ``{}`` means forms only; a mode that was not declared MUST NOT be used.
        by_url = params.mode == "url"
        if modes is None or (modes.url is None if by_url else modes.url and not modes.form):
            raise ToolError(f"The client cannot ask its user for a {params.mode}.")
        return await self._elicit(place, params)

    async def _elicit(self, place: Place, params: ElicitRequestParams) -> ElicitResult:
        """Bring a question to the client, which can take it."""
        try:
            answer = await elicited(self.request, params)
        except (MCPError, ValidationError) as error:
            raise ToolError("The client could not ask its user.") from error
        self._input_limits.check(answer)
        return answer

    async def put_by(self, key: str, run: Run) -> str | None:
        if self.store is None:
            return None
        name = f"{self.named}/{key}"
        return await keep(self.store, run, name=name, principal=self.request.principal)

    async def take_up(self, handle: str, definition: Definition) -> Sequence[SamplingMessage]:
        if self.store is None:
            return await super().take_up(handle, definition)
        principal = self.request.principal
        return (await recall(self.store, handle, definition, principal=principal)).messages

    def missing(self, *, tools: bool) -> str | None:
        """The capability that the client would have to declare; None if it can be asked.

        Tools MUST NOT be sent to a client without ``sampling.tools`` (SEP-1577).
        """
        session = self.request.session
        declared = session.client_capabilities
        reachable = self.request.in_rounds or session.can_send_request
        if declared is None or declared.sampling is None or not reachable:
            return "sampling.tools" if tools else "sampling"
        return "sampling.tools" if tools and declared.sampling.tools is None else None


async def elicited(request: Request, params: ElicitRequestParams) -> ElicitResult:
    """What the person at the client answers, who is asked while ``request`` waits."""
    if params.mode == "url":  # 2025-11-25 wants an id, 2026-07-28 has none
        params = params.model_copy(update={"elicitation_id": secrets.token_urlsafe(16)})
    return await request.ask(ElicitRequest(params=params), ElicitResult)


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
