"""The value that a question asks for: a number, a default, a date."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from agentloop_providers.offline.comparing import extreme
from agentloop_providers.offline.evidence import Line
from agentloop_providers.offline.passages import Scored
from agentloop_providers.offline.question import DATE, NUMBER
from agentloop_providers.offline.ranking import Ranking
from agentloop_providers.offline.shapes import ASSIGNMENT, DEFAULT, is_prose
from agentloop_providers.offline.words import STOP, split, stem, stems

_UNITS = (
    r"%|°\s?[CF]|[KMGT]i?B|kB|ms|µs|s|h|[€$£]|[kcm]?m|kg|g|mph|feet|people|"
    r"(?:(?:milli)?second|minute|hour|day|week|month|year|byte|mile|foot|ton"
    r"|(?:kilo|centi)?met(?:re|er)|dollar|euro|degree|percent|time|line|item)s?"
)
_AMOUNT = re.compile(rf"{NUMBER.pattern}(?:\s?(?:{_UNITS})(?!\w))?")
_YEAR = re.compile(r"(?<![\w.,-])(?:1[5-9]|20)\d\d(?![\w.,]*\d)")
_PAIR = re.compile(r"(?:^|, )([\w .-]{1,60}): ([^,]{1,80})")
_MONEY = re.compile(r"[€$£]\s?\d[\d.,]*")


@dataclass(frozen=True, slots=True)
class Value:
    """A value, the line it stands in, and the name it has there, if it has one."""

    text: str
    line: Line
    name: str | None
    score: float


def find_value(ranking: Ranking) -> Value | None:
    """The value that the question asks for, if it asks for one and the best lines hold one."""
    if compared := extreme(ranking.evidence, ranking.question):
        return Value(*compared, None, 1.0)
    if not ranking.scored:
        return None
    if counted := _count(ranking):
        return counted
    if member := _member(ranking):
        return member
    if not ranking.question.asks_value:
        return None
    least = 0.5 * ranking.scored[0].score
    found = [
        value
        for item in ranking.scored[:40]
        if item.score >= least
        for value in _values(ranking, item)
    ]
    # The first of the best ones: the ranking's order breaks ties.
    return max(found, key=lambda value: value.score, default=None)


def amounts(text: str) -> list[str]:
    """The numbers of a text with their units."""
    return [found[0].strip() for found in _AMOUNT.finditer(text)]


def _values(ranking: Ranking, item: Scored) -> Iterator[Value]:
    asked = set(ranking.question.concepts)
    needs_digit = "default" not in ranking.question.kinds or "number" in ranking.question.kinds
    for line, near in _lines_about(ranking, item):
        base = item.score * near
        if found := ASSIGNMENT.match(line.text):
            own = bool(set(stems(found["name"])) & asked)
            if _is_value(found["value"], needs_digit) and (own or needs_digit):
                yield Value(found["value"].strip(), line, found["name"], base + 0.2 + 0.1 * own)
        elif "default" in ranking.question.kinds:
            for pair in DEFAULT.finditer(line.text):
                if _is_value(pair["value"], needs_digit) and set(stems(pair["name"])) & asked:
                    yield Value(pair["value"].strip(), line, pair["name"], base + 0.15)
        if line is item.line and (said := _said(ranking, line, asked)):
            year = "when" not in ranking.question.kinds and _YEAR.fullmatch(said)
            yield Value(said, line, None, base + (-0.3 if year else 0.05))


def _lines_about(ranking: Ranking, item: Scored) -> Iterator[tuple[Line, float]]:
    """A line, and the one that it documents: a docstring's is above, a comment's below."""
    yield item.line, 1.0
    lines, here = ranking.evidence.pages[item.page], item.position
    text = item.line.text.strip()
    if text.startswith(('"""', "'''")):
        step = -1
    elif re.match(r"(?:#|//|/\*|\*|--|;)", text):
        step = 1
    else:
        return
    other = here + step
    if item.line.number is not None and 0 <= other < len(lines):
        neighbour = lines[other]
        if neighbour.number == item.line.number + step:
            yield neighbour, 1.0


def _is_value(text: str, needs_digit: bool) -> bool:
    short = (
        len(text) <= 48
        and text.count("(") == text.count(")")
        and text[:1] not in "({["
        and "self." not in text
    )
    literal = re.fullmatch(r"[\w.'\" */+<%-]+", text) is not None
    return short and literal and (not needs_digit or bool(re.search(r"\d", text)))


def _said(ranking: Ranking, line: Line, asked: set[str]) -> str | None:
    """The amount, or the date, that a line of prose or of a record holds."""
    text = line.text
    if "when" in ranking.question.kinds and (found := DATE.search(text) or _YEAR.search(text)):
        return found[0]
    if "number" not in ranking.question.kinds:
        return None
    for key, value in _PAIR.findall(text):
        if set(stems(key)) & asked and re.search(r"\d", value):
            return value.strip()
    if line.number is not None and not is_prose(text):
        return None
    if money := _MONEY.search(text):
        return money[0].strip()
    places = [m.start() for m in re.finditer(r"[^\W\d_]+", text) if stem(m[0].lower()) in asked]
    found = [
        (_distance(m.start(), places), m.start(), m[0].strip()) for m in _AMOUNT.finditer(text)
    ]
    near = [item for item in sorted(found) if item[0] <= 40]
    return near[0][2] if near else None


def _distance(place: int, places: list[int]) -> int:
    return min((abs(place - other) for other in places), default=10**6)


def _count(ranking: Ranking) -> Value | None:
    """How many entries a JSON list has, where the question asks for the number of just those."""
    found = re.search(r"\bhow many ([^?.!]+)", ranking.question.focus, re.I)
    words = [word for word in split(found[1]) if word not in STOP] if found else []
    if not words:
        return None
    thing = stem(words[0])
    counts: dict[int, list[Line]] = {}
    for record in ranking.evidence.records:
        if thing in (*stems(record.kind), *stems(record.line.call.name)):
            counts.setdefault(id(record.line.call), []).append(record.line)
    lists = [lines for lines in counts.values() if len(lines) > 1]
    return Value(str(len(lists[0])), lists[0][0], None, 1.0) if lists else None


def _member(ranking: Ranking) -> Value | None:
    """The member of a record that is called what the question asks for."""
    asked = {term for term, weight in ranking.question.terms.items() if weight >= 1}
    found: list[tuple[int, Value]] = []
    for record in ranking.evidence.records:
        said = set(stems(record.line.text))
        for key, value in record.values.items():
            name = set(stems(key))
            if name and name <= asked and str(value).strip():
                fit = len((asked - name) & said)
                found.append((fit, Value(str(value), record.line, None, 1.0)))
    most = max((fit for fit, _ in found), default=0)
    best = [value for fit, value in found if fit == most]
    return best[0] if best and (most > 0 or len({value.text for value in best}) == 1) else None
