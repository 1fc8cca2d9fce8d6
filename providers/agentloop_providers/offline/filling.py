"""Arguments for tools from what a question says: a value for each required parameter, or none."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from mcp_types import Tool

from agentloop_providers.offline.question import Question
from agentloop_providers.offline.schemas import Slot, choices, members_of, settled, slots_of
from agentloop_providers.offline.words import KIN, PHRASES, SEARCHED, STOP, WEAK, split, stem, stems

MOST_CALLS = 4
"""Calls of one tool in one reply."""

_ROLES = {
    "path": "path file filename filepath document doc",
    "url": "url uri link href",
    "email": "email recipient",
    "sum": "expression expr formula equation calculation",
    "query": "query q search term keyword phrase needle topic pattern regex",
    "prompt": "prompt task question request instruction instructions input goal",
    "date": "date day when",
    "program": "sql code script command cmd shell program",
    "from": "from origin source src base departure",
    "to": "to target destination dest into arrival",
    "place": "city location place country town region state address area",
    "id": "id uuid identifier key number ref reference sku ticket slug symbol",
    "words": "text body content message comment note title subject sentence string",
    "name": "name person user username author customer company title product item",
}
_ROLE_OF = {word: role for role, words in _ROLES.items() for word in words.split()}
_NAMED = ("place", "name", "from", "to", None)
"""The roles that what has a name can play."""
_FORMATS = {
    "uri": "url", "url": "url", "uri-reference": "url", "email": "email", "date": "date",
    "date-time": "date", "uuid": "id", "path": "path", "file-path": "path",
}  # fmt: skip
_DAYS = re.compile(
    r"\b(?:today|tomorrow|yesterday|tonight|(?:mon|tues|wednes|thurs|fri|satur|sun)day)\b", re.I
)


def role_of(slot: Slot) -> str | None:
    """What a parameter is for, by its format, its name and then its description."""
    if said := _FORMATS.get(str(slot.schema.get("format"))):
        return said
    for word in reversed(slot.words):
        if word in _ROLE_OF or word.removesuffix("s") in _ROLE_OF:
            return _ROLE_OF.get(word) or _ROLE_OF[word.removesuffix("s")]
    return next((_ROLE_OF[w] for w in split(slot.description)[:12] if w in _ROLE_OF), None)


def takes_name(slot: Slot) -> bool:
    """Whether a parameter wants what a name stands for: a place, a person, anything."""
    return slot.type in ("string", None) and role_of(slot) in _NAMED and not choices(slot.schema)


def queries(question: Question) -> list[str]:
    """What to search for: what is quoted or named, all key words, those that stand together."""
    said = " ".join(split(question.focus))
    whole, few = " ".join(question.words), " ".join(question.words[:2])
    meant = [PHRASES[phrase] for phrase in PHRASES if phrase in said and phrase in SEARCHED][:1]
    alone = [f"{word} {few}" for words in meant for word in words.split()]
    together = [f"{words} {few}" for words in meant]
    asked = [*question.quoted, *question.codes, whole, *together, *question.phrases[:2], *alone]
    return list(dict.fromkeys(query for query in asked if query))[:MOST_CALLS]


def more_queries(question: Question) -> list[str]:
    """Single words and what may stand for them, for when nothing else finds anything."""
    words = sorted(question.words, key=lambda word: -len(word))
    kin = [other for word in words for other in sorted(KIN.get(stem(word), ())) if len(other) > 3]
    return list(dict.fromkeys([*words, *kin]))[:6]


def fill(tool: Tool, question: Question) -> list[dict[str, Any]]:
    """The argument sets with which to call ``tool``; none where a required value is missing."""
    slots = slots_of(tool)
    sole = sum(slot.required for slot in slots) == 1
    found = {slot.name: candidates(slot, question, tool, sole=sole) for slot in slots}
    if any(slot.required and not found[slot.name] for slot in slots):
        return []
    taken = [found[slot.name][0] for slot in slots if choices(slot.schema) and found[slot.name]]
    first: dict[str, Any] = {}
    spread: tuple[str, list[Any]] | None = None
    for slot in slots:
        if values := found[slot.name]:
            is_choice = bool(choices(slot.schema))
            free = [v for v in values if v not in taken] if not is_choice else values
            first[slot.name] = (free or values)[0]
            taken.append(first[slot.name])
            if slot.required and sole and len(free) > 1:
                spread = (slot.name, free[:MOST_CALLS])
    if spread is None:
        return [first]
    return [{**first, spread[0]: value} for value in spread[1]]


def candidates(slot: Slot, question: Question, tool: Tool, *, sole: bool) -> list[Any]:
    """Values for one parameter, the likeliest first; for an optional one only what is certain."""
    if options := choices(slot.schema):
        said = frozenset(stems(question.focus))
        fitting = [o for o in options if isinstance(o, str) and set(stems(o)) & said]
        return fitting or (options if slot.required and len(options) == 1 else [])
    kind = slot.type or "string"
    if kind in ("integer", "number"):
        return [_as(kind, value) for value in _numbers(slot, question) if _fits(value, slot)]
    if kind == "boolean":
        said = bool(slot.stems & question.verbs)
        return [said] if said or slot.required else []
    if kind == "array":
        return _lists(slot, question, tool)
    if kind == "object":
        return _objects(slot, question, tool)
    if kind != "string":
        return []
    found = _strings(slot, question, tool, sole=sole)
    return [value for value in dict.fromkeys(found) if value and len(value) <= _longest(slot)]


def named_after(question: Question, words: list[str]) -> list[str]:
    """The value that a question gives by name: ``user Bob``, ``city=Paris``, ``id is 7``."""
    label = r"[\s_-]*".join(map(re.escape, words))
    found: list[str] = []
    value = r"(\"[^\"]+\"|'[^']+'|`[^`]+`|[\w@./+-]*[\w/])"
    for match in re.finditer(
        rf"\b{label}s?\b(\s*(?:=|:)\s*|\s+(?:is|named|called|of|number|no\.?)\s+|\s+#?){value}",
        question.focus,
        re.I,
    ):
        said, plain = match[1].strip(), match[2].strip("\"'`")
        bare = not said and plain.isalpha() and plain.islower() and plain == match[2]
        if not bare and plain.lower() not in STOP | WEAK:
            found.append(plain)
    return found


def _strings(slot: Slot, question: Question, tool: Tool, *, sole: bool) -> list[str]:
    role = role_of(slot)
    named = named_after(question, slot.words)
    if not slot.required:
        given = {"path": question.paths, "date": question.dates, "url": question.urls}
        mentioned = given.get(role or "", []) if slot.schema.get("format") or role != "path" else []
        return named + (mentioned if not slot.stems & {"output", "out", "target"} else [])
    if role == "words" and is_search(tool):
        role = "query"
    made = _BY_ROLE.get(role or "", _anything)(question)
    if role == "id" and not (named or made):
        made = [_plainly(n) for n in question.numbers] or question.quoted or question.codes
    if role in _NAMED and sole and not (named or made):
        made = _rest(question, tool)
    return [*named, *made]


def _anything(question: Question) -> list[str]:
    return [*question.quoted, *question.names, *_objects_of(question), *question.codes]


def _objects_of(question: Question) -> list[str]:
    """What prepositions point at, where no capital letters tell."""
    if question.names:
        return []
    found = [
        v for p in ("in", "for", "of", "about", "at", "near") for v in question.after.get(p, ())
    ]
    return found + question.after.get("and", []) if found else []


def _rest(question: Question, tool: Tool) -> list[str]:
    """The key words of the question that do not name the tool."""
    known = set(stems(f"{tool.name} {tool.description or ''}"))
    words = [word for word in question.words if stem(word) not in known and not word.isdigit()]
    return [" ".join(words[:4])] if words else []


def _dates(question: Question) -> list[str]:
    return question.dates or [day.lower() for day in _DAYS.findall(question.focus)]


def _program(question: Question) -> list[str]:
    if re.match(
        r"\s*(?:select|with|insert|update|delete)\b.+\b(?:from|into|set)\b", question.text, re.I
    ):
        return [question.text.strip()]
    return question.quoted


def _said(question: Question) -> list[str]:
    return [question.said] if question.said else [question.text.strip()[:2000]]


def _direction(*prepositions: str) -> Callable[[Question], list[str]]:
    def find(question: Question) -> list[str]:
        found = [value for p in prepositions for value in question.after.get(p, ())]
        names = [name for name in question.names if any(name in value for value in found)]
        return names or found

    return find


_BY_ROLE: dict[str, Callable[[Question], list[str]]] = {
    "path": lambda q: q.paths,
    "url": lambda q: q.urls,
    "email": lambda q: q.emails,
    "sum": lambda q: q.sums,
    "query": queries,
    "prompt": lambda q: [q.text.strip()] if q.text.strip() else [],
    "date": _dates,
    "program": _program,
    "from": lambda q: _direction("from")(q) or q.measures,
    "to": _direction("to", "into", "in"),
    "id": lambda q: q.ids,
    "words": _said,
    "place": lambda q: [*q.quoted, *q.names] or _objects_of(q),
}


def is_search(tool: Tool) -> bool:
    """Whether a tool finds things by words."""
    searching = {stem(word) for word in ("search", "find", "lookup", "query", "grep", "retrieve")}
    begins = stems(tool.description or "")[:4]
    by_name = searching & {*stems(tool.name), *begins}
    texts = [slot for slot in slots_of(tool) if slot.required and slot.type in ("string", None)]
    return bool(by_name) and any(
        role_of(slot) in ("query", "words", "name", None) for slot in texts
    )


def _numbers(slot: Slot, question: Question) -> list[float]:
    named = [
        float(v)
        for v in named_after(question, slot.words)
        if re.fullmatch(r"-?\d{1,15}(\.\d{1,9})?", v)
    ]
    if named or not slot.required:
        return named
    digits = [float(found[0]) for i in question.ids if (found := re.findall(r"\d{1,12}$", i))]
    return question.numbers or (digits if role_of(slot) == "id" else [])


def _fits(value: float, slot: Slot) -> bool:
    whole = slot.type != "integer" or value == int(value)
    low, high = slot.schema.get("minimum"), slot.schema.get("maximum")
    above = not isinstance(low, int | float) or value >= low
    return whole and above and (not isinstance(high, int | float) or value <= high)


def _as(kind: str, value: float) -> float | int:
    return int(value) if kind == "integer" or value == int(value) else value


def _plainly(value: float) -> str:
    return str(_as("number", value))


def _lists(slot: Slot, question: Question, tool: Tool) -> list[list[Any]]:
    if not slot.required:
        return []
    item = Slot(slot.name, settled(slot.schema.get("items"), tool.input_schema), True)
    values = candidates(item, question, tool, sole=True)
    return [values] if values else []


def _objects(slot: Slot, question: Question, tool: Tool) -> list[dict[str, Any]]:
    required = slot.schema.get("required")
    if not slot.required:
        return []
    made: dict[str, Any] = {}
    for name, schema in members_of(slot.schema.get("properties")).items():
        needed = isinstance(required, list) and name in required
        inner = Slot(name, settled(schema, tool.input_schema), needed)
        # One level is all that a question ever says of an object.
        values = [] if inner.type == "object" else candidates(inner, question, tool, sole=False)
        if values:
            made[name] = values[0]
        elif needed:
            return []
    return [made]


def _longest(slot: Slot) -> int:
    longest = slot.schema.get("maxLength")
    return longest if isinstance(longest, int) else 8000
