"""Which lines of the evidence speak most about a question, and the passages around them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from agentloop_providers.offline.evidence import Evidence, Line
from agentloop_providers.offline.question import NUMBER, PATH, Question
from agentloop_providers.offline.sections import (
    column_of,
    end_of_section,
    is_document,
    title_of,
)
from agentloop_providers.offline.shapes import (
    ASSIGNMENT,
    DEFAULT,
    DOC,
    IMPORT,
    MEMBERS,
    enclosing,
    extent,
    is_prose,
    named_in,
)
from agentloop_providers.offline.words import (
    STOP,
    are_near,
    is_weak,
    shared_run,
    split,
    stem,
    stems,
)

_PRAGMA = re.compile(
    r"#\s*(?:noqa|pyright|type:|mypy|pylint|pragma|fmt:).*$|//\s*(?:eslint|@ts-).*$"
)
_ASIDE = re.compile(r"(?:^|/)(?:tests?|testing|benchmarks?|fixtures|_?vendor|third_party)/|/test_")
"""Files that show how something is used rather than say what it is."""
_REASON = re.compile(r"\b(?:because|since|so that|so|otherwise|why|reason)\b")


HEAD = 0.5
"""What the first line of a file that the question names scores at least."""


@dataclass(frozen=True, slots=True)
class Scored:
    score: float
    page: str
    position: int
    """The place of the line in its page."""
    line: Line


@dataclass(frozen=True)
class Passage:
    """Lines that stand together; ``best`` is the one that was found."""

    lines: list[Line]
    best: Line
    score: float

    @cached_property
    def place(self) -> str:
        """Where it comes from: ``usage.py:31-32``."""
        numbers = [line.number for line in self.lines if line.number is not None]
        if not numbers or self.lines[0].number is None:
            return self.best.source
        span = f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}"
        return f"{self.best.source}:{span}"

    @property
    def text(self) -> str:
        return "\n".join(line.text for line in self.lines)


class Ranking:
    """The lines of some evidence by how much they say about a question."""

    def __init__(self, evidence: Evidence, question: Question, extra: str = "") -> None:
        """``extra`` holds more words to look for, e.g. the name of a field of a typed answer."""
        self.evidence = evidence
        self.question = question
        self._terms = {**question.terms, **dict.fromkeys(stems(extra), 1.5)}
        self._concepts = {**question.concepts, **{w: (w, 1.5) for w in stems(extra)}}
        self._codes = [code.lower().removesuffix("()") for code in question.codes]
        self._wanted = max(
            len({name for name, weight in self._concepts.values() if weight >= 0.7}), 1
        )
        content = [word for word in self._terms if self._terms[word] >= 1]
        self._pairs = list(pairwise(content))
        self._ask = " ".join(split(question.focus))
        self._ask_stems = stems(question.focus)

    @cached_property
    def scored(self) -> list[Scored]:
        """The lines that say anything, the best first."""
        hits = {page: self._hits(lines) for page, lines in self.evidence.pages.items()}
        weights = self._weights(hits)
        scored: list[Scored] = []
        for page, lines in self.evidence.pages.items():
            own = self._own_words(page, weights)
            weight = self._page_weight(page)
            head = _head(lines) if self._is_meant(page) else -1
            for position in _touched(hits[page], len(lines), head):
                score = self._score(lines, hits[page], position, weights, own)
                score = max(score, HEAD) if position == head else score
                if score > 0:
                    scored.append(Scored(weight * score, page, position, lines[position]))
        scored.sort(key=lambda item: -item.score)
        top = [self._sharpen(item) for item in scored[:80]] + scored[80:]
        return sorted(top, key=lambda item: -item.score)

    @cached_property
    def best(self) -> Scored | None:
        return self.scored[0] if self.scored else None

    def coverage(self) -> float:
        """How many of the question's words stand together in the best place, 0 to 1."""
        asked = {term for term, weight in self._terms.items() if weight >= 1}
        most = 0.0
        for item in self.scored[:5]:
            lines = self.evidence.pages[item.page][max(item.position - 1, 0) : item.position + 2]
            said = set(stems(" ".join([item.page, *(line.text for line in lines)])))
            most = max(most, len(asked & said) / len(asked) if asked else 0.0)
        return most

    # --- scores --------------------------------------------------------------------------------

    def _hits(self, lines: list[Line]) -> dict[int, frozenset[str]]:
        """For each line that holds a word of the question, which ones."""
        wanted = self._concepts.keys()
        if not wanted:
            return {}
        # The stem of a word is nearly always its beginning: what cannot match is left out quickly.
        trunks = sorted({word[:-1] if word.endswith("y") else word for word in wanted})
        maybe = re.compile("|".join(map(re.escape, trunks)))
        hits: dict[int, frozenset[str]] = {}
        for position, line in enumerate(lines):
            text = (
                _PRAGMA.sub("", line.text) if "#" in line.text or "//" in line.text else line.text
            )
            if maybe.search(text.lower()):
                found = wanted & set(stems(text))
                if found:
                    hits[position] = frozenset(found)
        return hits

    def _weights(self, hits: dict[str, dict[int, frozenset[str]]]) -> dict[str, float]:
        total = sum(len(lines) for lines in self.evidence.pages.values()) or 1
        counts: dict[str, int] = {}
        for page in hits.values():
            for found in page.values():
                for word in found:
                    counts[word] = counts.get(word, 0) + 1
        rarity = {word: math.log(1 + total / count) for word, count in sorted(counts.items())}
        whole = sum(rarity[word] * self._terms[word] for word in rarity if word in self._terms)
        return {word: rarity[word] * self._concepts[word][1] / (whole or 1.0) for word in rarity}

    def _page_weight(self, page: str) -> float:
        if self.question.names_source(page):
            return 2.0
        aside = _ASIDE.search(page) and "test" not in self._terms
        # A document may quote what decides; it does not decide.
        quotes = is_document(page) and self.question.kinds & {"where", "default"}
        return 0.8 if aside or quotes else 1.0

    def _is_meant(self, page: str) -> bool:
        """Whether the question names a file, or asks to explain what the file is named after."""
        if self.question.names_source(page):
            return True
        explained = self.question.asks_words or "list" in self.question.kinds
        return explained and self.evidence.has(page, 1) and self._shares(_bare(page))

    def _own_words(self, page: str, weights: dict[str, float]) -> frozenset[str]:
        """The words of the question that the page's own name holds."""
        return frozenset(word for word in stems(page.rpartition("/")[2]) if word in weights)

    def _score(
        self,
        lines: list[Line],
        hits: dict[int, frozenset[str]],
        position: int,
        weights: dict[str, float],
        own: frozenset[str],
    ) -> float:
        text = lines[position].text
        if position not in hits and len(text.strip()) < 4:
            return 0.0
        # A concept counts once, where it stands nearest: here, in the next lines, in the name.
        worth: dict[str, float] = {}
        for factor, offsets in ((1.0, (0,)), (0.4, (-1, 1)), (0.15, (-2, 2))):
            for offset in offsets:
                for word in hits.get(position + offset, ()):
                    concept = self._concepts[word][0]
                    worth[concept] = max(worth.get(concept, 0.0), factor * weights[word])
        for word in own:
            concept = self._concepts[word][0]
            worth[concept] = max(worth.get(concept, 0.0), 0.15 * weights[word])
        score = sum(worth[concept] for concept in sorted(worth))
        score *= 0.5 + 0.5 * min(len(worth) / self._wanted, 1.0)
        if IMPORT.match(text):
            score *= 0.3
        return score / (1 + max(len(text) - 160, 0) / 400)

    def _sharpen(self, item: Scored) -> Scored:
        """The score with what only shows on a closer look."""
        text, score = item.line.text, item.score
        if self._is_echo(text) or self._is_read(item.line):
            return Scored(score * 0.1, item.page, item.position, item.line)
        score += min(0.06 * shared_run(self._ask_stems, stems(text)), 0.5)
        naming = self._naming(item)
        score += naming
        kinds = self.question.kinds
        if kinds & {"number", "when"} and NUMBER.search(text):
            score += 0.08
        if "default" in kinds and (ASSIGNMENT.match(text) or DEFAULT.search(text)):
            score += 0.12
        if "why" in kinds and _REASON.search(text):
            score += 0.15
        if is_prose(text):
            score += 0.0 if kinds & {"number", "default", "where"} else 0.15
        elif self.question.asks_words and not naming:
            score *= 0.5
        said = stems(text)
        score += 0.06 * sum(are_near(pair, said) for pair in self._pairs)
        return Scored(score, item.page, item.position, item.line)

    def _naming(self, item: Scored) -> float:
        """What a line gains by defining what the question names, or by heading what is about it."""
        lines, text, kinds = self.evidence.pages[item.page], item.line.text, self.question.kinds
        if any(map(self._shares, self._titles(item))):
            return 0.6 if self.question.asks_words or "list" in kinds else 0.2
        if column := column_of(lines, item.position):
            return 0.8 if "list" in kinds and self._shares(column) else 0.0
        if not (name := named_in(text)):
            return 0.0
        gain = 0.2 if "list" in kinds and MEMBERS.search(text) else 0.0
        if any(code == name.lower() or code.endswith(f".{name.lower()}") for code in self._codes):
            gain += 0.6
        if set(stems(name)) <= self._terms.keys():
            first, last = extent(lines, item.position, members=False)
            documented = any(DOC.match(line.text) for line in lines[first : last + 1])
            gain += 0.6 * documented if self.question.asks_words else 0.2
        return gain

    def _titles(self, item: Scored) -> Iterator[str]:
        """What a line heads, by name: a section, or the file that it begins or lists."""
        lines, line = self.evidence.pages[item.page], item.line
        heading = title_of(line)
        if heading and end_of_section(lines, item.position) > item.position:
            yield heading
        listed = PATH.match(line.text) if line.number is None else None
        if listed:
            yield _bare(listed[0])
        read = is_document(item.page) and self.evidence.has(item.page, 1)
        if (read and item.position == _head(lines)) or (line.number == 1 and DOC.match(line.text)):
            yield _bare(item.page)

    def _shares(self, title: str) -> bool:
        """Whether all that a title says is asked for."""
        said = {stem(word) for word in split(title) if word not in STOP and not is_weak(word)}
        return bool(said) and said <= self._concepts.keys()

    def _is_echo(self, text: str) -> bool:
        """Whether a line only repeats the question; a question is no answer to itself."""
        return len(self._ask_stems) > 3 and self._ask in " ".join(split(text))

    def _is_read(self, line: Line) -> bool:
        """Whether a line only lists a file that was read since: it has told what it can."""
        listed = PATH.match(line.text) if line.number is None else None
        return listed is not None and self.evidence.has(listed[0], 1)

    def favouring(self, definition: Line, name: str, around: str | None) -> Ranking:
        """This ranking with the lines lifted that use ``name``, most where it is qualified.

        ``definition`` is where the name is defined, ``around`` what it is defined in.
        """
        plain = re.compile(rf"(?<![\w\"']){re.escape(name)}\b")
        full = re.compile(rf"(?i:\b{re.escape(around)})\.{re.escape(name)}\b") if around else None
        lift = self.scored[0].score if self.scored else 0.0
        lifted: list[Scored] = []
        for item in self.scored:
            score = item.score
            if full and full.search(item.line.text):
                score += 0.5 * lift
            elif plain.search(item.line.text) and not is_prose(item.line.text):
                score += 0.1 * lift
            lifted.append(Scored(score, item.page, item.position, item.line))
        other = Ranking(self.evidence, self.question)
        other.scored = sorted(lifted, key=lambda item: (item.line is not definition, -item.score))
        return other

    # --- passages ------------------------------------------------------------------------------

    def passages(self, at_most: int = 4, *, least: float = 0.55) -> list[Passage]:
        """The best lines with what belongs to them; none is far worse than the first."""
        chosen: list[Passage] = []
        taken: set[tuple[str, int]] = set()
        enough = least * max((item.score for item in self.scored[:2]), default=0.0)
        for item in self.scored:
            if len(chosen) >= at_most or (chosen and item.score < enough):
                break
            if (item.page, item.position) in taken:
                continue
            page = self.evidence.pages[item.page]
            first, last = extent(page, item.position, members="list" in self.question.kinds)
            lines = page[first : last + 1]
            free = [n for n in range(first, last + 1) if (item.page, n) not in taken]
            if len(free) < last + 1 - first:
                lines = [item.line]
            taken.update((item.page, n) for n in range(first - 1, last + 2))
            passage = Passage(lines, item.line, item.score)
            if not any(p.text == passage.text or p.best.text == item.line.text for p in chosen):
                chosen.append(passage)
        return chosen

    def around(self, line: Line) -> str | None:
        """The head of what ``line`` stands in: ``class Limits``."""
        page = self.evidence.pages[line.source]
        return enclosing(page, page.index(line))


def _bare(path: str) -> str:
    return path.rpartition("/")[2].partition(".")[0]


def _touched(hits: dict[int, frozenset[str]], length: int, head: int) -> list[int]:
    """The positions of hits and of their neighbours, and the head."""
    near = {n for position in hits for n in (position - 1, position, position + 1)} | {head}
    return sorted(n for n in near if 0 <= n < length)


def _head(lines: list[Line]) -> int:
    """The position of the first line of a page that says anything; -1 where none does."""
    return next((n for n, line in enumerate(lines) if len(line.text.strip()) > 3), -1)
