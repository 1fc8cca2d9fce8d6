"""Values that fit a JSON schema, made of what is known; and mended where they did not fit."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from agentloop.text import cut
from agentloop_providers.offline.complaints import Complaint, Path, is_about, read_complaints
from agentloop_providers.offline.conversation import Conversation
from agentloop_providers.offline.evidence import Evidence
from agentloop_providers.offline.facts import Facts, is_place, role_of
from agentloop_providers.offline.patterns import fits, made_from
from agentloop_providers.offline.question import EMAIL, URL
from agentloop_providers.offline.ranking import Ranking
from agentloop_providers.offline.schemas import (
    Schema,
    branches,
    choices,
    items_of,
    length_of,
    members_of,
    number_of,
    resolve,
    type_of,
)
from agentloop_providers.offline.words import stems

MAX_DEPTH = 12
MAX_ITEMS = 5

_FORMATS = {
    "date": (r"\d{4}-\d\d-\d\d", "1970-01-01"),
    "date-time": (
        r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d)?(\.\d+)?(Z|[+-]\d\d:\d\d)?",
        "1970-01-01T00:00:00Z",
    ),
    "time": (r"\d\d:\d\d(:\d\d)?", "00:00:00Z"),
    "duration": (r"P\S+", "PT0S"),
    "email": (EMAIL.pattern, "nobody@example.com"),
    "uri": (URL.pattern, "https://example.com/"),
    "uuid": (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "00000000-0000-4000-8000-000000000000"),
    "ipv4": (r"\d{1,3}(\.\d{1,3}){3}", "0.0.0.0"),
    "ipv6": (r"[0-9a-f:]+:[0-9a-f:]+", "::"),
    "binary": (r".*", ""),
    "regex": (r"\w+", "x"),
}  # fmt: skip


def typed_answer(
    talk: Conversation, evidence: Evidence, ranking: Ranking, schema: Schema
) -> dict[str, Any]:
    """Arguments that fit ``schema``; what was said of earlier ones is heeded."""
    complaints = [found for call in talk.rejected for found in read_complaints(call.text)]
    return Builder(schema, Facts(talk, evidence, ranking), complaints).arguments()


class Builder:
    """Makes values of a schema. Raises nothing, whatever the schema says."""

    def __init__(self, root: Schema, facts: Facts, complaints: Sequence[Complaint] = ()) -> None:
        self._root = root
        self._facts = facts
        self._complaints = complaints

    def arguments(self) -> dict[str, Any]:
        """An object of the whole schema."""
        return members_of(self.build(self._root, (), "", 0))

    def build(self, schema: Any, path: Path, name: str, index: int) -> Any:
        """A value for the field ``name`` at ``path``; ``index`` is its place in a list, or 0."""
        here = resolve(schema, self._root)
        about = [item for item in self._complaints if is_about(item, path)]
        for item in about:
            here = {**here, **item.keywords}
        unexplained = [item for item in about if not item.keywords]
        if options := branches(here):
            rest = {k: v for k, v in here.items() if k not in ("anyOf", "oneOf", "$ref")}
            fit = [option for option in options if type_of(resolve(option, self._root)) != "null"]
            if not fit or len(path) > MAX_DEPTH:
                return None
            chosen = resolve(fit[len(unexplained) % len(fit)], self._root)
            return self.build({**rest, **chosen}, path, name, index)
        if allowed := choices(here):
            return self._choose(allowed, name, index, unexplained)
        if "default" in here and len(path) > MAX_DEPTH // 2:
            return here["default"]
        kind = type_of(here)
        if kind == "object":
            return self._object(here, path, index)
        if kind == "array":
            return self._array(here, path, name, index)
        if kind == "boolean":
            return self._facts.is_found != bool(len(unexplained) % 2)
        if kind in ("integer", "number"):
            return self._number(here, kind, name, index, unexplained)
        if kind == "null":
            return None
        return self._string(here, name, index, unexplained)

    def _object(self, schema: Schema, path: Path, index: int) -> dict[str, Any]:
        properties = members_of(schema.get("properties"))
        required = [name for name in items_of(schema.get("required")) if isinstance(name, str)]
        made: dict[str, Any] = {}
        cites = path[-1:] and path[-1].isdigit() and any(map(is_place, properties))
        for name in dict.fromkeys([*properties, *required]):
            part = resolve(properties.get(name, {}), self._root)
            blamed = [item for item in self._complaints if is_about(item, (*path, name))]
            if any("dropped" in item.keywords for item in blamed):
                continue
            optional = name not in required and "default" in part and not blamed
            if not optional and (len(path) < MAX_DEPTH or name in required):
                if len(path) > MAX_DEPTH * 2:
                    break
                # An entry of a list that says where it is from holds what stands there.
                meant = "quote" if cites and role_of(name) == "answer" else name
                made[name] = self.build(properties.get(name, {}), (*path, name), meant, index)
        least = length_of(schema, "minProperties") or 0
        more = schema.get("additionalProperties")
        for number in range(min(least, MAX_ITEMS * 4) - len(made)):
            key = f"item{number + 1}"
            made[key] = self.build(more, (*path, key), key, number)
        return made

    def _array(self, schema: Schema, path: Path, name: str, index: int) -> list[Any]:
        first = items_of(schema.get("prefixItems"))
        least, most = length_of(schema, "minItems") or 0, length_of(schema, "maxItems")
        if len(path) >= MAX_DEPTH and not least:
            return []
        wanted = max(min(self._facts.many(name), MAX_ITEMS), 1, least, len(first))
        if most is not None:
            wanted = min(wanted, max(most, 0))
        if first and schema.get("items") in (None, False):
            wanted = min(wanted, len(first))
        if len(path) > MAX_DEPTH or index > 0:
            wanted = min(wanted, max(least, len(first), 1))
        made: list[Any] = []
        for place in range(min(wanted, 200)):
            item = first[place] if place < len(first) else schema.get("items", {})
            value = self.build(item, (*path, str(place)), name, place + index)
            if value not in made or len(first) > place:
                made.append(value)
            elif len(made) < least:
                made.append(_another(value, made) if schema.get("uniqueItems") else value)
        return made

    def _choose(self, allowed: list[Any], name: str, index: int, heard: list[Complaint]) -> Any:
        """The allowed value that the best texts mention first, or simply the first."""
        said = [stems(text) for text in self._facts.said]

        def rank(place: int) -> tuple[int, int]:
            words = set(stems(str(allowed[place])))
            at = [n for n, text in enumerate(said) if words and words <= set(text)]
            return (at[0] if at else len(said), place)

        order = sorted(range(len(allowed)), key=rank)
        return allowed[order[len(heard) % len(allowed)]]

    def _number(
        self, schema: Schema, kind: str, name: str, index: int, heard: list[Complaint]
    ) -> float | int:
        note = str(schema.get("description") or "")
        told = [
            n
            for item in heard
            for n in map(float, re.findall(r"-?\d{1,15}(?:\.\d+)?", item.message))
        ]
        found = [*told, *self._facts.numbers(name, note)]
        if kind == "integer":
            found = [n for n in found if n == int(n)] or [float(round(n)) for n in found]
        bounded = [n for n in found if _bounded(n, schema, kind) == n] or found or [0.0]
        value = _bounded(bounded[(index + len(heard)) % len(bounded)], schema, kind)
        return int(value) if kind == "integer" else value

    def _string(self, schema: Schema, name: str, index: int, heard: list[Complaint]) -> str:
        note = str(schema.get("description") or "")
        found = self._facts.texts(name, note)
        if heard:
            told = [text for item in heard for text in re.findall(r"'([^']+)'", item.message)]
            words = {word for item in heard for word in stems(item.message)}
            found = [*told, *sorted(found, key=lambda text: -len(words & set(stems(text))))]
        form = _FORMATS.get(str(schema.get("format")))
        if form is not None:
            fitting = [hit[0] for text in found if (hit := re.search(form[0], text))]
            return fitting[(index + len(heard)) % len(fitting)] if fitting else form[1]
        if isinstance(schema.get("pattern"), str):
            pattern = schema["pattern"]
            fitting = [text for text in found if fits(pattern, text)]
            fitting += [word for text in found for word in text.split() if fits(pattern, word)]
            return _sized(
                fitting[index % len(fitting)] if fitting else made_from(pattern), schema, pattern
            )
        turn = index + max(len(heard) - 1, 0)
        return _sized(found[turn % len(found)] if found else "", schema)


def _bounded(value: float, schema: Schema, kind: str) -> float:
    step = 1.0 if kind == "integer" else 1e-6
    unit = number_of(schema, "multipleOf")
    if unit and unit > 0:
        value, step = round(value / unit) * unit, unit
    low, high = number_of(schema, "minimum"), number_of(schema, "maximum")
    above, below = number_of(schema, "exclusiveMinimum"), number_of(schema, "exclusiveMaximum")
    if above is not None and (low is None or above >= low):
        low = math.floor(above / step) * step + step if kind == "integer" or unit else above + step
    if below is not None and (high is None or below <= high):
        high = math.ceil(below / step) * step - step if kind == "integer" or unit else below - step
    if high is not None and value > high:
        value = math.floor(high / step) * step if kind == "integer" or unit else high
    if low is not None and value < low:
        value = math.ceil(low / step) * step if kind == "integer" or unit else low
    return value


def _another(value: Any, made: list[Any]) -> Any:
    """A value like ``value`` that is not in ``made`` yet, where one is easily made."""
    for number in range(2, len(made) + 3):
        other: Any = None
        if isinstance(value, str):
            other = f"{value} {number}"
        elif isinstance(value, int | float) and not isinstance(value, bool):
            other = value + number - 1
        if other is not None and other not in made:
            return other
    return value


def _sized(text: str, schema: Schema, pattern: str | None = None) -> str:
    """The text within the lengths that the schema allows."""
    least, most = length_of(schema, "minLength") or 0, length_of(schema, "maxLength")
    text = cut(text, 4000)
    sized = text + "." * max(least - len(text), 0)
    sized = sized if most is None else sized[:most]
    return text if pattern and not fits(pattern, sized) else sized
