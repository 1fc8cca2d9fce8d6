"""An answer in words: what was found, quoted, with where it stands."""

from __future__ import annotations

import re
import textwrap

from agentloop.text import cut
from agentloop_providers.offline.conversation import SIGNATURE, Conversation
from agentloop_providers.offline.evidence import Evidence, Line
from agentloop_providers.offline.following import defined_by
from agentloop_providers.offline.passages import Passage
from agentloop_providers.offline.ranking import Ranking
from agentloop_providers.offline.sections import title_of
from agentloop_providers.offline.shapes import ASSIGNMENT, DEFINITION, DOC, is_prose
from agentloop_providers.offline.values import Value, find_value
from agentloop_providers.offline.words import stems

FROM_RESULTS = f"{SIGNATURE} no language model; the lines above are quoted from tool results.)"
FROM_PROMPT = f"{SIGNATURE} no language model; it only repeats what the prompt says.)"

_MARKS = re.compile(
    r"^\s*(?:[rbu]?\"\"\"|'''|#+\s|//+\s?|/\*+\s?|\*\s|[-+]\s|\d{1,3}[.)]\s|>\s|--\s)|\"\"\"\s*$|'''\s*$|\*/\s*$"
)
_HEAD_END = re.compile(r"\s*[:{,;]$")
_FULL_STOP = re.compile(r"(?<=[.!?])\s")
_SHORT = 400

SURE = 0.5
"""The share of the question's words that must stand together somewhere for an answer."""


def answer(talk: Conversation, evidence: Evidence, ranking: Ranking) -> str:
    """The whole answer; its last line says who wrote it."""
    if not talk.calls:
        return f"{_from_prompt(talk)}\n\n{FROM_PROMPT}"
    body = _brief(evidence, ranking) or _quoting(ranking) or _nothing(talk, evidence)
    return f"{body}\n\n{FROM_RESULTS}"


def lead(ranking: Ranking) -> str:
    """The answer in one sentence: a value or the best sentence, without its source."""
    passages = ranking.passages(1, least=0.0)
    value = find_value(ranking)
    if value:
        return value.text
    return gist(ranking, passages[0]) if passages else ""


def gist(ranking: Ranking, passage: Passage) -> str:
    """What a passage says, in a sentence."""
    best, lines = passage.best, passage.lines
    if (title := title_of(lines[0])) and (said := _first_said(lines[1:])):
        return f"{title}: {said}"
    head = DEFINITION.match(lines[0].text) or ASSIGNMENT.match(lines[0].text)
    if head and (doc := _doc(lines[1:])):
        return f"{code(_HEAD_END.sub('', head[0].strip()))}: {doc}"
    if is_prose(best.text):
        return _sentence(passage)
    return code(plain(best.text)) if best.number is not None else plain(best.text)


def code(text: str) -> str:
    """A piece of a program, marked as such."""
    return f"`{text}`" if text and "`" not in text else text


def _first_said(lines: list[Line]) -> str:
    """The first sentence of some lines of a document."""
    told = [plain(line.text) for line in lines if line.text.strip()]
    return _FULL_STOP.split(" ".join(told))[0] if told and is_prose(told[0]) else ""


def _doc(lines: list[Line]) -> str:
    """The first sentence of a docstring, if the lines begin one soon."""
    begins = next((n for n, line in enumerate(lines) if DOC.match(line.text)), None)
    if begins is None:
        return ""
    said = " ".join(plain(line.text) for line in lines[begins:])
    return _FULL_STOP.split(said)[0].strip()


def with_uses(ranking: Ranking) -> Ranking:
    """A ranking that also favours lines that use the name that the best line defines."""
    if ranking.best is None:
        return ranking
    found = defined_by(ranking, ranking.best)
    value = find_value(ranking)
    if value and value.name and value.line.number is not None:
        around = ranking.around(value.line)
        found = (around.split()[-1] if around else None), value.name, value.line
    if found is None or ranking.best.line.number is None or len(found[1]) < 4:
        return ranking
    around, name, line = found
    return ranking.favouring(line, name, around)


def plain(text: str) -> str:
    """A line without the marks of comments, docstrings and lists."""
    return _MARKS.sub("", _MARKS.sub("", text)).strip()


