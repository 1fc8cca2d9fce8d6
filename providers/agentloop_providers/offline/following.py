"""Following up on what results name: files and their lines, addresses, symbols, ids."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mcp_types import Tool

from agentloop_providers.offline.conversation import Conversation
from agentloop_providers.offline.evidence import Evidence, Line, Record
from agentloop_providers.offline.filling import candidates, is_search, role_of
from agentloop_providers.offline.passages import Scored
from agentloop_providers.offline.question import EMAIL, ID, PATH, URL, UUID
from agentloop_providers.offline.ranking import Ranking
from agentloop_providers.offline.schemas import Slot, slots_of
from agentloop_providers.offline.shapes import named_in
from agentloop_providers.offline.words import stem, stems

BEFORE, AFTER = 24, 24
"""Lines to read before and after a line that was found, where the tool does not say how many."""

MOST_TARGETS = 3

_FIRST = {"start", "begin", "first", "offset", "from"}
_LAST = {"end", "last", "stop", "to"}
_COUNT = {"lines", "count", "limit", "length", "n", "num", "max"}
_NEAR = {"around", "near", "at", "center", "context"}

Calls = Iterator[tuple[str, dict[str, Any]]]


@dataclass(frozen=True)
class Target:
    """A source to read, and the line in it that matters, if one is known."""

    source: str
    number: int | None


def follow(
    tools: list[Tool],
    scores: dict[str, float],
    talk: Conversation,
    evidence: Evidence,
    ranking: Ranking,
) -> Calls:
    """Calls of ``tools`` whose parameters fit what the results name."""
    targets = _targets(talk, evidence, ranking)
    for tool in tools:
        for target in targets:
            if arguments := _reading(tool, target):
                yield tool.name, arguments
    if ranking.best is not None:
        for query in _symbols(ranking, ranking.best) if not talk.question.paths else ():
            for tool in tools:
                slot = _search_slot(tool)
                if slot and not _has_asked(talk, tool, query):
                    yield tool.name, {slot.name: query}
    for tool in tools:
        yield from ((tool.name, made) for made in _from_records(tool, scores, talk, evidence))
        yield from ((tool.name, made) for made in _mended(tool, talk))


# --- files and addresses -----------------------------------------------------------------------


def _targets(talk: Conversation, evidence: Evidence, ranking: Ranking) -> list[Target]:
    targets: list[Target] = []
    named = [page for page in evidence.pages if talk.question.names_source(page)]
    plain = [Scored(0.0, line.source, 0, line) for line in evidence.lines[:MOST_TARGETS]]
    best = ranking.scored[:8] or plain
    for item in best:
        if item.score < 0.55 * best[0].score:
            break
        if named and item.page not in named:
            continue
        for target in _named_by(item):
            close = (t for t in targets if t.source == target.source)
            known = target.number is not None and evidence.has(target.source, target.number)
            if not known and not any(_is_close(t, target) for t in close):
                targets.append(target)
    for line in evidence.links:
        if all(target.source != line.source for target in targets):
            targets.append(Target(line.source, None))
    return targets[:MOST_TARGETS]


def _named_by(item: Scored) -> list[Target]:
    line = item.line
    if line.number is not None:
        return [Target(line.source, line.number)]
    named = [*URL.findall(line.text)[:2], *(found[0] for found in PATH.finditer(line.text))][:3]
    home = [] if line.source == line.call.label else [line.source]
    return [Target(name, None) for name in dict.fromkeys([*home, *named])]


def _is_close(one: Target, other: Target) -> bool:
    if one.number is None or other.number is None:
        return True
    return abs(one.number - other.number) <= min(BEFORE, AFTER)


def _reading(tool: Tool, target: Target) -> dict[str, Any] | None:
    """Arguments for reading ``target`` with ``tool``, where it reads such things."""
    slots = slots_of(tool)
    is_url = "://" in target.source
    wanted = ("url",) if is_url else ("path", "url")
    home = next((s for s in slots if s.required and _takes(s, wanted)), None)
    if home is None or any(
        slot.required and slot is not home and not _is_line(slot) for slot in slots
    ):
        return None
    made: dict[str, Any] = {home.name: target.source}
    before = _lines_before(slots)
    for slot in slots:
        if slot is not home and slot.type in ("integer", "number") and target.number is not None:
            value = _line_value(slot, target.number, before)
            if value is not None:
                made[slot.name] = value
        elif slot.required and slot is not home:
            made[slot.name] = 1 if set(slot.words) & _FIRST else 100
    return made


def _takes(slot: Slot, roles: tuple[str, ...]) -> bool:
    return slot.type in ("string", None) and role_of(slot) in roles


def _is_line(slot: Slot) -> bool:
    told = _FIRST | _LAST | _COUNT | _NEAR | {"line"}
    return slot.type in ("integer", "number") and bool(set(slot.words) & told)


def _lines_before(slots: list[Slot]) -> int:
    """How far before a line to begin, so that what a tool reads by default goes well beyond it."""
    counts = (slot.schema.get("default") for slot in slots if _is_line(slot) and _counts(slot))
    default = next((count for count in counts if type(count) is int), None)
    return BEFORE if default is None else max(0, min(default, 200) * 2 // 3)


def _counts(slot: Slot) -> bool:
    return bool(set(slot.words) & _COUNT) and not set(slot.words) & (_FIRST | _LAST)


def _line_value(slot: Slot, number: int, before: int) -> int | None:
    words = set(slot.words)
    if words & _FIRST:
        return max(1, number - before)
    if words & _LAST:
        return number + AFTER
    if words & _COUNT:
        return before + AFTER if slot.required else None
    return number if words & (_NEAR | {"line"}) else None


def _mended(tool: Tool, talk: Conversation) -> Iterator[dict[str, Any]]:
    """Failed calls again, with a path that the error names instead: *did you mean ...*."""
    for call in talk.last_calls:
        if call.failed and call.name == tool.name:
            for slot in (slot for slot in slots_of(tool) if _takes(slot, ("path",))):
                named = [found[0] for found in PATH.finditer(call.text)]
                other = [name for name in named if name != call.input.get(slot.name)]
                yield from ({**call.input, slot.name: name} for name in other[:1])


# --- symbols -----------------------------------------------------------------------------------


def defined_by(ranking: Ranking, item: Scored) -> tuple[str | None, str, Line] | None:
    """What the best line is about: the name around it, the name it defines, and where."""
    lines = ranking.evidence.pages[item.page]
    here = [item.line]
    if lines[item.position].number is not None:
        here += [
            lines[n]
            for n in (item.position - 1, item.position + 1)
            if 0 <= n < len(lines) and abs((lines[n].number or 0) - (item.line.number or 0)) == 1
        ]
    for line in here:
        if name := named_in(line.text):
            around = ranking.around(line)
            return (around.split()[-1] if around else None), name, line
    return None


def _symbols(ranking: Ranking, item: Scored) -> list[str]:
    """The name that the best line defines, alone and with the name around it."""
    found = defined_by(ranking, item)
    if (
        found is None
        or item.line.number is None
        or not ranking.evidence.has(item.page, item.line.number)
    ):
        return []
    around, name, _ = found
    if len(name) < 4:
        return []
    return [f"{around}.{name}", name] if around else [name]


def _search_slot(tool: Tool) -> Slot | None:
    if not is_search(tool):
        return None
    required = [slot for slot in slots_of(tool) if slot.required]
    return required[0] if len(required) == 1 else None


def _has_asked(talk: Conversation, tool: Tool, query: str) -> bool:
    return any(call.name == tool.name and query in call.input.values() for call in talk.calls)


# --- records and ids ---------------------------------------------------------------------------


def _from_records(
    tool: Tool, scores: dict[str, float], talk: Conversation, evidence: Evidence
) -> Iterator[dict[str, Any]]:
    """Arguments for ``tool`` from members of JSON results, or ids in texts, of the right name."""
    required = [slot for slot in slots_of(tool) if slot.required]
    if not required or is_search(tool) or any(call.name == tool.name for call in talk.last_calls):
        return
    asked = talk.question.terms.keys()
    made: list[tuple[int, dict[str, Any]]] = []
    for record in evidence.records:
        if record.line.call.name == tool.name:
            continue
        arguments = _from_record(tool, required, record, talk)
        if arguments and (scores[tool.name] > 0 or _shares(tool, record)):
            made.append((len(asked & set(stems(record.line.text))), arguments))
    if not made and len(required) == 1 and role_of(required[0]) in ("id", "email"):
        made = [(0, {required[0].name: value}) for value in _ids(required[0], evidence)]
    most = max((fit for fit, _ in made), default=0)
    yield from [arguments for fit, arguments in made if fit == most][:MOST_TARGETS]


def _from_record(
    tool: Tool, required: list[Slot], record: Record, talk: Conversation
) -> dict[str, Any] | None:
    made: dict[str, Any] = {}
    for slot in required:
        value = next((v for k, v in record.values.items() if _matches(slot, k, record)), None)
        if value is None:
            given = candidates(slot, talk.question, tool, sole=False)
            value = given[0] if given and made else None
        if value is None or not _has_type(value, slot):
            return None
        made[slot.name] = str(value) if slot.type == "string" else value
    return made


def _matches(slot: Slot, key: str, record: Record) -> bool:
    """Whether a member called ``key`` is what ``slot`` wants: the same name, or its id or name."""
    name, wanted = stems(key), list(slot.stems)
    if frozenset(name) == slot.stems:
        return True
    things = {stem(word) for word in (*stems(record.kind), *stems(record.line.call.name))}
    if key == record.kind:  # a plain item of a list: what the list is called says what it is
        return bool(set(wanted) & things)
    rest = set(wanted) - set(name)
    return bool(name) and set(name) < set(wanted) and rest <= things


def _has_type(value: Any, slot: Slot) -> bool:
    if slot.type == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    if slot.type == "number":
        return isinstance(value, int | float) and not isinstance(value, bool)
    return slot.type in ("string", None) and isinstance(value, str | int)


def _shares(tool: Tool, record: Record) -> bool:
    things = {*stems(record.kind), *stems(record.line.call.name)}
    verbs = {stem(word) for word in ("get", "list", "read", "show", "fetch")}
    return bool(things & set(stems(tool.name)) - verbs)


def _ids(slot: Slot, evidence: Evidence) -> list[str]:
    pattern = EMAIL if role_of(slot) == "email" else None
    found: dict[str, None] = {}
    for line in evidence.lines[:50]:
        for one in (pattern,) if pattern else (UUID, ID):
            found.update((match[0], None) for match in one.finditer(line.text))
    return [value for value in found if slot.type in ("string", None)]
