"""Regular expressions of schemas: matched where that is safe, and texts made of simple ones."""

from __future__ import annotations

import re

_RISKY = re.compile(r"[+*}]\)*[+*{]|\)[+*{]|\\[1-9]|\(\?[^:]")
"""Repetitions of repetitions and the like can take for ever to match."""

_CLASSES = {
    "d": "0",
    "w": "a",
    "s": " ",
    "D": "a",
    "W": "-",
    "S": "a",
    "b": "",
    "B": "",
    "A": "",
    "Z": "",
}
_MOST = 200


def fits(pattern: str, text: str) -> bool:
    """Whether ``text`` fits; a pattern that is no pattern, or a risky one, fits nothing."""
    if len(pattern) > 500 or len(text) > 4000 or _RISKY.search(pattern):
        return False
    try:
        return re.search(pattern, text) is not None
    except (re.error, OverflowError, RecursionError):
        return False


def made_from(pattern: str) -> str:
    """A text of the pattern, where it is made of plain parts; something like it otherwise."""
    try:
        return _Reader(pattern[:500]).alternatives()
    except (IndexError, ValueError, RecursionError):
        return ""


class _Reader:
    """Reads a pattern and writes the shortest text of it that is easily told."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0

    def alternatives(self) -> str:
        """The first alternative's text; the others are read over."""
        first = self._sequence()
        while self._peek() == "|":
            self._at += 1
            self._sequence()
        return first

    def _sequence(self) -> str:
        made = ""
        while self._peek() not in ("", "|", ")"):
            made += self._repeated(self._atom())
        return made

    def _atom(self) -> str:
        sign = self._take()
        if sign == "\\":
            escaped = self._take()
            return _CLASSES.get(escaped, {"n": "\n", "t": "\t"}.get(escaped, escaped))
        if sign == "[":
            return self._members()
        if sign == "(":
            if self._pattern.startswith("?:", self._at):
                self._at += 2
            made = self.alternatives()
            self._take()
            return made
        return {"^": "", "$": "", ".": "a"}.get(sign, sign)

    def _members(self) -> str:
        negated = self._peek() == "^"
        self._at += negated
        members: list[str] = []
        while self._peek() != "]" or not members:
            sign = self._take()
            members.append(_CLASSES.get(self._peek(), self._peek()) if sign == "\\" else sign)
            self._at += sign == "\\"
        self._at += 1
        if negated:
            return next(c for c in "a0 -_xyz" if c not in members)
        return members[0]

    def _repeated(self, atom: str) -> str:
        sign = self._peek()
        if sign in ("*", "?"):
            times = 0
        elif found := re.match(r"\{(\d{1,4})(?:,\d*)?\}", self._pattern[self._at :]):
            times = min(int(found[1]), _MOST)
            self._at += len(found[0]) - 1
        elif sign == "+":
            times = 1
        else:
            return atom
        self._at += 1
        if self._peek() in ("?", "+"):
            self._at += 1
        return atom * times

    def _peek(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def _take(self) -> str:
        sign = self._pattern[self._at]
        self._at += 1
        return sign
