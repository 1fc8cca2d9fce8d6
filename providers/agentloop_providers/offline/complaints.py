"""What was wrong with an answer, as the one who rejected it says."""

from __future__ import annotations

import re
from dataclasses import dataclass

from agentloop_providers.offline.schemas import Schema

Path = tuple[str, ...]


@dataclass(frozen=True)
class Complaint:
    """What was wrong with one field of an answer, as keywords of a schema where it can be told."""

    path: Path
    message: str
    keywords: Schema


def read_complaints(text: str) -> list[Complaint]:
    """What a rejected answer was told, field by field."""
    text = text.partition("The answer does not fit:")[2] or text
    complaints: list[Complaint] = []
    for part in re.split(r";\s+(?=[\w.\[\] -]{1,200}: )", text.strip()[:8000]):
        where, found, message = part.partition(": ")
        if found:
            whole = where == "the whole"
            path: Path = (
                () if whole else tuple(step for step in re.split(r"[.\[\]]+", where) if step)
            )
            complaints.append(Complaint(path, message, _keywords(message)))
    return complaints


_BOUNDS = (
    (r"greater than or equal to (-?[\d.]+\d|-?\d)", "minimum"),
    (r"less than or equal to (-?[\d.]+\d|-?\d)", "maximum"),
    (r"greater than (-?[\d.]+\d|-?\d)", "exclusiveMinimum"),
    (r"less than (-?[\d.]+\d|-?\d)", "exclusiveMaximum"),
    (r"multiple of (-?[\d.]+\d|-?\d)", "multipleOf"),
    (r"at least (\d+) character", "minLength"),
    (r"at most (\d+) character", "maxLength"),
    (r"at least (\d+) item", "minItems"),
    (r"at most (\d+) item", "maxItems"),
)
_SAID_TYPES = {
    "integer": "integer", "number": "number", "string": "string", "boolean": "boolean",
    "list": "array", "tuple": "array", "dictionary": "object", "decimal": "number",
}  # fmt: skip


def _keywords(message: str) -> Schema:
    """What a message says in words, as keywords of a schema."""
    message = message.partition(" (got ")[0]
    for pattern, keyword in _BOUNDS:
        if found := re.search(pattern, message):
            return {keyword: float(found[1])}
    if "Extra inputs" in message:
        return {"dropped": True}
    if found := re.search(r"match pattern '(.+)'", message):
        return {"pattern": found[1]}
    if found := re.search(r"valid (\w+)", message):
        name = found[1].lower()
        if name in _SAID_TYPES:
            return {"type": _SAID_TYPES[name]}
        formats = {"date": "date", "datetime": "date-time", "url": "uri", "uuid": "uuid"}
        if name in formats:
            return {"type": "string", "format": formats[name]}
    if message.startswith("Input should be '"):
        return {"enum": re.findall(r"'([^']*)'", message)}
    return {}


def is_about(complaint: Complaint, path: Path) -> bool:
    """Whether a complaint is about ``path``: its own way there may leave out the outermost field
    and may name the branch of a union."""
    if complaint.path in (path, path[1:]):
        return bool(path) or not complaint.path
    named = tuple(step for step in complaint.path if step in path)
    return bool(named) and named == path and len(complaint.path) <= len(path) + 2
