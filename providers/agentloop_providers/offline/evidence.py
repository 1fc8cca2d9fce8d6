"""Results of tools, read as lines with a source: a file, an address, or the call itself."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

from mcp_types import TextResourceContents

from agentloop.text import too_deep
from agentloop_providers.offline.conversation import Call
from agentloop_providers.offline.question import PATH, sentences

MAX_LINES = 8000
MAX_WIDTH = 600

_HIT = re.compile(r"^([^\s:][^:\n]{0,300}):(\d{1,8})(?::\d{1,6})?(?:[:\t]|\s-)\s?(.*)$")
_NUMBERED = re.compile(r"^\s{0,8}(\d{1,7})(?:\s?[|→:\t]|\.|\s)\s?(.*)$")
_EMPTY = re.compile(
    r"\s*(?:\[\s*\]|\{\s*\}|null|none|nothing(?: was)?(?: found| matched)?"
    r"|.{0,80}\bnot found\b.{0,80}"
    r"|(?:there (?:is|are|was|were) )?(?:no|0) (?:\w+ ){0,3}(?:results?|match(?:es)?|lines?|files?"
    r"|entr(?:y|ies)|records?|rows?|documents?|pages?|items?|data|hits?)\b.{0,200})[.!]?\s*",
    re.IGNORECASE,
)
_LABELLED = re.compile(r"\s*([A-Za-z][\w -]{0,30}): (\S.*)")
_PLACE_KEYS = ("path", "file", "filename", "file_path", "filepath", "uri", "url", "link", "source")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a result; ``number`` is its place in its source, where the result tells it."""

    source: str
    number: int | None
    text: str
    call: Call

    @property
    def place(self) -> str:
        return self.source if self.number is None else f"{self.source}:{self.number}"


@dataclass(frozen=True, slots=True)
class Record:
    """An object of a JSON result: its members that are plain values, by name."""

    values: dict[str, Any]
    kind: str
    """What it is one of: the key or the tool that it came under."""
    line: Line


