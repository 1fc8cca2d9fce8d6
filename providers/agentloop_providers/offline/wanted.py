"""What a question looks for in lines: its words, and what may stand for them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from itertools import pairwise

from agentloop_providers.offline.evidence import Line
from agentloop_providers.offline.question import Question
from agentloop_providers.offline.words import (
    STOP,
    are_near,
    is_weak,
    shared_run,
    split,
    stem,
    stems,
)


class Wanted:
    """The words to look for, as stems, each with the concept of the question that it stands for."""

    def __init__(self, question: Question, extra: str = "") -> None:
        """``extra`` holds more words to look for, e.g. the name of a field of a typed answer."""
        more = stems(extra)
        self.terms = {**question.terms, **dict.fromkeys(more, 1.5)}
        self.concepts = {**question.concepts, **{word: (word, 1.5) for word in more}}
        self.asked = {term for term, weight in self.terms.items() if weight >= 1}
        """The terms that say something."""
        main = {name for name, weight in self.concepts.values() if weight >= 0.7}
        self._most = max(len(main), 1)
        self._pairs = list(pairwise(term for term in self.terms if term in self.asked))
        self._ask = " ".join(split(question.focus))
        self._ask_stems = stems(question.focus)

    def hits(self, lines: list[Line]) -> dict[int, frozenset[str]]:
        """For each line that holds a word that is wanted, which ones."""
        wanted = self.concepts.keys()
        if not wanted:
            return {}
        # The stem of a word is nearly always its beginning: what cannot match is left out quickly.
        trunks = sorted({word[:-1] if word.endswith("y") else word for word in wanted})
        maybe = re.compile("|".join(map(re.escape, trunks)))
        found = {
            position: frozenset(wanted & set(stems(line.text)))
            for position, line in enumerate(lines)
            if maybe.search(line.text.lower())
        }
        return {position: words for position, words in found.items() if words}

    def weights(self, lines: Iterable[frozenset[str]], total: int) -> dict[str, float]:
        """How much each word counts: the fewer of ``total`` lines hold it, the more."""
        counts: dict[str, int] = {}
        for found in lines:
            for word in found:
                counts[word] = counts.get(word, 0) + 1
        rarity = {word: math.log(1 + total / count) for word, count in sorted(counts.items())}
        whole = sum(rarity[word] * self.terms[word] for word in rarity if word in self.terms)
        return {word: rarity[word] * self.concepts[word][1] / (whole or 1.0) for word in rarity}

    def score(
        self, near: Iterable[tuple[float, Iterable[str]]], weights: dict[str, float]
    ) -> float:
        """What the words of a line and of its neighbours say together, ``near`` by distance.

        A concept counts once, where it stands nearest.
        """
        worth: dict[str, float] = {}
        for factor, words in near:
            for word in words:
                concept = self.concepts[word][0]
                worth[concept] = max(worth.get(concept, 0.0), factor * weights[word])
        score = sum(worth[concept] for concept in sorted(worth))
        return score * (0.5 + 0.5 * min(len(worth) / self._most, 1.0))

    def order(self, text: str) -> float:
        """What a text gains by saying words in the order, or next to each other, as asked."""
        said = stems(text)
        run = min(0.06 * shared_run(self._ask_stems, said), 0.5)
        return run + 0.06 * sum(are_near(pair, said) for pair in self._pairs)

    def titles(self, title: str) -> bool:
        """Whether all that a title says is wanted."""
        said = {stem(word) for word in split(title) if word not in STOP and not is_weak(word)}
        return bool(said) and said <= self.concepts.keys()

    def is_echoed(self, text: str) -> bool:
        """Whether a line only repeats the question; a question is no answer to itself."""
        return len(self._ask_stems) > 3 and self._ask in " ".join(split(text))
