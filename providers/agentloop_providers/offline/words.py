"""Words: how text is split, what counts as the same word, and which words say nothing."""

from __future__ import annotations

import re

_TOKEN = re.compile(r"[^\W\d_]+(?:'[a-z]+)?|\d+(?:[.,]\d+)*")
_HUMP = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")

_STOP = """
a an and are as at be been between but by can could d did do does doing done for from had has have
having he her here his how i if in into is it its just ll m may me might must my no not of off on
one or our out over own please re s shall she should so some such t than that the their them then
there these they this those to too upon us ve very was we were what when where which while who
whom whose why will with within without would you your
"""
STOP = frozenset(_STOP.split())
"""Words that hold a sentence together and say nothing of their own."""

_WEAK = """
about according actually all also always any answer briefly code compare decide decided define
defined describe difference each else ever every exist exists explain file files find first folder
get give given happen happens kind kinds know last let like list located look make many mean means
much name need only other place project provide provides question say says see sentence short show
take tell thing things use used uses want way ways work works
"""
WEAK = frozenset(_WEAK.split())
"""Words of many questions that say little about what an answer looks like."""

_GROUPS = """
parallel concurrent concurrency simultaneous simultaneously
limit maximum max cap most bound
minimum min least
count number total amount many
error exception fail failure
timeout deadline patience
second minute hour duration timeout deadline patience
delete remove drop erase
create make insert
search find lookup query retrieve grep
list enumerate every all
get fetch read load open show
file document page
folder directory
store save persist keep
retry again attempt
begin start launch
end stop finish quit
cancel abort interrupt
weather forecast temperature rain sunny
price cost fee
calculate compute evaluate math arithmetic calculator
add sum plus
subtract minus difference
multiply product
divide quotient
mail email message
customer client user account
person people employee staff
town city place location
country nation
translate translation translator
convert conversion converter
size length bytes large big long
check validate verify
choose pick select decide
configure setting option config
now today current currently
licence license
colour color
behaviour behavior
"""

_IRREGULAR = {
    "used": "use", "using": "use", "uses": "use", "ran": "run", "made": "make", "children": "child",
    "found": "find", "kept": "keep", "chosen": "choose", "chose": "choose", "sent": "send",
    "written": "write", "wrote": "write", "given": "give", "took": "take", "taken": "take",
    "people": "person", "data": "data", "series": "series", "indices": "index", "bytes": "byte",
}  # fmt: skip
_ENDINGS = ("ations", "ation", "ators", "ator", "itions", "ition", "ings", "ing", "ions", "ion",
            "ated", "ates", "ate", "ers", "ors", "ed", "es", "er", "or", "e", "s")  # fmt: skip


def stem(word: str) -> str:
    """What the forms of a lower-case word share: ``decid`` of *decide*, *decides*, *decided*."""
    word = _IRREGULAR.get(word, word).removesuffix("'s")
    if len(word) < 4 or not word.isalpha():
        return word
    if word.endswith(("ies", "ied")):
        return word[:-3] + "y"
    if word.endswith(("ss", "us", "is")):
        return word
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word.removesuffix(ending)
            break
    doubled = word[-1] == word[-2] and (len(word) > 5 or word[-1] not in "lsz") and len(word) > 3
    return word[:-1] if doubled else word


def split(text: str) -> list[str]:
    """The words of ``text`` in lower case, in order; ``toolCalls`` and ``tool_calls`` are two."""
    words: list[str] = []
    for token in _TOKEN.findall(text):
        if token.islower() or not token.isascii() or token[1:].islower() or token.isupper():
            words.append(token.lower())
        else:
            words += [hump.lower() for hump in _HUMP.findall(token)] or [token.lower()]
    return words


def stems(text: str) -> list[str]:
    """The stems of the words of ``text``, in order."""
    return [stem(word) for word in split(text)]


def is_weak(word: str) -> bool:
    """Whether a word of a question says little about its answer."""
    return word in WEAK or stem(word) in _WEAK_STEMS


def content(text: str) -> list[str]:
    """The words of ``text`` that say something, in order, each once."""
    return [w for w in dict.fromkeys(split(text)) if w not in STOP and not is_weak(w)]


def shared_run(asked: list[str], said: list[str]) -> int:
    """How many words in a row the two share, from three on."""
    places: dict[str, list[int]] = {}
    for place, word in enumerate(asked):
        places.setdefault(word, []).append(place)
    longest = 0
    runs: dict[int, int] = {}
    for word in said:
        runs = {place: runs.get(place - 1, 0) + 1 for place in places.get(word, ())}
        longest = max(longest, *runs.values(), 0)
    return longest if longest >= 3 else 0


def are_near(pair: tuple[str, str], said: list[str]) -> bool:
    """Whether two words stand near each other, in either order."""
    one, other = ([n for n, word in enumerate(said) if word == wanted] for wanted in pair)
    return any(abs(a - b) <= 3 for a in one for b in other)


_WEAK_STEMS = frozenset(stem(word) for word in WEAK)


def _read_groups() -> dict[str, frozenset[str]]:
    kin: dict[str, frozenset[str]] = {}
    for line in _GROUPS.split("\n"):
        group = frozenset(stem(word) for word in line.split())
        for word in group:
            kin[word] = kin.get(word, frozenset()) | group
    return kin


KIN = _read_groups()
"""For a stem, the stems that may stand for it."""

PHRASES = {
    "at the same time": "parallel concurrent simultaneous",
    "at once": "parallel concurrent simultaneous",
    "side by side": "parallel concurrent simultaneous",
    "how many": "number count",
    "how much": "cost amount",
    "how long": "seconds timeout duration",
    "how often": "times interval retries",
    "how large": "size bytes max",
    "how big": "size bytes max",
    "at most": "maximum limit",
    "at least": "minimum",
    "give up": "limit attempts",
}
"""Other words for what a few phrases mean."""

SEARCHED = frozenset(phrase for phrase in PHRASES if phrase not in ("how many", "how much"))
"""The phrases whose other words are worth a search of their own."""
