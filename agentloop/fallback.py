"""Several providers, of which one answers."""

from __future__ import annotations

import math

import anyio
from mcp_types import CreateMessageRequestParams

from agentloop.errors import (
    AskTimeoutError,
    AuthenticationError,
    BadRequestError,
    CapabilityError,
    ContextOverflowError,
    DefinitionError,
    DeniedError,
    MalformedReplyError,
    OverloadedError,
    ProviderError,
    UnreachableError,
)
from agentloop.log import log
from agentloop.meta import Reply
from agentloop.patience import time_left
from agentloop.provider import Provider

FALLS_BACK_ON: tuple[type[ProviderError], ...] = (
    OverloadedError,
    UnreachableError,
    AskTimeoutError,
    DeniedError,
    AuthenticationError,
    CapabilityError,
    MalformedReplyError,
)
"""What another provider need not fail with too.

Not in it are errors that blame the request (``BadRequestError``, ``ContextOverflowError``): they
are the author's to see. Add them where the next provider takes more than the one before.
"""


class Fallback:
    """Asks the first provider, and the next one where that one cannot answer.

    A client that denies an ask, is rate limited or does not answer in time is one that cannot
    answer: with ``Fallback(client, own)`` the server's own model goes on instead. Where a person's
    no shall mean no, leave ``DeniedError`` out of ``on``.
    """

    def __init__(
        self,
        *providers: Provider,
        sticky: bool = False,
        on: tuple[type[ProviderError], ...] = FALLS_BACK_ON,
        seconds: float | None = None,
    ) -> None:
        """``sticky`` stays with the provider that answered last, until it fails; otherwise every
        ask begins with the first. ``on`` are the errors that bring in the next provider.

        ``seconds`` is how long each provider but the last may take; by default each gets an equal
        share of the time that the ask has. ``math.inf`` leaves all of it to the first.
        Raises :class:`DefinitionError` without any provider.
        """
        if not providers:
            raise DefinitionError("Fallback() needs at least one provider")
        self.providers = providers
        self._sticky = sticky
        self._on = on
        self._seconds = seconds
        self._first = 0

    @property
    def asks_caller(self) -> bool:
        """Whether one of them is the client of the call that is being served."""
        return any(getattr(provider, "asks_caller", False) for provider in self.providers)

    @property
    def name(self) -> str:
        return f"fallback({', '.join(provider.name for provider in self.providers)})"

    async def sample(self, request: CreateMessageRequestParams) -> Reply:
        """Answer with the first provider that can.

        Where none can, raises the kind of error that the last one asked failed with; its message
        tells all failures, and an ``ExceptionGroup`` of them is its ``__cause__``.
        """
        failures: list[tuple[str, ProviderError]] = []
        count, first = len(self.providers), self._first
        for turn in range(count):
            number = (first + turn) % count
            provider = self.providers[number]
            try:
                reply = await self._ask(provider, request, left=count - turn)
            except ProviderError as error:
                failures.append((provider.name, error))
                if not isinstance(error, self._on):
                    break
                log().warning("provider_could_not_answer", provider=provider.name, error=error.code)
            else:
                if self._sticky:
                    self._first = number
                return reply
        if len(failures) == 1:
            raise failures[0][1]
        raise _together(failures) from ExceptionGroup(
            "no provider could answer", [error for _, error in failures]
        )

    async def _ask(
        self, provider: Provider, request: CreateMessageRequestParams, *, left: int
    ) -> Reply:
        """The answer of ``provider``, which has ``left - 1`` others after it."""
        seconds = self._patience(left)
        if seconds == math.inf:
            return await provider.sample(request)
        with anyio.move_on_after(seconds):
            return await provider.sample(request)
        raise AskTimeoutError(f"no answer within {seconds:.3g} s")

    def _patience(self, left: int) -> float:
        if left == 1 or not any(issubclass(AskTimeoutError, kind) for kind in self._on):
            return math.inf
        if self._seconds is not None:
            return self._seconds
        return time_left() / left


_KINDS = (
    AuthenticationError,
    BadRequestError,
    ContextOverflowError,
    DeniedError,
    MalformedReplyError,
    OverloadedError,
    UnreachableError,
    AskTimeoutError,
)


def _together(failures: list[tuple[str, ProviderError]]) -> ProviderError:
    told = "; ".join(f"{name}: {error.code}: {error}" for name, error in failures)
    last = failures[-1][1]
    kind = next((kind for kind in _KINDS if isinstance(last, kind)), ProviderError)
    return kind(f"no provider could answer: {told}", status=last.status, request_id=last.request_id)
