"""What goes out to the client, with each message of a history written only once.

A loop sends its whole history with every ask, and over rounds keeps it in the state besides. Left
to the SDK, each message would be turned into JSON again each time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from operator import is_
from typing import TYPE_CHECKING, Any

from mcp_types import (
    CreateMessageRequest,
    CreateMessageRequestParams,
    InputRequest,
    InputRequiredResult,
    SamplingMessage,
)

from agentloop.memo import Memo
from agentloop.transcript import WIRE, remade, written


class Writer:
    """Writes messages, and remembers those that it wrote or was told of."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[SamplingMessage, dict[str, Any]]] = {}
        self._latest: tuple[list[SamplingMessage], list[dict[str, Any]]] = ([], [])
        self._rest: tuple[dict[str, Any], dict[str, Any]] = ({}, {})

    def message(self, message: SamplingMessage) -> dict[str, Any]:
        """``message`` in the protocol's own JSON, which nobody may change."""
        known = self._known.get(id(message))
        if known is None:
            # The message is kept along, so that no other one gets its id.
            known = self._known[id(message)] = (message, written(message))
        return known[1]

    def history(self, messages: list[SamplingMessage]) -> list[dict[str, Any]]:
        """``messages`` in the protocol's own JSON; mostly they are those of the last time and a few
        more."""
        before, written = self._latest
        known = len(before) if len(before) <= len(messages) else 0
        if not all(map(is_, before[:known], messages)):
            known = 0
        written = [*written[:known], *map(self.message, messages[known:])]
        self._latest = (list(messages), written)  # whoever asks may add to the list that they have
        return list(written)

    def params(self, params: CreateMessageRequestParams) -> dict[str, Any]:
        """``params`` in the protocol's own JSON; mostly all but the messages and tools is that of
        the last time."""
        values = {name: value for name, value in params.__dict__.items() if name not in _LISTS}
        before, rest = self._rest
        if before != values:
            rest = params.model_dump(**WIRE, exclude=_LISTS)
            # What can be changed where it is would be taken for the same.
            plain = all(value is None or isinstance(value, _PLAIN) for value in values.values())
            self._rest = (values if plain else {}, rest)
        written = {**rest, "messages": self.history(params.messages)}
        if params.tools is not None:
            written["tools"] = [
                _TOOLS.get(tool, partial(tool.model_dump, **WIRE)) for tool in params.tools
            ]
        return written

    def remember(self, messages: Iterable[tuple[SamplingMessage, dict[str, Any]]]) -> None:
        """Take each of ``messages`` as written already."""
        self._known.update((id(message), (message, data)) for message, data in messages)

    def request(self, params: CreateMessageRequestParams) -> CreateMessageRequest:
        """The request for ``params``; it is written when it leaves."""
        request = remade(_BLANK, params=params)
        object.__setattr__(request, "writer", self)
        return request


_TOOLS: Memo[dict[str, Any]] = Memo()
"""Tools as they are written: they are an agent's, and leave with every ask of each of its runs."""


_LISTS = {"messages", "tools"}
_PLAIN = (str, int, float)


class _Request(CreateMessageRequest):
    """A sampling request whose messages are written by a :class:`Writer`."""

    __slots__ = ("writer",)  # no private attribute of pydantic's: those take a step's tenth
    if TYPE_CHECKING:
        writer: Writer

    def model_dump(self, **options: Any) -> dict[str, Any]:
        if options != WIRE:
            return super().model_dump(**options)
        return {"method": self.method, "params": self.writer.params(self.params)}


_BLANK = _Request.model_construct(method="sampling/createMessage")


class _Asks(InputRequiredResult):
    """An ``InputRequiredResult`` whose requests write themselves."""

    def model_dump(self, **options: Any) -> dict[str, Any]:
        if options != WIRE or not self.input_requests:
            return super().model_dump(**options)
        data = super().model_dump(**WIRE, exclude={"input_requests"})
        data["inputRequests"] = {
            key: request.model_dump(**WIRE) for key, request in self.input_requests.items()
        }
        return data


def sending(requests: Mapping[str, InputRequest], state: str | None) -> InputRequiredResult:
    """The result that sends ``requests``; ``state`` is what the client brings back."""
    return _Asks.model_construct(
        result_type="input_required", input_requests=dict(requests), request_state=state
    )
