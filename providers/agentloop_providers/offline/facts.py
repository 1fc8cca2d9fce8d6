"""What is known, sorted for the fields of a typed answer: texts, numbers, places, names."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any

from agentloop_providers.offline.answering import gist, lead, plain, with_uses
from agentloop_providers.offline.conversation import Conversation
from agentloop_providers.offline.evidence import Evidence
from agentloop_providers.offline.following import defined_by
from agentloop_providers.offline.passages import Passage
from agentloop_providers.offline.question import DATE, EMAIL, URL
from agentloop_providers.offline.ranking import Ranking
from agentloop_providers.offline.values import amounts, find_value
from agentloop_providers.offline.words import STOP, WEAK, split, stems

MANY = 8
LONGEST = 1000

_ROLES = {
    "path": "path file filename filepath module document page",
    "place": "source where location citation reference ref origin place",
    "quote": "quote excerpt evidence snippet passage proof citations quotes",
    "name": "name symbol identifier setting option parameter variable function class key term",
    "title": "title heading headline topic subject label tag keyword slug",
    "url": "url uri link href",
    "date": "date day when",
    "email": "email mail",
    "question": "question query aspect subtopic task step part",
    "answer": "answer text summary result response conclusion description content value reply body",
}
_ROLE_OF = {word: role for role, words in _ROLES.items() for word in words.split()}
LINE_WORDS = {"line", "lineno", "linenumber"}
SHARE_WORDS = {"confidence", "score", "probability", "certainty", "likelihood", "relevance"}


class Facts:
    """What the results, or else the prompt, offer as values."""

    def __init__(self, talk: Conversation, evidence: Evidence, ranking: Ranking) -> None:
        self._talk = talk
        self._evidence = evidence
        self._rankings = {"": ranking}
        self._uses = with_uses(ranking)

    @property
    def is_found(self) -> bool:
        """Whether the results speak about what was asked."""
        return self._rankings[""].coverage() >= 0.34 and not self._denies

    def coverage(self) -> float:
        return round(self._rankings[""].coverage(), 2)

    def texts(self, name: str, note: str) -> list[str]:
        """Strings for a field called ``name`` and described by ``note``, the best first."""
        role = role_of(name)
        own = self._members(name, str)
        made = {
            "path": [*(p.best.source for p in self._passages("")), *self._evidence.pages],
            "place": [p.place for p in self._passages("")],
            "quote": [p.best.text.strip() for p in self._passages("")],
            "name": self._names,
            "title": self._topics,
            "question": self._questions,
            "url": self._found(URL),
            "date": self._found(DATE),
            "email": self._found(EMAIL),
        }.get(role or "", [])
        told = self._told("" if role else f"{name} {note}"[:120])
        rest = (text[:LONGEST] for text in [*made, *told] if text.strip() and text not in own)
        return [*own, *dict.fromkeys(rest)]

    def numbers(self, name: str, note: str) -> list[float]:
        """Numbers for a field, the best first."""
        words = set(split(name))
        if words & LINE_WORDS:
            places = (p.best.number for p in self._passages(""))
            return [float(number) for number in places if number]
        if words & SHARE_WORDS:
            return [self.coverage()]
        extra = " ".join(w for w in split(f"{name} {note}") if w not in STOP | WEAK)[:120]
        found = [float(v) for v in self._members(name, float)]
        asked = self._rankings[""].question
        value = find_value(self._rankings[""]) if "number" in asked.kinds else None
        told = [value.text] if value else []
        told += [a for p in self._passages(extra) for a in amounts(p.best.text)]
        found += [number for text in told if (number := _number(text)) is not None]
        return [*dict.fromkeys([*found, *asked.numbers])]

    @cached_property
    def said(self) -> list[str]:
        """The passages with their places, the best first, or else the prompt."""
        found = [f"{passage.best.source} {passage.text}" for passage in self._passages("")]
        return found or [self._talk.question.text[:2000]]

    def many(self, name: str) -> int:
        """How many entries there are for a list called ``name``."""
        if role_of(name) == "question":
            return len(self._questions)
        return len(self._passages("")) or len(self._topics)

    # --- where they come from ------------------------------------------------------------------

    def _ranking(self, extra: str) -> Ranking:
        if extra not in self._rankings:
            question = self._talk.question
            self._rankings[extra] = Ranking(self._evidence, question, extra)
        return self._rankings[extra]

    def _passages(self, extra: str) -> list[Passage]:
        ranking = self._ranking(extra) if extra else self._uses
        return ranking.passages(MANY, least=0.3)

    def _told(self, extra: str) -> list[str]:
        ranking = self._ranking(extra)
        found = [lead(ranking), *(gist(ranking, p) for p in self._passages(extra))]
        found = [text for text in found if text]
        return found or [*self._topics, *self._prompt]

    @cached_property
    def _prompt(self) -> list[str]:
        parts = [plain(part) for part in self._talk.question.context]
        return [part for part in parts if part] or ["Nothing was found."]

    @cached_property
    def _names(self) -> list[str]:
        ranking = self._rankings[""]
        defined = [defined_by(ranking, item) for item in ranking.scored[:MANY]]
        found = [item[1] for item in defined if item]
        asked = self._talk.question
        return [*found, *asked.codes, *asked.names, *self._topics]

    @cached_property
    def _topics(self) -> list[str]:
        asked = self._talk.question
        found = [*asked.quoted, *asked.names, *asked.phrases]
        if len(found) < 2:
            known = " ".join(found).lower()
            found += [word for word in asked.words if word not in known]
        text = asked.focus.lower()
        return sorted(dict.fromkeys(found), key=lambda topic: text.find(topic.lower()))

    @cached_property
    def _questions(self) -> list[str]:
        """What can be asked next: after each thing that results tell by name, or after topics."""
        labels = [key for record in self._evidence.records for key in record.values]
        asked = self._talk.question
        subject = next(iter([*asked.quoted, *asked.names]), None)
        if not labels or subject is None:
            return self._topics
        return [f"What is the {label} of {subject}?" for label in dict.fromkeys(labels)]

    def _found(self, pattern: re.Pattern[str]) -> list[str]:
        texts = [self._talk.question.text[:2000]]
        texts += [f"{line.text} {line.source}" for line in self._evidence.lines[:400]]
        return list(dict.fromkeys(m[0] for text in texts for m in pattern.finditer(text)))

    def _members(self, name: str, kind: type) -> list[Any]:
        """Members of JSON results that are called what the field is called."""
        wanted = set(stems(name))
        found: list[tuple[int, Any]] = []
        for record in self._evidence.records:
            for key, value in record.values.items():
                is_number = isinstance(value, int | float) and not isinstance(value, bool)
                if not (is_number if kind is float else isinstance(value, str)):
                    continue
                shared = wanted & set(stems(key))
                if shared:
                    found.append((len(set(stems(key)) ^ wanted), value))
        least = min((distance for distance, _ in found), default=0)
        # One of each record, also where they are equal: lists are filled record by record.
        return [value for distance, value in found if distance == least]

    @property
    def _denies(self) -> bool:
        best = self._rankings[""].best
        return (
            best is not None
            and re.search(r"\b(?:not?|never|cannot)\b|n't\b", best.line.text) is not None
        )


def is_place(name: str) -> bool:
    """Whether a field says where something stands."""
    return role_of(name) in ("path", "place", "url") or bool(set(split(name)) & LINE_WORDS)


def role_of(name: str) -> str | None:
    """What a field of an answer is for, by its name; the last word tells most."""
    for word in reversed(split(name)):
        if word in _ROLE_OF or word.removesuffix("s") in _ROLE_OF:
            return _ROLE_OF.get(word) or _ROLE_OF[word.removesuffix("s")]
    return None


def _number(text: str) -> float | None:
    found = re.search(r"-?\d[\d_,]*(?:\.\d+)?", text)
    digits = found[0].replace("_", "").replace(",", "") if found else ""
    return float(digits) if digits and len(digits) < 16 else None
