"""What stands under a name: definitions, sections, tables, files. And what a line gains by it."""

from __future__ import annotations

from collections.abc import Iterator

from agentloop_providers.offline.evidence import Evidence
from agentloop_providers.offline.passages import Scored
from agentloop_providers.offline.question import PATH, Question
from agentloop_providers.offline.sections import column_of, end_of_section, is_document, title_of
from agentloop_providers.offline.shapes import DOC, MEMBERS, extent, first_said, named_in
from agentloop_providers.offline.wanted import Wanted
from agentloop_providers.offline.words import stems


def naming(item: Scored, evidence: Evidence, question: Question, wanted: Wanted) -> float:
    """What a line gains by defining what the question names, or by heading what is about it."""
    lines = evidence.pages[item.page]
    lists = "list" in question.kinds
    if any(map(wanted.titles, _titles(item, evidence))):
        return 0.6 if question.asks_words or lists else 0.2
    if column := column_of(lines, item.position):
        return 0.8 if lists and wanted.titles(column) else 0.0
    if name := named_in(item.line.text):
        members = 0.2 if lists and MEMBERS.search(item.line.text) else 0.0
        return members + _defining(name, item, evidence, question, wanted)
    return 0.0


def is_meant(page: str, evidence: Evidence, question: Question, wanted: Wanted) -> bool:
    """Whether the question names a file, or asks to explain what the file is named after."""
    if question.names_source(page):
        return True
    explained = question.asks_words or "list" in question.kinds
    return explained and evidence.has(page, 1) and wanted.titles(_bare(page))


def listed_in(item: Scored) -> str | None:
    """The file that a line does no more than list."""
    found = PATH.match(item.line.text) if item.line.number is None else None
    return found[0] if found else None


def _defining(
    name: str, item: Scored, evidence: Evidence, question: Question, wanted: Wanted
) -> float:
    codes = [code.lower().removesuffix("()") for code in question.codes]
    gain = 0.6 if any(f".{code}".endswith(f".{name.lower()}") for code in codes) else 0.0
    if not set(stems(name)) <= wanted.terms.keys():
        return gain
    if not question.asks_words:
        return gain + 0.2
    lines = evidence.pages[item.page]
    first, last = extent(lines, item.position, members=False)
    documented = any(DOC.match(line.text) for line in lines[first : last + 1])
    return gain + 0.6 * documented


def _titles(item: Scored, evidence: Evidence) -> Iterator[str]:
    """What a line heads, by name: a section, or the file that it begins or lists."""
    lines, line = evidence.pages[item.page], item.line
    heading = title_of(line)
    if heading and end_of_section(lines, item.position) > item.position:
        yield heading
    if listed := listed_in(item):
        yield _bare(listed)
    begun = is_document(item.page) and evidence.has(item.page, 1)
    if (begun and item.position == first_said(lines)) or (
        line.number == 1 and DOC.match(line.text)
    ):
        yield _bare(item.page)


def _bare(path: str) -> str:
    """The name of a file without its folder and its suffix."""
    return path.rpartition("/")[2].partition(".")[0]
