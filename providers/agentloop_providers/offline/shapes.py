"""What kind of line a line is - of a program, of a document - and which lines belong to it."""

from __future__ import annotations

import re

from agentloop_providers.offline.evidence import Line
from agentloop_providers.offline.sections import (
    column_of,
    end_of_section,
    end_of_table,
    joined,
    title_of,
)

DEFINITION = re.compile(
    r"^\s*(?:export\s+|pub\s+|public\s+|private\s+|protected\s+|static\s+|abstract\s+|default\s+)*"
    r"(?:async\s+)?(?:def|class|fn|func|function|struct|interface|enum|trait|impl|type|module)\s+"
    r"(?P<name>[A-Za-z_]\w*)"
)
ASSIGNMENT = re.compile(
    r"^\s*(?!(?:return|if|elif|for|while|with|assert|yield|await|case|import|from)\b)"
    r"(?:(?:const|let|var|final|static|export|pub)\s+)*(?:[A-Za-z_][\w<>\[\]*&]*\s+[*&]?)?"
    r"(?P<name>[A-Za-z_][\w.-]*)\s*(?::\s*(?P<type>[^=:]{1,60}?))?"
    r"\s*=(?!=)\s*(?P<value>\S.{0,200}?)\s*[,;]?(?:\s+(?:#|//|/\*).*)?$"
)
DEFAULT = re.compile(
    r"\b(?P<name>[A-Za-z_]\w*)\s*(?::\s*[^=,()]{1,60}?)?\s*=\s*(?P<value>[^=,()\s][^,()]{0,60}?)(?=[,)]|$)"
)
IMPORT = re.compile(
    r"^\s*(?:import\s|from\s+\S+\s+import\b|#include|use\s+\w+::|require\(|__all__)"
)
DOC = re.compile(r"^\s*[rbu]?(\"\"\"|''')")
COMMENT = re.compile(r"^\s*(?:#(?!#)|//|/\*|\*\s|--\s|;\s|<!--)")
MEMBERS = re.compile(r"\b(?:\w*Enum|enum|Literal)\b|(?:=|return)\s*\w*[\[({]+$")
_ENDED = re.compile(r"(?:[.!?:]|\w\W{0,3}(?:\"\"\"|'''|\*/))$|^\s*#+\s")
_STARTS = re.compile(
    r"\s*(?:\S+\s{3,}\S|[-*+]\s|\d+[.)]\s|\"\"\"|#+\s|@|\w+:\s"
    r"|:(?:param|raises?|returns?|rtype|type|yields?)\b)"
)
_SIGNED = re.compile(r"[:{;]\s*(?:#.*)?$")
_SAID = re.compile(r"[.!?:](?:\"\"\"|''')?$|\w.*(?:\"\"\"|''')$")

PROSE_LINES = 4
HEAD_LINES = 10
MEMBER_LINES = 16


def named_in(text: str) -> str | None:
    """The name that a line defines or assigns, if it does."""
    found = DEFINITION.match(text) or ASSIGNMENT.match(text)
    return found["name"] if found else None


def is_prose(text: str, *, least: int = 5) -> bool:
    """Whether a line is rather a sentence than a line of a program or of data."""
    signs = len(re.findall(r"[=(){}\[\];<>|]", text.replace("``", "")))
    return len(text.split()) >= least and signs <= len(text) / 25


def extent(lines: list[Line], here: int, *, members: bool) -> tuple[int, int]:
    """The first and the last position of what belongs to the line at ``here``.

    A sentence is taken whole, a definition with the first words about it, a comment with what it
    is about, a heading with what begins under it, a table with its rows. ``members`` takes all
    that is known of an enumeration.
    """
    text = lines[here].text
    if lines[here].number is None:
        return here, here
    if title_of(lines[here]):
        return here, end_of_section(lines, here)
    if column_of(lines, here):
        return here, end_of_table(lines, here)
    if named_in(text):
        return here, _end_of_definition(lines, here, whole=members and bool(MEMBERS.search(text)))
    first = last = here
    if is_prose(text) or DOC.match(text):
        while here - first < PROSE_LINES and goes_on(lines, first - 1):
            first -= 1
        while last - here < PROSE_LINES and goes_on(lines, last):
            last += 1
    if DOC.match(lines[first].text) and joined(lines, first - 1):
        first -= bool(named_in(lines[first - 1].text))
    elif COMMENT.match(lines[last].text) and joined(lines, last):
        last += bool(lines[last + 1].text.strip())
    return first, last


def enclosing(lines: list[Line], here: int) -> str | None:
    """What the line at ``here`` stands in, as far as the lines above it are known: its head."""
    indent = _indent(lines[here].text)
    position = here
    while indent > 0 and joined(lines, position - 1):
        position -= 1
        text = lines[position].text
        if text.strip() and _indent(text) < indent:
            indent = _indent(text)
            if found := DEFINITION.match(text):
                return re.sub(r"^(?:async|export|pub)\s+", "", found[0].strip())
    return None


def goes_on(lines: list[Line], position: int) -> bool:
    """Whether a sentence goes on from the line at ``position`` to the next one."""
    if not joined(lines, position):
        return False
    one, other = lines[position].text.rstrip(), lines[position + 1].text
    if _ENDED.search(one) or _STARTS.match(other):
        return False
    return is_prose(one, least=3) and is_prose(other, least=1)


def _end_of_definition(lines: list[Line], here: int, *, whole: bool) -> int:
    """The last line of a definition's head: its signature and the first sentence about it.

    ``whole`` takes all that is known of it, for a question that asks for its members.
    """
    assigned = ASSIGNMENT.match(lines[here].text) is not None
    last, signed, documented = here, assigned or _SIGNED.search(lines[here].text), False
    most = MEMBER_LINES if whole else HEAD_LINES
    while joined(lines, last) and last - here < most - 1:
        text = lines[last + 1].text
        if whole and text.strip():
            last += 1
            continue
        if not text.strip() or (signed and not documented and not DOC.match(text)):
            break
        last += 1
        if DOC.match(text):
            documented = True
        signed = signed or _SIGNED.search(text)
        if documented and _SAID.search(text):
            break
    return last


def _indent(text: str) -> int:
    return len(text) - len(text.lstrip())


def first_said(lines: list[Line]) -> int:
    """The position of the first line of a page that says anything; -1 where none does."""
    return next((n for n, line in enumerate(lines) if len(line.text.strip()) > 3), -1)