class Evidence:
    """All that the calls of a conversation brought, each line of a source once."""

    def __init__(self, calls: Iterable[Call]) -> None:
        self.records: list[Record] = []
        self.links: list[Line] = []
        """Lines whose source is an address that a result links to."""
        self.pages: dict[str, list[Line]] = {}
        """The lines of each source: by number where they have one, else in order."""
        self._seen: set[tuple[str, int]] = set()
        found: dict[tuple[str, int | str], Line] = {}
        for call in calls:
            if call.failed or _EMPTY.fullmatch(call.text):
                continue
            asked = [value for value in call.input.values() if value and isinstance(value, str)]
            for line in self._read(call):
                if len(found) >= MAX_LINES:
                    break
                found.setdefault((line.source, line.number or line.text), line)
                if line.number and any(line.source.endswith(name) for name in asked):
                    self._seen.add((line.source, line.number))
        for (source, _), line in found.items():
            self.pages.setdefault(source, []).append(line)
        for page in self.pages.values():  # a stable sort: what has no number keeps its order
            page.sort(key=lambda line: line.number or 10**9)

    @property
    def lines(self) -> list[Line]:
        return [line for page in self.pages.values() for line in page]

    def has(self, source: str, number: int) -> bool:
        """Whether the line ``number`` of ``source`` was read in its place, not only found."""
        return (source, number) in self._seen

    def _read(self, call: Call) -> Iterator[Line]:
        home = _home(call)
        yield from self._read_text(call.text, home, call)
        if call.result.structured_content is not None:
            yield from self._read_json(call.result.structured_content, home, call.name, call)
        for block in call.result.content:
            if block.type == "resource_link":
                words = " - ".join(filter(None, (block.title or block.name, block.description)))
                line = Line(str(block.uri), None, words[:MAX_WIDTH], call)
                self.links.append(line)
                yield line
            elif block.type == "resource" and isinstance(block.resource, TextResourceContents):
                yield from self._read_text(block.resource.text, str(block.resource.uri), call)

    def _read_text(self, text: str, home: str, call: Call) -> Iterator[Line]:
        if text.lstrip()[:1] in ("{", "["):
            try:
                data = json.loads(text)
            except (ValueError, RecursionError):
                pass
            else:
                yield from self._read_json(data, home, call.name, call)
                return
        lines = text.splitlines()
        numbered = _is_numbered(lines)
        for line in lines:
            if (hit := _HIT.match(line)) and _is_place(hit[1]):
                yield Line(hit[1], int(hit[2]), hit[3].rstrip()[:MAX_WIDTH], call)
            elif numbered and (hit := _NUMBERED.match(line)):
                yield Line(home, int(hit[1]), hit[2].rstrip()[:MAX_WIDTH], call)
            elif numbered and PATH.fullmatch(line.strip().rstrip(":")):
                home = line.strip().rstrip(":")
            elif line.strip():
                parts = sentences(line) if len(line) > 300 else [line.rstrip()]
                made = [Line(home, None, part[:MAX_WIDTH], call) for part in parts]
                if label := _LABELLED.fullmatch(made[0].text):
                    self.records.append(Record({label[1]: label[2]}, call.name, made[0]))
                yield from made

    def _read_json(self, data: Any, home: str, kind: str, call: Call) -> Iterator[Line]:
        if too_deep(data):
            return
        if isinstance(data, dict):
            members = cast("dict[str, Any]", data)
            places = (members[key] for key in _PLACE_KEYS if key in members)
            home = next((str(place) for place in places if _is_text(place)), home)
            plain = {k: v for k, v in members.items() if _is_plain(v)}
            if plain:
                line = Line(home, _line_number(plain), _write(plain), call)
                self.records.append(Record(plain, kind, line))
                yield line
            for key, value in members.items():
                if key not in plain:
                    yield from self._read_json(value, home, key, call)
        elif isinstance(data, list):
            items = cast("list[Any]", data)
            plain_items = [item for item in items if _is_plain(item)]
            for item in plain_items[:500]:
                line = Line(home, None, _say(item), call)
                self.records.append(Record({kind: item}, kind, line))
            if plain_items:
                yield Line(home, None, ", ".join(map(_say, plain_items))[:MAX_WIDTH], call)
            for item in items:
                if not _is_plain(item):
                    yield from self._read_json(item, home, kind, call)
        elif isinstance(data, str):
            yield from self._read_text(data, home, call)
        else:
            yield Line(home, None, _say(data), call)


def _home(call: Call) -> str:
    """The source of a result that names none: what its call asked for, else the call."""
    for value in call.input.values():
        if isinstance(value, str) and _is_place(value):
            return value
    return call.label


def _is_place(text: str) -> bool:
    slashed = "/" in text and " " not in text
    return slashed or bool(PATH.fullmatch(text))


def _is_numbered(lines: list[str]) -> bool:
    """Whether lines carry their numbers, as ``cat -n`` or ``rg`` write them."""
    numbers = [int(hit[1]) for line in lines[:200] if (hit := _NUMBERED.match(line))]
    steps = sum(b - a == 1 for a, b in pairwise(numbers))
    return len(numbers) > 1 and len(numbers) >= 0.7 * len(lines[:200]) and steps * 2 >= len(numbers)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float) or _is_text(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_WIDTH and "\n" not in value.strip()


def _line_number(values: dict[str, Any]) -> int | None:
    for key in ("line", "line_number", "lineno"):
        if type(values.get(key)) is int and values[key] > 0:
            return values[key]
    return None


def _write(values: dict[str, Any]) -> str:
    if set(values) == {"result"}:
        return _say(values["result"])
    return ", ".join(f"{key}: {_say(value)}" for key, value in values.items())[:MAX_WIDTH]


def _say(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