def _quoting(ranking: Ranking) -> str:
    value = find_value(ranking)
    ranking = with_uses(ranking)
    passages = ranking.passages()
    if not passages:
        return ""
    if ranking.coverage() < SURE:
        return "\n\n".join(["No line says it outright; the nearest:", *map(_quote, passages[:3])])
    if value:
        first = _value_sentence(ranking, value)
    else:
        first = f"{gist(ranking, passages[0])} ({_where(ranking, passages[0].best)})"
    return "\n\n".join([cut(first, 700), *map(_quote, passages)])


def _value_sentence(ranking: Ranking, value: Value) -> str:
    said = plain(value.line.text)
    loose = value.name is None and (is_prose(said) or value.line.number is None)
    told = said if loose else code(said)
    if said.endswith(f": {value.text}") and said.count(": ") == 1:
        return f"{said} ({_where(ranking, value.line)})"
    quote = "" if said == value.text else f": {told}"
    return f"{value.text}{quote} ({_where(ranking, value.line)})"


def _where(ranking: Ranking, line: Line) -> str:
    around = ranking.around(line) or ""
    around = re.sub(r"^(?:def|func|fn|function) (\w+)$", r"\1()", around)
    return f"{line.place}, in {around}" if around else line.place


def _quote(passage: Passage) -> str:
    text = textwrap.dedent("\n".join(line.text for line in passage.lines)).strip("\n")
    return f"{passage.place}\n{textwrap.indent(cut(text, 1200), '    ')}"


def _brief(evidence: Evidence, ranking: Ranking) -> str:
    """All results, where they are few and short: then nothing needs to be left out."""
    lines = evidence.lines
    size = sum(len(line.text) for line in lines)
    if not lines or len(lines) > 8 or size > 2 * _SHORT or any(line.number for line in lines):
        return ""
    order = list(dict.fromkeys([*(item.page for item in ranking.scored), *evidence.pages]))
    told = {page: "; ".join(line.text.strip() for line in evidence.pages[page]) for page in order}
    value = find_value(ranking)
    if value and ranking.best:  # then what has little to do with it is left out
        near = {item.page for item in ranking.scored if item.score >= 0.5 * ranking.best.score}
        told = {page: text for page, text in told.items() if page in near}
    parts = [f"{text} ({page})" for page, text in told.items()]
    if value and len(lines) > 1:
        parts.insert(0, _value_sentence(ranking, value))
    return "\n".join(dict.fromkeys(parts))


def _nothing(talk: Conversation, evidence: Evidence) -> str:
    """What to say where no result speaks of what was asked."""
    said = [f"{line.text.strip()} ({line.place})" for line in evidence.lines if line.text.strip()][
        :6
    ]
    if not said:
        told = ((call, cut(call.text.strip(), 300)) for call in talk.calls)
        said = [f"{call.label}: {text or 'no text'}" for call, text in told]
    unique = list(dict.fromkeys(said))[:6]
    head = "Nothing that was found answers it; this is all:"
    return "\n".join([head, *(f"- {one}" for one in unique)])


def _from_prompt(talk: Conversation) -> str:
    question = talk.question
    if not question.text.strip():
        return "The prompt holds no text to answer."
    parts = list(dict.fromkeys(question.context))
    if len(parts) < 2 or question.focus == question.text.strip():
        return f"There is nothing but the prompt to answer from: “{cut(question.focus, _SHORT)}”"
    asked = question.terms.keys()
    order = sorted(range(len(parts)), key=lambda n: (-len(asked & set(stems(parts[n]))), n))
    chosen = (plain(cut(parts[n], _SHORT)) for n in sorted(order[:4]))
    return "\n".join(["The prompt says:", *(f"- {part}" for part in chosen if part)])


def _sentence(passage: Passage) -> str:
    """The sentence of a passage of prose that its best line is part of."""
    here = passage.lines.index(passage.best)
    own = plain(passage.best.text)
    before, after = (
        " ".join(plain(line.text) for line in lines if is_prose(line.text, least=1))
        for lines in (passage.lines[:here], passage.lines[here + 1 :])
    )
    start = "" if re.search(r"[.!?:]$", before) else _FULL_STOP.split(before)[-1]
    if after and not re.search(r"[.!?:]$", own):
        own = f"{own} {_FULL_STOP.split(after)[0]}"
    return f"{start} {own}".strip()
