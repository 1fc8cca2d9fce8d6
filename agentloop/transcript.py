"""The messages of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Any, TypeAlias, TypeVar, overload

from mcp_types import SamplingMessage, SamplingMessageContentBlock
from pydantic import BaseModel, Field, TypeAdapter

ModelT = TypeVar("ModelT", bound=BaseModel)

WIRE: dict[str, Any] = {"mode": "json", "by_alias": True, "exclude_none": True}
"""How the protocol's types are written, as options of ``model_dump``."""


def remade(model: ModelT, **values: Any) -> ModelT:
    """A copy of ``model`` with ``values`` in it, unchecked.

    It is ``model_copy`` at half its cost, for models without private attributes: every step makes
    two messages, a request and results.
    """
    new = _new(type(model))
    _put_values(new, model.__dict__ | values)
    _put_fields_set(new, {*model.__pydantic_fields_set__, *values})
    _put_extra(new, None)
    _put_private(new, None)
    return new


_new: Any = object.__new__
_put_values, _put_fields_set, _put_extra, _put_private = (
    vars(BaseModel)[slot].__set__
    for slot in (
        "__dict__",
        "__pydantic_fields_set__",
        "__pydantic_extra__",
        "__pydantic_private__",
    )
)


def written(message: SamplingMessage) -> dict[str, Any]:
    """``message`` in the protocol's own JSON."""
    return message.model_dump(**WIRE)


class Transcript(Sequence[SamplingMessage]):
    """An immutable sequence of messages whose ``append`` is O(1).

    Transcripts that grow from each other share one list, each looking at its own length of it; a
    second append to the same transcript copies. So keeping every earlier state of a run costs
    nothing, and a step's cost does not grow with the history.
    """

    __slots__ = ("_items", "length")

    def __init__(self, messages: Iterable[SamplingMessage] = ()) -> None:
        self._items = list(messages)
        self.length = len(self._items)

    @property
    def last(self) -> SamplingMessage:
        """The last message."""
        return self._items[self.length - 1]

    def append(self, message: SamplingMessage) -> Transcript:
        """This transcript and ``message`` after it."""
        if len(self._items) != self.length:
            return Transcript([*self, message])
        self._items.append(message)
        grown = Transcript.__new__(Transcript)
        grown._items = self._items
        grown.length = self.length + 1
        return grown

    def replace_last(self, message: SamplingMessage) -> Transcript:
        """This transcript with ``message`` in the place of its last one."""
        return Transcript([*self._items[: self.length - 1], message])

    def to_list(self) -> list[SamplingMessage]:
        """A new list of the messages, as a sampling request wants it."""
        return self._items[: self.length]

    def latest(self, number: int) -> list[SamplingMessage]:
        """The last messages, at most ``number`` of them."""
        return self._items[max(self.length - number, 0) : self.length]

    def imbalance(self, *, open: bool = False) -> str | None:
        """Where tool uses and tool results do not match, or None where they do (SEP-1577).

        Each tool use has one result, in the user message right after it, which holds nothing else.
        With ``open`` the uses of the last message may wait for their results.
        """
        wanted: list[str] = []
        for number, message in enumerate(self.to_list()):
            blocks = message.content_as_list
            given = [block.tool_use_id for block in blocks if block.type == "tool_result"]
            if given != wanted and sorted(given) != sorted(wanted):
                return f"message {number} has not one result for each tool use before it"
            if given and (message.role != "user" or len(given) != len(blocks)):
                return f"message {number} holds something else than results"
            wanted = [block.id for block in blocks if block.type == "tool_use"]
            if wanted and message.role != "assistant":
                return f"message {number} holds a tool use that is not the model's"
            if len(wanted) > 1 and len(set(wanted)) != len(wanted):
                return f"message {number} has two tool uses of one id"
        return "the last message has tool uses without results" if wanted and not open else None

    def to_json(
        self, write: Callable[[SamplingMessage], dict[str, Any]] = written, *, since: int = 0
    ) -> list[dict[str, Any]]:
        """The messages from number ``since`` on, in the protocol's own JSON.

        ``write`` writes one of them.
        """
        return [write(message) for message in self[since:]]

    @classmethod
    def from_json(cls, data: object) -> Transcript:
        """Read what :meth:`to_json` wrote. Raises ``pydantic.ValidationError``."""
        read = _MESSAGES.validate_python(data, by_name=False, by_alias=True)
        for message in read:  # from now on they are the SDK's own, which has the same fields
            object.__setattr__(message, "__class__", SamplingMessage)
        return cls(read)

    @overload
    def __getitem__(self, index: int) -> SamplingMessage: ...
    @overload
    def __getitem__(self, index: slice) -> list[SamplingMessage]: ...
    def __getitem__(self, index: int | slice) -> SamplingMessage | list[SamplingMessage]:
        if isinstance(index, slice):
            return self._items[: self.length][index]
        at = index if index >= 0 else self.length + index
        if 0 <= at < self.length:
            return self._items[at]
        raise IndexError(f"message {index} of {self.length}")

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[SamplingMessage]:
        for index in range(self.length):
            yield self._items[index]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Transcript):
            return NotImplemented
        return self.length == other.length and all(
            a is b or a == b for a, b in zip(self, other, strict=True)
        )

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __repr__(self) -> str:
        return f"Transcript({self.length} messages)"


_Block: TypeAlias = Annotated[SamplingMessageContentBlock, Field(discriminator="type")]


class _Message(SamplingMessage):
    """A message as it is read: each block as what it says it is. The SDK's own type tries all kinds
    of block for each one, which takes three times as long."""

    content: list[_Block] | _Block


_MESSAGES: TypeAdapter[list[_Message]] = TypeAdapter(list[_Message])
