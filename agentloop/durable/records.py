"""What is written of a durable run: JSON that says what it is, so that other versions can tell."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, cast

from dbos import Serializer

from agentloop.definition import Definition
from agentloop.errors import AgentLoopError, DefinitionError, StateError, where
from agentloop.run import Run
from agentloop.usage import Limits

VERSION = 1
APPLICATION = "agentloop"
"""What all runs here say that they are a version of, whichever program they are of."""
CANCELLED = "agentloop.cancelled"
"""Marks a run that is to be cancelled, so that nobody takes it over meanwhile."""
INSIDE = "//"
"""Stands between the id of a run and the place of one inside of it."""


def queue_of(program: str, agent: str) -> str:
    """The queue that the processes of ``program`` take runs of ``agent`` from."""
    return f"{program}.{agent}"


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be run: all that another process needs to know, besides the agent itself."""

    run: Run
    """As it is before its first ask."""
    nesting: int = 0
    """How many runs this one is inside of."""
    until: float | None = None
    """When it must be over, in seconds since the epoch."""

    def to_json(self) -> dict[str, Any]:
        # Limits steer a run, so those that it began with go on to hold where the agent's change.
        limits = asdict(self.run.definition.limits)
        return {
            "v": VERSION,
            "run": self.run.to_json(),
            "limits": limits,
            "nesting": self.nesting,
            "until": self.until,
        }

    @classmethod
    def from_json(cls, data: Any, definition: Definition) -> Order:
        """Read what :meth:`to_json` wrote.

        Raises :class:`StateError` where it is damaged, of another version of agentloop, or of
        another agent than ``definition``.
        """
        if not isinstance(data, dict) or data.get("v") != VERSION:  # pyright: ignore[reportUnknownMemberType]
            raise StateError(
                f"the run was recorded by another version of agentloop: this one reads records of "
                f"version {VERSION}"
            )
        order = cast("dict[str, Any]", data)
        try:
            limits = Limits(**order["limits"])
            nesting, until = int(order["nesting"]), order["until"]
            saved = order["run"]
        except (LookupError, TypeError, ValueError) as error:
            raise StateError(f"the recorded run is damaged: {type(error).__name__}") from error
        run = Run.from_json(saved, definition.limited(limits))
        return cls(run=run, nesting=nesting, until=until)


def finished(data: Any, definition: Definition) -> Run:
    """The run that a durable run came to. Raises :class:`StateError` where it cannot be read."""
    if not isinstance(data, dict):
        raise StateError("the recorded result is damaged")
    # It has ended, so nothing goes on with it: an agent that has changed since may read it.
    return Run.from_json({**cast("dict[str, Any]", data), "of": definition.digest}, definition)


class JSONSerializer(Serializer):
    """Writes JSON, exceptions included; nothing that is read makes code run."""

    def serialize(self, data: Any) -> str:
        return json.dumps(data, separators=(",", ":"), default=_write)

    def deserialize(self, serialized_data: str) -> Any:
        data: Any = json.loads(serialized_data)
        said = cast("dict[str, Any]", data) if isinstance(data, dict) else {}
        if said.keys() == {"error", "message"}:
            return _raised(said["error"], said["message"])
        return cast("Any", data)

    def name(self) -> str:
        return "agentloop_json"


def _write(value: object) -> Any:
    if isinstance(value, AgentLoopError):
        return {"error": value.code, "message": str(value)}
    if isinstance(value, BaseException):  # whose text may hold secrets
        return {"error": "error", "message": f"{type(value).__name__} at {where(value)}"}
    return repr(value)


def _raised(code: str, message: str) -> AgentLoopError:
    kinds = {kind.code: kind for kind in _kinds(AgentLoopError)}
    try:
        return kinds.get(code, AgentLoopError)(message)
    except TypeError:  # one that takes more than a message
        return AgentLoopError(message)


def _kinds(kind: type[AgentLoopError]) -> Iterator[type[AgentLoopError]]:
    for below in kind.__subclasses__():
        yield below
        yield from _kinds(below)


def check_id(id: str) -> str:
    """``id``, if a run may be called so. Raises :class:`DefinitionError`."""
    if not 1 <= len(id) <= 200 or "//" in id or not id.isprintable():
        raise DefinitionError(
            f"the id of a run is 1 to 200 printable characters without '//', not {id!r}"
        )
    return id
