"""What a text asks, and what it names: numbers, paths, identifiers, names and the like."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from agentloop_providers.offline.words import (
    KIN,
    PHRASES,
    STOP,
    WEAK,
    content,
    is_weak,
    split,
    stem,
    stems,
)

_SUFFIXES = (
    "py|pyi|md|rst|txt|toml|json|jsonl|yaml|yml|ini|cfg|conf|js|mjs|ts|tsx|jsx|go|rs|c|h|cc|cpp|"
    "hpp|cs|java|kt|rb|php|sh|bat|html|css|xml|csv|tsv|sql|log|pdf|docx?|xlsx?|ipynb|lock|env|tex"
)
URL = re.compile(r"\b[a-zA-Z][a-zA-Z0-9+.-]{1,20}://[^\s<>\"'`|\\)\]}]+(?<![.,;:!?])")
EMAIL = re.compile(r"\b[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+\b")
PATH = re.compile(
    rf"(?<![\w./@+-])(?:~?/|\.{{1,2}}/)?(?:[\w.@+-]{{1,80}}/){{0,12}}[\w@+-][\w.@+-]{{0,80}}\.(?:{_SUFFIXES})\b"
    r"|(?<![\w./:@-])~?(?:/[\w.@+-]{1,80}){2,12}"
)
DATE = re.compile(
    r"\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:Z|[+-]\d\d:?\d\d)?)?"
)
TIME = re.compile(r"\b\d{1,2}:\d\d(?::\d\d)?\b")
UUID = re.compile(r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b")
ID = re.compile(
    r"(?<![\w-])(?:[A-Z][A-Z0-9]{0,9}[-_]?\d{1,12}|[a-z]{1,12}[-_]\d{1,12})(?![\w-])|(?<=#)\d+"
)
NUMBER = re.compile(r"(?<![\w.-])-?\d[\d_]*(?:,\d{3})*(?:\.\d+)?(?![\w-]|\.\d)")
CODE = re.compile(
    r"\b[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+\b|\b[A-Za-z]\w*_\w+\b|\b_\w+\b"
    r"|\b[A-Z]?[a-z]+[A-Z]\w*\b|\b[A-Za-z_]\w*(?=\(\))"
)
QUOTED = re.compile(
    r"\"([^\"\n]{1,400})\"|“([^”\n]{1,400})”|`([^`\n]{1,400})`|(?<!\w)'([^'\n]{1,400})'(?!\w)"
)
SUM = re.compile(r"(?:[\d.)(]+\s*(?:\*\*|[-+*/^%])\s*)+[\d.()]*[\d)]")
_CAPITAL = r"[A-Z](?:[\w'’-]*\w)?"  # noqa: RUF001
NAME = re.compile(rf"\b{_CAPITAL}(?:\s+(?:of\s+|de\s+|da\s+|von\s+|van\s+)?{_CAPITAL})*")
_LISTED = re.compile(r"(?:'s|’s)?\s+(?:and|or|vs\.?|versus|&)\s+[A-Z]")  # noqa: RUF001
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[\"'(\[A-Z\d])|\n+")
_SAID = re.compile(
    r"\b(?:saying|says|say|that reads|with the text|with the words)\b:?\s+(.+)|:\s+(.+)"
)
_AFTER = re.compile(
    r"\b(in|at|for|of|on|to|into|from|near|about|between|and|by|with|named|called|than|as|until|since)"
    r"\s+(?:the\s+|a\s+|an\s+)?((?:(?!\b(?:in|at|for|of|on|to|into|from|near|and|or|by|with|is|are|be"
    r"|please|today|tomorrow|now|right)\b)[\w'’.@+-]+\s*){1,4})"  # noqa: RUF001
)
_HOW = re.compile(r"\bhow (?:many|much|long|often|big|large|far)\b", re.I)
_MEASURE = re.compile(r"(?<![\w.])\d[\d.,]*\s*([^\W\d_]{1,20})\b")
_SIGNS = {
    "times": "*",
    "multiplied by": "*",
    "x": "*",
    "plus": "+",
    "minus": "-",
    "divided by": "/",
}
_SIGN = re.compile(rf"(?<=\d)\s+({'|'.join(_SIGNS)})\s+(?=\d)", re.I)
_COUNTED = "zero one two three four five six seven eight nine ten eleven twelve"
_NUMBERS = {word: number for number, word in enumerate(_COUNTED.split())}

_GREETING = re.compile(
    r"\W*(?:hi|hello|hey|greetings|good (?:morning|afternoon|evening|day|night)|thanks|thank you"
    r"|bye|goodbye|(?:nice|pleased) to meet you)\b(?:[\s,]+(?:there|all|everyone|again|so much"
    r"|very much|a lot))*[\s,.!-]*",
    re.I,
)
_TELLING = re.compile(r"(?:i|i'm|i've|we|we're|we've|my|our|this is)\b", re.I)
_ASKING = re.compile(
    r"\?|\b(?:want|wants|need|needs|wish|wonder|curious|interested|must|should|have to|would|i'd"
    r"|we'd|looking|trying|going to|mean|meant|please|can|could|help|know|ask|tell|show|find|get"
    r"|give|let)\b",
    re.I,
)

_KINDS = {
    "number": r"\bhow (?:many|much|long|often|big|large|deep|far|old|high|heavy|fast|wide|tall)\b"
    r"|\b(?:what|which)\b[^?.]*\b(?:number|count|amount|size|limit|maximum|minimum|max|min|port"
    r"|percentage|total|price|cost|timeout|capacity|temperature|cap)\b",
    "default": r"\bdefaults?\b",
    "where": r"\bwhere\b|\b(?:which|what|in which|in what) (?:file|module|function|class|line)s?\b",
    "what": r"\bwhat (?:is|are|does|do)\b|\bdefine\b|\bmeaning of\b|\bdescribe\b|\bexplain\b",
    "how": r"\bhow (?:do|does|did|is|are|was|were|can|could|should|would|will|to)\b",
    "why": r"\bwhy\b|\breason\b",
    "who": r"\bwho(?:se|m)?\b",
    "when": r"^\W*when\b|\bwhen (?:was|were|did|is|are|will|does)\b|\bwhat (?:date|day|year)\b",
    "list": r"\b(?:list|which|name (?:all|the)|what are|enumerate|what kinds?)\b"
    r"|\bwhat (?:\w+ ){0,2}\w+s (?:are|can|do|does|may|will|has|have)\b",
}
_KIND_PATTERNS = {kind: re.compile(pattern, re.I) for kind, pattern in _KINDS.items()}


def sentences(text: str) -> list[str]:
    """The sentences and lines of ``text`` that are not empty."""
    return [part.strip() for part in _SENTENCE.split(text) if part and part.strip()]


def quoted(text: str) -> list[str]:
    """What stands between quotation marks or backticks."""
    return [next(group for group in found if group) for found in QUOTED.findall(text)]


@dataclass(frozen=True)
class Question:
    """A prompt, and what can be told about it without understanding it."""

    text: str

    MAX = 600
    """Characters of the part that is taken for the question itself."""

    @cached_property
    def focus(self) -> str:
        """The part that asks: the sentences with a question mark, else the first one."""
        if len(self.text) <= 200 and "\n" not in self.text.strip():
            return self.text.strip()
        parts = self._parts
        asking = [part for part in parts if part.endswith("?")] or parts[:1]
        return " ".join(asking)[: self.MAX]

    @cached_property
    def context(self) -> list[str]:
        """The sentences that do not ask or, at the beginning, order; where there are none, all."""
        asks = "?" in self.focus or len(self.focus) <= 120
        return [part for part in self._parts if not (asks and part in self.focus)] or self._parts

    @cached_property
    def _parts(self) -> list[str]:
        return sentences(self.text[:100_000])[:500]

    @cached_property
    def words(self) -> list[str]:
        """The words that say something, in order."""
        asked = _HOW.sub(" ", self.focus)
        bare = content(_without(asked, URL, EMAIL, PATH))
        return (bare or content(asked) or [w for w in split(asked) if w not in STOP])[:24]

    @cached_property
    def terms(self) -> dict[str, float]:
        """Stems to look for in results, with how much each counts."""
        terms = {stem(word): 1.0 for word in self.words}
        for word in split(self.focus):
            if is_weak(word):
                terms.setdefault(stem(word), 0.25)
        return terms

    @cached_property
    def verbs(self) -> frozenset[str]:
        """All stems but those of stop words, and the stems of what phrases say in one word."""
        said = " ".join(split(self.focus))
        meant = [w for phrase, words in PHRASES.items() if phrase in said for w in stems(words)]
        signs = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide"}
        if self.sums:
            meant += [stem(word) for sign, word in signs.items() if sign in self.sums[0]]
            meant.append(stem("calculate"))
        words = [word for word in split(self.focus) if word not in STOP]
        return frozenset([*(stem(word) for word in words), *meant])

    @cached_property
    def concepts(self) -> dict[str, tuple[str, float]]:
        """For each stem to look for, what it stands for and how well: itself, or another word."""
        said = " ".join(split(self.focus))
        concepts = {term: (term, weight) for term, weight in self.terms.items()}
        for phrase, words in PHRASES.items():
            if phrase in said:
                for word in stems(words):
                    concepts.setdefault(word, (phrase, 0.7))
        words = split(self.focus)
        for one, other in pairwise(words):  # "time out" is also "timeout"
            if one in self.words and other not in self.words:
                concepts.setdefault(stem(one + other), (stem(one), 0.7))
        for term, weight in self.terms.items():
            for other in sorted(KIN.get(term, ())) if weight == 1.0 else ():
                concepts.setdefault(other, (term, 0.5))
        return concepts

    @cached_property
    def phrases(self) -> list[str]:
        """Words that stand next to each other in the question and all say something."""
        runs: list[list[str]] = [[]]
        for token in re.findall(r"[^\W_]+|[^\w\s'’_-]", _HOW.sub("?", self.focus)):  # noqa: RUF001
            word = token.lower()
            if word.isalnum() and word not in STOP and not is_weak(word):
                runs[-1].append(word)
            elif runs[-1]:
                runs.append([])
        return list(dict.fromkeys(" ".join(run[:4]) for run in runs if len(run) > 1))

    @cached_property
    def kinds(self) -> frozenset[str]:
        """What sort of question it is: number, default, where, what, how, why, who, when, list."""
        return frozenset(k for k, pattern in _KIND_PATTERNS.items() if pattern.search(self.focus))

    @cached_property
    def only_tells(self) -> bool:
        """Whether it greets or says something of its author, and asks and orders nothing."""
        if self.focus != self.text.strip() or _ASKING.search(self.focus) or self.kinds:
            return False
        return bool(self._parts) and all(map(_tells, self._parts))

    @property
    def asks_value(self) -> bool:
        """Whether the answer is a number, a setting or a date rather than words."""
        return bool(self.kinds & {"number", "default", "when"})

    @property
    def asks_words(self) -> bool:
        """Whether the answer is an explanation."""
        return bool(self.kinds & {"what", "how", "why"}) and not self.asks_value

    @cached_property
    def quoted(self) -> list[str]:
        return quoted(self.focus)

    @cached_property
    def urls(self) -> list[str]:
        return _each(URL, self.text)

    @cached_property
    def emails(self) -> list[str]:
        return _each(EMAIL, self.text)

    @cached_property
    def paths(self) -> list[str]:
        return _each(PATH, _without(self.text, URL, EMAIL))

    def names_source(self, source: str) -> bool:
        """Whether ``source`` is one of the files or addresses that the question names."""
        return any(source.endswith(name) for name in (*self.paths, *self.urls))

    @cached_property
    def dates(self) -> list[str]:
        return _each(DATE, self.text)

    @cached_property
    def ids(self) -> list[str]:
        plain = _without(self.text, URL, EMAIL, PATH, DATE)
        return [*_each(UUID, plain), *_each(ID, _without(plain, UUID))]

    @cached_property
    def sums(self) -> list[str]:
        plain = _SIGN.sub(
            lambda m: f" {_SIGNS[m[1].lower()]} ", _without(self.focus, DATE, PATH, URL)
        )
        return [found.strip() for found in _each(SUM, plain)]

    @cached_property
    def measures(self) -> list[str]:
        """The words that follow numbers: ``miles`` of *10 miles*."""
        return [word for word in _MEASURE.findall(self.focus) if word.lower() not in STOP]

    @cached_property
    def numbers(self) -> list[float]:
        """The numbers, in order, in digits or in words."""
        plain = _without(self.focus, URL, EMAIL, PATH, DATE, TIME, UUID)
        plain = re.sub(r"(?<=\d)\s*[-–+*/^×÷]\s*(?=\d)", " ", plain)  # noqa: RUF001
        found = [
            (m.start(), m[0].replace("_", "").replace(",", "")) for m in NUMBER.finditer(plain)
        ]
        values = [(place, float(text)) for place, text in found if len(text) < 25]
        words = re.finditer(r"[a-z]+", plain.lower())
        values += [(m.start(), float(_NUMBERS[m[0]])) for m in words if _NUMBERS.get(m[0], 1) > 1]
        return [value for _, value in sorted(values)]

    @cached_property
    def codes(self) -> list[str]:
        """Identifiers of programs: dotted, with underscores or inner capitals, or called."""
        return _each(CODE, _without(self.focus, URL, EMAIL, PATH))

    @cached_property
    def names(self) -> list[str]:
        """Proper names outside of quotation marks, as far as capital letters tell."""
        found: list[str] = []
        for part in sentences(_without(self.focus, QUOTED, URL, EMAIL, PATH)):
            for match in NAME.finditer(part):
                name = match[0] if match.start() else _after_first(match)
                if name and name not in self.codes and name != "I":
                    found.append(name.removesuffix("'s").removesuffix("’s"))  # noqa: RUF001
        return list(dict.fromkeys(found))

    @cached_property
    def after(self) -> dict[str, list[str]]:
        """The words that follow a preposition, by preposition: ``{"in": ["paris"]}``."""
        found: dict[str, list[str]] = {}
        for before, words in _AFTER.findall(self.focus):
            for value in re.split(r",\s*", words.strip(" .?!,'")):
                if value and value.lower() not in STOP | WEAK:
                    found.setdefault(before.lower(), []).append(value)
        return found

    @cached_property
    def said(self) -> str | None:
        """What the question quotes, or what follows *saying* or a colon."""
        if self.quoted:
            return self.quoted[0]
        found = _SAID.search(self.text)
        return (found[1] or found[2]).strip().removeprefix("that ") if found else None


def _after_first(match: re.Match[str]) -> str:
    """A name at the beginning of a sentence, without the word that is only there a capital one."""
    first, _, rest = match[0].partition(" ")
    if first.lower() in STOP | WEAK:
        return rest
    return match[0] if rest or _LISTED.match(match.string, match.end()) else ""


def _tells(sentence: str) -> bool:
    greeting = _GREETING.match(sentence)
    rest = sentence[greeting.end() :] if greeting else sentence
    called = greeting and all(word[0].isupper() for word in rest.split())  # by name, or not at all
    return bool(called or _TELLING.match(rest))


def _each(pattern: re.Pattern[str], text: str) -> list[str]:
    return list(dict.fromkeys(found[0] for found in pattern.finditer(text[:20_000])))


def _without(text: str, *patterns: re.Pattern[str]) -> str:
    for pattern in patterns:
        text = pattern.sub(" ", text[:20_000])
    return text
