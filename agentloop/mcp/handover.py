"""How a call that is being served goes on without its client, as a task.

What a served call sees of tasks: :func:`running` is the task that it goes on in, and
:data:`HANDOVER` is set while it may become one. :mod:`agentloop.mcp.tasks` creates tasks and works
on them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

from mcp.shared.exceptions import MCPError
from mcp_types import MISSING_REQUIRED_CLIENT_CAPABILITY, ClientCapabilities, RequestId

from agentloop.place import HERE, Place
from agentloop.store import Store
from agentloop.task import Task

EXTENSION = "io.modelcontextprotocol/tasks"
"""The extension that clients declare which can deal with tasks (SEP-2663)."""

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

When = Literal["never", "when_needed", "always", "required"]
"""When a call becomes a task, where the client can deal with tasks.

``when_needed``: once it has no more rounds, or calls :func:`detach`. ``always``: at once.
``required``: at once, and a client that cannot deal with tasks gets an error.
"""


_SETTING = "__agentloop_task__"


def with_setting(function: FunctionT, setting: Callable[[str], When | None]) -> FunctionT:
    """``function``, which serves tools, known to have ``setting`` by a tool's name."""
    setattr(function, _SETTING, setting)
    return function


def setting_of(function: Any, name: str) -> When | None:
    """When calls of the tool ``name``, which ``function`` serves, become tasks, if it was said."""
    setting: Callable[[str], When | None] | None = getattr(function, _SETTING, None)
    return None if setting is None else setting(name)


@dataclass(frozen=True, slots=True)
class Continued:
    """A call of a store that goes on without its client."""

    call: str
    """Names the call in the store."""
    round: int = 0
    """The round with which it goes on."""
    asks: Mapping[str, Any] | None = None
    """What is asked of the client first, in the protocol's own JSON, by key."""


class Handover(Protocol):
    """The chance of a served call to become a task."""

    store: Store
    """Keeps the call, where its function has no store of its own."""
    keep: float
    """Seconds for which the call must be kept, should it become a task."""

    async def take(self, continued: Continued) -> None:
        """Make a task of the call; its client gets the handle in place of a result."""
        ...


@dataclass(frozen=True, slots=True)
class Running:
    """A task that a worker goes on with."""

    task: Task
    store: Store
    """Keeps the call, where its function has no store of its own."""

    @property
    def request_id(self) -> str:
        """The id of the request in which it goes on; calls that this one makes have others."""
        return f"task:{self.task.id}:{self.task.round}"

    @property
    def keep(self) -> float:
        """Seconds for which the call must be kept, waits for its client included."""
        return kept_for(self.task.ttl)


def kept_for(ttl: float | None) -> float:
    """Seconds for which the call of a task must be kept."""
    return 3650 * 86_400.0 if ttl is None else ttl


HANDOVER: ContextVar[Handover | None] = ContextVar("agentloop_handover", default=None)
"""Set while the served call may become a task, as its client can deal with them."""

_RUNNING: ContextVar[Running | None] = ContextVar("agentloop_running", default=None)


def running(request_id: RequestId | None) -> Running | None:
    """The task that goes on in this request; None where it is somebody's ordinary request."""
    found = _RUNNING.get()
    return found if found is not None and found.request_id == request_id else None


@contextmanager
def going_on(with_: Running) -> Generator[None]:
    """What is called inside, in the request of that id, is the task going on."""
    token = _RUNNING.set(with_)
    try:
        yield
    finally:
        _RUNNING.reset(token)


def declares_tasks(capabilities: ClientCapabilities | None) -> bool:
    """Whether a client said, with this request, that it can deal with tasks."""
    return capabilities is not None and EXTENSION in (capabilities.extensions or {})


def tasks_not_declared() -> MCPError:
    """The error for a client that cannot deal with tasks where there is no other way."""
    return MCPError(
        code=MISSING_REQUIRED_CLIENT_CAPABILITY,
        message=f"this needs a client that declares the extension {EXTENSION!r}",
        data={"requiredCapabilities": {"extensions": {EXTENSION: {}}}},
    )


async def detach() -> None:
    """Go on without the client from here on, as a task, if the client can deal with tasks.

    For functions that first ask what they need to know, and then take long. Does nothing where the
    call is a task already, or cannot be one. Call it between runs, not in a tool.
    """
    here = HERE.get()
    if here is None or not isinstance(here.host, Detachable):
        return
    place = here.below()
    try:
        await here.host.detach(place)
    finally:
        place.leave()


@runtime_checkable
class Detachable(Protocol):
    """A host whose function can be left, to go on as a task."""

    async def detach(self, place: Place) -> None:
        """Leave the function at ``place``, if it can go on as a task."""
        ...
