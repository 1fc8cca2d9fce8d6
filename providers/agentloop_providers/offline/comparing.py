"""Which of several is the larger or the smaller one, where a question compares what it names."""

from __future__ import annotations

import re

from agentloop_providers.offline.conversation import Call
from agentloop_providers.offline.evidence import Evidence, Line
from agentloop_providers.offline.question import NUMBER, Question

_MORE = re.compile(
    r"\b(?:more|most|(?:larg|bigg|great|high|long|tall|heavi|warm|hott|wid|deep)(?:er|est))\b", re.I
)
_LESS = re.compile(
    r"\b(?:less|least|few(?:er|est)|(?:small|low|short|light|cold|cool|cheap|near|clos)(?:er|est))\b",
    re.I,
)


def extreme(evidence: Evidence, question: Question) -> tuple[str, Line] | None:
    """The name that the question asks for, and the line with its number.

    There is one only where one tool gave a single number for each of the names.
    """
    more, less = _MORE.search(question.focus), _LESS.search(question.focus)
    if bool(more) == bool(less):
        return None
    found: dict[str, tuple[float, Line]] = {}
    for line in evidence.lines:
        name, number = _name_in(line.call, question), _only_number(line.call.text)
        if name and number is not None:
            found[name] = number, line
    if len(found) < 2 or len({line.call.name for _, line in found.values()}) > 1:
        return None
    end = (max if more else min)(number for number, _ in found.values())
    best = [(name, line) for name, (number, line) in found.items() if number == end]
    return best[0] if len(best) == 1 else None


def _name_in(call: Call, question: Question) -> str | None:
    """What the question names of that which a call was made for."""
    asked = (value for value in call.input.values() if isinstance(value, str))
    return next((value for value in asked if value in (*question.quoted, *question.names)), None)


def _only_number(text: str) -> float | None:
    found = [hit[0].replace(",", "").replace("_", "") for hit in NUMBER.finditer(text[:2000])]
    return float(found[0]) if len(found) == 1 and len(found[0]) < 25 else None
