"""Documents: what stands under a heading, and in a table."""

from __future__ import annotations

import re

from agentloop_providers.offline.evidence import Line

_DOCUMENT = re.compile(r"\.(?:md|markdown|rst|txt|adoc)$")
_HEADING = re.compile(r"^#{1,6}\s+(?P<title>\S.*?)\s*#*$")
_ROW = re.compile(r"^\s*\|(?P<first>[^|]+)\|")
_RULE = re.compile(r"^\s*\|[\s:|-]+\|\s*$")

SECTION_LINES = 10
TABLE_LINES = 16


def is_document(source: str) -> bool:
    """Whether a file is written for people; a ``#`` begins a heading there, and no comment."""
    return _DOCUMENT.search(source) is not None


def title_of(line: Line) -> str | None:
    """What a heading of a document says."""
    found = _HEADING.match(line.text) if is_document(line.source) else None
    return found["title"] if found else None


def column_of(lines: list[Line], here: int) -> str | None:
    """What the first column of a table is called, where its head is at ``here``."""
    if not joined(lines, here) or not _RULE.match(lines[here + 1].text):
        return None
    found = _ROW.match(lines[here].text)
    return found["first"].strip() if found else None


def end_of_section(lines: list[Line], here: int) -> int:
    """The last line of the first paragraph, list or table under the heading at ``here``."""
    last, begun = here, False
    while joined(lines, last) and last - here < SECTION_LINES:
        text = lines[last + 1].text.strip()
        if (begun and not text) or title_of(lines[last + 1]):
            break
        begun = begun or bool(text)
        last += 1
    return last if begun else here


def end_of_table(lines: list[Line], here: int) -> int:
    """The last row of the table whose head is at ``here``, as far as it is short."""
    last = here
    while joined(lines, last) and last - here < TABLE_LINES and _ROW.match(lines[last + 1].text):
        last += 1
    return last


def joined(lines: list[Line], position: int) -> bool:
    """Whether the line at ``position`` and the next one follow each other in their source."""
    if not 0 <= position < len(lines) - 1:
        return False
    here, after = lines[position].number, lines[position + 1].number
    return here is not None and after == here + 1
