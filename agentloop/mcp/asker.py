"""The client of the call that is being served, as a provider like any other."""

from __future__ import annotations

from mcp_types import CreateMessageRequestParams

from agentloop.errors import BadRequestError, CapabilityError
from agentloop.mcp.served import ServedHost
from agentloop.meta import Reply
from agentloop.place import HERE
from agentloop.provider import Provider


class Caller:
    """Asks whoever called, by whichever carrier they allow.

    An agent asks its caller by itself; this is for saying more, as in
    ``agent.run(prompt, provider=Fallback(caller, own))``: the client first, and the server's own
    model where the client denies, is rate limited or does not answer in time.
    """

    name = "caller"
    asks_caller = True

    async def sample(self, request: CreateMessageRequestParams) -> Reply:
        """Raises :class:`CapabilityError` where the client did not declare what is needed."""
        return await self._client(tools=bool(request.tools)).sample(request)

    def _client(self, *, tools: bool) -> Provider:
        place = HERE.get()
        while place is not None:
            if isinstance(place.host, ServedHost):
                missing = place.host.missing(tools=tools)
                if missing is not None:
                    raise CapabilityError(
                        f"the client lacks the capability {missing!r}", capability=missing
                    )
                return place.host.client
            place = place.parent
        raise BadRequestError("there is no caller: this does not run for an MCP client")


caller = Caller()
"""The client of the call that is being served."""
