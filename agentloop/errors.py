"""The errors of agentloop, in one tree.

    AgentLoopError
    ├── DefinitionError      an agent, a tool or a limit is wrong: the author's mistake
    ├── RunCancelled         a durable run was cancelled before its end
    ├── StateError           a saved run does not fit the code that should go on with it
    ├── StoreError           a store did not do what it was asked to
    │   ├── UnknownRoundError
    │   ├── StaleOwnerError  somebody else goes on with it by now
    │   ├── TaskEndedError
    │   └── TooManyTasksError
    ├── RunStopped           a run ended without what the caller wanted from it; carries the result
    └── ProviderError        a provider could not answer an ask
        ├── AuthenticationError
        ├── BadRequestError
        ├── CapabilityError  the client cannot be asked
        ├── ContextOverflowError
        ├── DeadlineError    the time for a durable run was over
        ├── DeniedError      a person or a policy said no to this ask
        ├── MalformedReplyError
        ├── OverloadedError  rate limits, 5xx, connections that break: worth another try later
        ├── UnreachableError nothing answers where the provider should be
        └── AskTimeoutError
    NotDone                  what a tool's ``reconcile`` raises: the call did not happen, run it
    ToolError                what a tool raises to tell the *model* something; never leaves a run

A tool's failure is a result for the model; a provider's failure ends the run with the stop
``failed`` or ``denied`` and the transcript kept.
"""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

if TYPE_CHECKING:
    from agentloop.result import RunResult


ErrorT = TypeVar("ErrorT", bound=BaseException)


def first_of(error: BaseException, *kinds: type[ErrorT]) -> ErrorT | None:
    """``error`` itself, or the first inside of a task group's, that is one of ``kinds``."""
    if isinstance(error, kinds):
        return error
    if isinstance(error, BaseExceptionGroup):
        inside: tuple[BaseException, ...] = cast("Any", error).exceptions
        return next((found for each in inside if (found := first_of(each, *kinds))), None)
    return None


def where(error: BaseException) -> str | None:
    """File and line that raised ``error``: what a log may say of it, as its text may hold secrets.

    None where that was not in Python.
    """
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else None


class AgentLoopError(Exception):
    """Base of every error that agentloop raises. ``code`` is stable across versions."""

    code: ClassVar[str] = "error"


class DefinitionError(AgentLoopError, ValueError):
    """An agent, a tool or a limit cannot be what it was said to be."""

    code = "definition"


class StateError(AgentLoopError):
    """A saved run does not belong to the code that was asked to go on with it."""

    code = "state"


class StoreError(AgentLoopError):
    """The store did not do what it was asked to."""

    code = "store"


class UnknownRoundError(StoreError):
    """There is no such round: it never was, or it has expired."""

    code = "unknown_round"


class StaleOwnerError(StoreError):
    """The round was taken over by another owner; nothing was written."""

    code = "stale_owner"


class TaskEndedError(StoreError):
    """The task has ended, so nothing can be done to it any more."""

    code = "task_ended"


class TooManyTasksError(StoreError):
    """As many tasks are open already as there may be."""

    code = "too_many_tasks"


class RunCancelled(AgentLoopError):
    """A durable run was cancelled, so it has no result."""

    code = "cancelled"


class RunStopped(AgentLoopError):
    """A run ended without what was wanted of it. ``result`` is the whole :class:`RunResult`."""

    code = "stopped"

    def __init__(self, message: str, result: RunResult[Any]) -> None:
        super().__init__(message)
        self.result = result


class ProviderError(AgentLoopError):
    """A provider could not answer.

    ``retryable`` says whether the same ask may succeed later; ``status`` and ``request_id`` are
    the provider's own, where it gave them.
    """

    code = "provider"
    retryable: ClassVar[bool] = False

    def __init__(
        self, message: str, *, status: int | None = None, request_id: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.request_id = request_id


class AuthenticationError(ProviderError):
    """The provider did not accept the key, or the key may not do this."""

    code = "authentication"


class BadRequestError(ProviderError):
    """The provider says that the request itself is wrong."""

    code = "bad_request"


class CapabilityError(ProviderError):
    """The client did not declare that it can be asked so, and there is no provider to ask instead.

    ``capability`` names what it would have to declare, e.g. ``sampling.tools``.
    """

    code = "capability"

    def __init__(self, message: str, *, capability: str = "sampling") -> None:
        super().__init__(message)
        self.capability = capability


class ContextOverflowError(ProviderError):
    """The messages no longer fit the model's context window."""

    code = "context_overflow"


class DeadlineError(ProviderError):
    """The deadline of a durable run came before the answer."""

    code = "deadline"


class DeniedError(ProviderError):
    """A person or a policy at the model's side said no. Never retried."""

    code = "denied"


class MalformedReplyError(ProviderError):
    """The reply is not what the protocol allows, also after one repair."""

    code = "malformed_reply"


class OverloadedError(ProviderError):
    """Rate limited or overloaded, or the connection broke."""

    code = "overloaded"
    retryable = True


class UnreachableError(ProviderError):
    """No connection to the provider came about: the address is wrong, or nobody listens there."""

    code = "unreachable"
    retryable = True


class AskTimeoutError(ProviderError):
    """No answer within the time that an ask may take."""

    code = "timeout"
    retryable = True


class NotDone(Exception):
    """Raised by a tool's ``reconcile`` where the call is known not to have happened."""


class ToolError(Exception):
    """Raised by a tool to tell the model what went wrong; its message reaches the model as is.

    The message of any other exception stays on the server: the model sees its type only.
    """
