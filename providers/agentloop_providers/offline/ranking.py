"""Which lines of the evidence speak most about a question."""

from __future__ import annotations

import re
from functools import cached_property

from agentloop_providers.offline.evidence import Evidence, Line
from agentloop_providers.offline.passages import Passage, Scored, passages_of
from agentloop_providers.offline.question import Question
from agentloop_providers.offline.sections import is_document
from agentloop_providers.offline.shapes import IMPORT, enclosing, first_said, is_prose
from agentloop_providers.offline.titles import is_meant, listed_in, naming
from agentloop_providers.offline.wanted import Wanted
from agentloop_providers.offline.words import stems

_ASIDE = re.compile(r"(?:^|/)(?:tests?|testing|benchmarks?|fixtures|_?vendor|third_party)/|/test_")
"""Files that show how something is used rather than say what it is."""

HEAD = 0.5
"""What the first line of a file that the question means scores at least."""
CLOSELY = 80
"""Lines that get a closer look."""


class Ranking:
    """The lines of some evidence by how much they say about a question."""

    def __init__(self, evidence: Evidence, question: Question, extra: str = "") -> None:
        """``extra`` holds more words to look for, e.g. the name of a field of a typed answer."""
        self.evidence = evidence
        self.question = question
        self._wanted = Wanted(question, extra)

    @cached_property
    def scored(self) -> list[Scored]:
        """The lines that say anything, the best first."""
        found = _sorted(self._at_first_sight())
        return _sorted([*map(self._looked_at, found[:CLOSELY]), *found[CLOSELY:]])

    @cached_property
    def best(self) -> Scored | None:
        return self.scored[0] if self.scored else None

    def coverage(self) -> float:
        """How many of the question's words stand together in the best place, 0 to 1."""
        asked, most = self._wanted.asked, 0.0
        for item in self.scored[:5]:
            lines = self.evidence.pages[item.page][max(item.position - 1, 0) : item.position + 2]
            said = set(stems(" ".join([item.page, *(line.text for line in lines)])))
            most = max(most, len(asked & said) / len(asked) if asked else 0.0)
        return most

    def passages(self, at_most: int = 4, *, least: float = 0.55) -> list[Passage]:
        """The best lines with what belongs to them; none is far worse than the first."""
        members = "list" in self.question.kinds
        return passages_of(
            self.scored, self.evidence.pages, at_most=at_most, least=least, members=members
        )

    def around(self, line: Line) -> str | None:
        """The head of what ``line`` stands in: ``class Limits``."""
        page = self.evidence.pages[line.source]
        return enclosing(page, page.index(line))

    def favouring(self, definition: Line, name: str, around: str | None) -> Ranking:
        """This ranking with the lines lifted that use ``name``, most where it is qualified.

        ``definition`` is where the name is defined, ``around`` what it is defined in.
        """
        plain = re.compile(rf"(?<![\w\"']){re.escape(name)}\b")
        full = re.compile(rf"(?i:\b{re.escape(around)})\.{re.escape(name)}\b") if around else None
        most = self.scored[0].score if self.scored else 0.0

        def lift(item: Scored) -> float:
            if full and full.search(item.line.text):
                return 0.5 * most
            used = plain.search(item.line.text) and not is_prose(item.line.text)
            return 0.1 * most if used else 0.0

        lifted = _sorted([_with_score(item, item.score + lift(item)) for item in self.scored])
        other = Ranking(self.evidence, self.question)
        other.scored = sorted(lifted, key=lambda item: item.line is not definition)
        return other

    # --- scores --------------------------------------------------------------------------------

    def _at_first_sight(self) -> list[Scored]:
        """The lines with words that are wanted, and their neighbours, by those words alone."""
        pages = self.evidence.pages
        hits = {page: self._wanted.hits(lines) for page, lines in pages.items()}
        total = sum(map(len, pages.values())) or 1
        weights = self._wanted.weights((w for page in hits.values() for w in page.values()), total)
        found: list[Scored] = []
        for page, lines in pages.items():
            head = first_said(lines) if self._is_meant(page) else -1
            for position in _touched(hits[page], len(lines), head):
                score = self._score(lines[position], hits[page], position, weights)
                score = max(score, HEAD if position == head else 0.0)
                if score > 0:
                    weight = self._page_weight(page)
                    found.append(Scored(weight * score, page, position, lines[position]))
        return found

    def _score(
        self, line: Line, hits: dict[int, frozenset[str]], position: int, weights: dict[str, float]
    ) -> float:
        if position not in hits and len(line.text.strip()) < 4:
            return 0.0
        beside = [word for n in (position - 1, position + 1) for word in hits.get(n, ())]
        score = self._wanted.score([(1.0, hits.get(position, ())), (0.4, beside)], weights)
        return 0.3 * score if IMPORT.match(line.text) else score

    def _page_weight(self, page: str) -> float:
        if self.question.names_source(page):
            return 2.0
        aside = _ASIDE.search(page) and "test" not in self._wanted.terms
        # A document may quote what decides; it does not decide.
        quotes = is_document(page) and self.question.kinds & {"where", "default"}
        return 0.8 if aside or quotes else 1.0

    def _looked_at(self, item: Scored) -> Scored:
        """The line with the score that a closer look gives it."""
        text, score, question = item.line.text, item.score, self.question
        listed = listed_in(item)
        if self._wanted.is_echoed(text) or (listed and self.evidence.has(listed, 1)):
            return _with_score(item, 0.1 * score)  # a file that was read is no longer only listed
        named = naming(item, self.evidence, question, self._wanted)
        score += self._wanted.order(text) + named
        if is_prose(text):
            score += 0.0 if question.kinds & {"number", "default", "where"} else 0.15
        elif question.asks_words and not named:
            score *= 0.5
        return _with_score(item, score)

    def _is_meant(self, page: str) -> bool:
        return is_meant(page, self.evidence, self.question, self._wanted)


def _sorted(items: list[Scored]) -> list[Scored]:
    return sorted(items, key=lambda item: -item.score)


def _with_score(item: Scored, score: float) -> Scored:
    return Scored(score, item.page, item.position, item.line)


def _touched(hits: dict[int, frozenset[str]], length: int, head: int) -> list[int]:
    """The positions of hits and of their neighbours, and the head."""
    near = {n for position in hits for n in (position - 1, position, position + 1)} | {head}
    return sorted(n for n in near if 0 <= n < length)
