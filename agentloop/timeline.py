"""Reading transcript files: what they tell of runs, put together.

Files come from other versions and other hands, so nothing in them is taken for granted: what is of
the wrong kind counts as absent, what is unknown is skipped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

from agentloop.errors import StateError
from agentloop.story import Block, Call, Step, Story
from agentloop.transcript_file import KIND, VERSION


def read(file: str | Path) -> list[Story]:
    """The outermost runs that ``file`` tells of, in the order in which they began.

    Raises ``OSError``, and :class:`StateError` for a file that is no transcript, or one of a later
    version than this one reads.
    """
    with Path(file).open(encoding="utf-8", errors="replace") as lines:
        return tell(lines)


def tell(lines: Iterable[str]) -> list[Story]:
    """The outermost runs that the ``lines`` of a file tell of. Raises :class:`StateError`."""
    entries = sorted(_entries(lines), key=lambda entry: entry[0])
    stories: dict[str, _Builder] = {}
    for at, entry in entries:
        id = _text(entry.get("run"))
        if id not in stories:
            stories[id] = _Builder(Story(id, _text(entry.get("key"), "0"), began=at))
        stories[id].take(at, entry)
    return _nested({id: builder.finished() for id, builder in stories.items()})


# --- lines -------------------------------------------------------------------------------------


def _entries(lines: Iterable[str]) -> Iterator[tuple[float, dict[str, Any]]]:
    """The entries with their times; a line that was cut off when its process died is skipped."""
    offset: float | None = None
    for line in lines:
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        if isinstance(entry, dict) and "agentloop" in entry:
            offset = _header(cast("dict[str, Any]", entry))
        elif offset is None:
            raise StateError("this is no transcript: it does not begin as one")
        elif isinstance(entry, dict):
            known = cast("dict[str, Any]", entry)
            yield offset + _number(known.get("t")), known
    if offset is None:
        raise StateError("this is no transcript: it is empty")


def _header(entry: dict[str, Any]) -> float:
    kind, version = entry["agentloop"], entry.get("version")
    if kind != KIND:
        raise StateError(f"this is no transcript, but a {_text(kind, 'file')[:40]} of agentloop's")
    if not isinstance(version, int) or version > VERSION:
        raise StateError(
            f"the transcript is of version {str(version)[:20]}, and this agentloop reads versions "
            f"up to {VERSION}: a later agentloop wrote it"
        )
    return _number(entry.get("at"))


class _Builder:
    """Puts the story of one run together from what the file says of it."""

    def __init__(self, story: Story) -> None:
        self._story = story
        self._steps: dict[int, Step] = {}
        self._messages: dict[int, tuple[int, dict[str, Any]]] = {}
        self._times: dict[tuple[int, str], Call] = {}
        self._answered = 0
        self._known: dict[str, Any] = {
            "run_started": self._run_started,
            "message": self._message,
            "ask_started": self._ask_started,
            "ask_ended": self._ask_ended,
            "tool_started": self._tool_started,
            "tool_ended": self._tool_ended,
            "run_ended": self._run_ended,
        }

    def take(self, at: float, entry: dict[str, Any]) -> None:
        self._story.last = max(self._story.last, at)
        if handle := self._known.get(_text(entry.get("event"))):
            handle(at, entry)

    def finished(self) -> Story:
        if not self._steps:
            self._number_the_messages()
        for n in sorted(self._messages):
            self._tell(*self._messages[n])
        self._story.steps = [self._steps[number] for number in sorted(self._steps)]
        for step in self._story.steps:
            step.calls.sort(key=lambda call: call.number)
        return self._story

    def _number_the_messages(self) -> None:
        """Of a run whose asks nobody saw: each message of the model is a step."""
        step = 0
        for n in sorted(self._messages):
            message = self._messages[n][1]
            step += message.get("role") == "assistant"
            self._messages[n] = (step, message)

    def _run_started(self, at: float, entry: dict[str, Any]) -> None:
        story = self._story
        story.parts += 1
        story.agent = _text(entry.get("agent"), story.agent)
        story.instructions = _text(entry.get("instructions"))
        story.tools = [_text(name) for name in _list(entry.get("tools"))]
        story.trace = _text(entry.get("trace"), story.trace)
        story.within = _text(entry.get("within"), story.within)
        began = _number(entry.get("began"))
        story.began = min(began, story.began) if began else story.began

    def _message(self, at: float, entry: dict[str, Any]) -> None:
        message, n = entry.get("message"), entry.get("n")
        if isinstance(message, dict) and isinstance(n, int) and n not in self._messages:
            self._messages[n] = (self._answered, cast("dict[str, Any]", message))

    def _ask_started(self, at: float, entry: dict[str, Any]) -> None:
        ask = self._step(entry).ask
        ask.began = at
        ask.provider = _text(entry.get("provider"))

    def _ask_ended(self, at: float, entry: dict[str, Any]) -> None:
        step = self._step(entry)
        ask, usage = step.ask, entry.get("usage")
        if ask.began is None:
            ask.began = at - _number(entry.get("seconds"))
        ask.ended = at
        ask.provider = _text(entry.get("provider"))
        ask.model = _text(entry.get("model"))
        ask.stop_reason = _text(entry.get("stop_reason"))
        ask.usage, ask.estimated = _usage(usage)
        self._answered = max(self._answered, step.number)

    def _tool_started(self, at: float, entry: dict[str, Any]) -> None:
        call = self._call(entry)
        call.began = at if call.began is None else call.began

    def _tool_ended(self, at: float, entry: dict[str, Any]) -> None:
        call = self._call(entry)
        call.ended = at
        if call.began is None:
            call.began = at - _number(entry.get("seconds"))
        call.failed = bool(entry.get("failed"))

    def _run_ended(self, at: float, entry: dict[str, Any]) -> None:
        story = self._story
        story.ended = at
        story.stop = _text(entry.get("stop"))
        story.error = _text(entry.get("error"))
        story.usage, story.estimated = _usage(entry.get("usage"))
        story.answer = entry.get("answer")

    def _step(self, entry: dict[str, Any]) -> Step:
        number = entry.get("step")
        number = number if isinstance(number, int) and 0 < number < 10**6 else 0
        return self._steps.setdefault(number, Step(number))

    def _call(self, entry: dict[str, Any]) -> Call:
        step, id = self._step(entry), _text(entry.get("call"))
        if (step.number, id) not in self._times:
            self._times[step.number, id] = Call(id, _text(entry.get("name")))
            step.calls.append(self._times[step.number, id])
        call = self._times[step.number, id]
        if isinstance(number := entry.get("number"), int):
            call.number = number
        return call

    def _tell(self, number: int, message: dict[str, Any]) -> None:
        """Put what a message says where it belongs: into the step of that number, or before all."""
        content = message.get("content")
        blocks = [
            cast("Block", block)
            for block in (_list(content) if isinstance(content, list) else [content])
            if isinstance(block, dict)
        ]
        if number == 0:
            role = _text(message.get("role"))
            self._story.before += [(role, block) for block in blocks]
            return
        step = self._steps.setdefault(number, Step(number))
        uses = 0
        for block in blocks:
            if block.get("type") == "tool_use":
                self._use(step, block, uses)
                uses += 1
            elif block.get("type") == "tool_result":
                self._result(step, block)
            elif message.get("role") == "assistant":
                step.said.append(block)
            else:
                step.told.append(block)

    def _use(self, step: Step, block: Block, number: int) -> None:
        call = self._call({"step": step.number, "call": block.get("id"), "name": block.get("name")})
        call.name = _text(block.get("name"), call.name)
        call.input, call.number = block.get("input"), number

    def _result(self, step: Step, block: Block) -> None:
        call = self._call({"step": step.number, "call": block.get("toolUseId")})
        content = _list(block.get("content"))
        call.result = [cast("Block", item) for item in content if isinstance(item, dict)]
        call.failed = call.failed or bool(block.get("isError"))


# --- the tree ----------------------------------------------------------------------------------

_LONGEST = 1000
"""Characters of a key: no run is so deep inside others that it takes more."""
_PLACE = re.compile(r"(\d{1,6})\.(\d{1,6})/")


def _nested(stories: dict[str, Story]) -> list[Story]:
    """The stories that are not inside another one; the others are put where they belong."""
    outermost: list[Story] = []
    for story in sorted(stories.values(), key=lambda story: story.began):
        outer = stories.get(story.within)
        call = outer and _call_around(story, outer)
        if call is None:
            outermost.append(story)
        else:
            call.runs.append(story)
    return outermost


def _call_around(story: Story, outer: Story) -> Call | None:
    """The call of ``outer`` in which ``story`` ran: the key of a run begins with its place."""
    place = _PLACE.match(story.key.removeprefix(f"{outer.key}/"))
    if place is None or not story.key.startswith(f"{outer.key}/") or len(story.key) > _LONGEST:
        return None
    step, number = int(place[1]), int(place[2])
    calls = (call for item in outer.steps if item.number == step for call in item.calls)
    return next((call for call in calls if call.number == number), None)


# --- values ------------------------------------------------------------------------------------


def _text(value: Any, default: str = "") -> str:
    return value if isinstance(value, str) else default


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and abs(value) < 1e12 else 0.0


def _list(value: Any) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else []


def _usage(value: Any) -> tuple[dict[str, int], bool]:
    """Counts of tokens, and whether they were estimated."""
    if not isinstance(value, dict):
        return {}, False
    given = cast("dict[str, Any]", value)
    counts = {name: n for name, n in given.items() if type(n) is int and 0 <= n < 2**53}
    return counts, bool(given.get("estimated"))
