"""An agent that answers questions about a folder of text files.

    agentloop run examples/librarian.py:librarian "How are tool calls run?"
    agentloop run examples/librarian.py:librarian --arg folder=PATH "..."

Without a folder it reads agentloop's own sources. Its tools see the text files that a walk through
the folder finds, and nothing else: no path that a model makes up is ever opened.
"""

from __future__ import annotations

import heapq
import math
import os
import re
from collections import Counter
from collections.abc import Iterator
from difflib import get_close_matches
from fnmatch import fnmatch
from pathlib import Path
from threading import Lock

import agentloop
from agentloop import Agent, ToolError
from agentloop.errors import DefinitionError

INSTRUCTIONS = """\
Answer the question from the files of the library, and from nothing else. Search first, with
several searches at once; then read around the best lines. Quote what you rely on as path:line.
If the files do not say it, say so."""

MAX_FILES = 4000
MAX_FILE_BYTES = 1024 * 1024
MAX_LINE = 240

SKIPPED_FOLDERS = {"node_modules", "__pycache__", "site-packages", "venv", "dist", "build"}
SKIPPED_FILES = ("*.lock", "*-lock.json", "*.min.js", "*.svg", "*.map", "*.csv")

OPENING = re.compile(r"\s*(?:async def|def|class|func|function|fn|struct|interface)\s|#+\s")
"""A line that begins something: a definition, or a heading."""


def librarian(folder: str = "") -> Agent[str]:
    """An agent that knows the text files in ``folder``, by default agentloop's own sources."""
    library = Library(Path(folder) if folder else Path(agentloop.__file__).parent)
    return Agent(
        "librarian",
        INSTRUCTIONS,
        tools=[library.search, library.read, library.list_files],
        description=f"Answers questions about the files in {library.root.name}.",
    )


class Library:
    """The text files of a folder, under names that begin with the folder's own name."""

    def __init__(self, root: Path) -> None:
        """Raises :class:`DefinitionError` where ``root`` is no folder."""
        if not root.is_dir():
            raise DefinitionError(f"folder={str(root)!r}: there is no such folder")
        self.root = root.resolve()
        self._files: dict[str, tuple[int, list[str]]] = {}
        self._lock = Lock()

    # --- the tools -----------------------------------------------------------------------------

    def search(self, text: str, limit: int = 20) -> str:
        """Search all files for the lines that fit some words best, the best line first.

        Rare words count for more than common ones, and `call` also finds `calls` and `tool_call`.

        Args:
            text: The words to look for, in any order.
            limit: How many lines to give, at most 50.
        """
        words = {_trunk(word) for word in re.findall(r"[^\W_]+", text.lower())}
        if not words:
            raise ToolError("There is no word to look for in the text.")
        files = self._load()
        hits = _find(words, files)
        weights = _rarity(hits, total=sum(map(len, files.values())))

        def score(name: str, number: int) -> float:
            line = files[name][number - 1]
            here = hits[name, number]
            near = hits.get((name, number - 1), here) | hits.get((name, number + 1), here)
            value = sum(weights[w] for w in sorted(here))
            value += 0.4 * sum(weights[w] for w in sorted(near - here))
            value *= 1.3 if OPENING.match(line) else 1.0
            value *= 1.5 if text.lower() in line.lower() else 1.0
            return value / (1 + len(line) / 400)

        best = heapq.nsmallest(
            max(1, min(limit, 50)),
            ((-score(*place), order, place) for order, place in enumerate(hits)),
        )
        found = [f"{name}:{i}: {_short(files[name][i - 1])}" for _, _, (name, i) in best]
        return "\n".join(found) or f"No line in {len(files)} files holds any of these words."

    def read(self, path: str, start: int = 1, lines: int = 60) -> str:
        """Read lines of one file, each with its number.

        Args:
            path: A file, as `search` and `list_files` name it.
            start: The first line to read, counted from 1.
            lines: How many lines to read, at most 200.
        """
        files = self._load()
        name = path if path in files else f"{self.root.name}/{path}"
        if name not in files:
            near = [other for other in files if other.endswith("/" + path.rpartition("/")[2])]
            near = near or get_close_matches(path, files, n=3, cutoff=0.5)
            hint = f" Files with near names: {', '.join(near[:3])}." if near else ""
            raise ToolError(f"There is no file {path!r}.{hint}")
        first = max(start, 1)
        part = files[name][first - 1 : first - 1 + max(1, min(lines, 200))]
        if not part:
            raise ToolError(f"{name} ends at line {len(files[name])}.")
        return "\n".join(f"{name}:{i}: {_short(line)}" for i, line in enumerate(part, first))

    def list_files(self, pattern: str = "*") -> str:
        """List the names of the files, each with its number of lines.

        Args:
            pattern: A glob that the whole name or its last part fits, such as `*.md`.
        """
        names = [
            f"{name} ({len(lines)} lines)"
            for name, lines in self._load().items()
            if fnmatch(name, pattern) or fnmatch(name.rpartition("/")[2], pattern)
        ]
        more = [f"... and {len(names) - 300} more"] if len(names) > 300 else []
        return "\n".join(names[:300] + more) or f"No file fits {pattern!r}."

    # --- the files -----------------------------------------------------------------------------

    def _load(self) -> dict[str, list[str]]:
        """The lines of each file by its name; only files that changed are read again."""
        with self._lock:
            seen: dict[str, tuple[int, list[str]]] = {}
            for name, path, changed in self._walk():
                known = self._files.get(name)
                seen[name] = known if known and known[0] == changed else (changed, _lines(path))
            self._files = seen
            return {name: lines for name, (_, lines) in seen.items() if lines}

    def _walk(self) -> Iterator[tuple[str, str, int]]:
        """The files to show, in order: name, path and time of change. Follows no symbolic link."""
        folders = [(self.root.name, str(self.root))]
        left = MAX_FILES
        while folders:
            prefix, folder = folders.pop()
            below: list[tuple[str, str]] = []
            for entry in _entries(folder):
                name = f"{prefix}/{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    if entry.name not in SKIPPED_FOLDERS:
                        below.append((name, entry.path))
                elif entry.is_file(follow_symlinks=False) and left > 0:
                    status = entry.stat(follow_symlinks=False)
                    if status.st_size <= MAX_FILE_BYTES:
                        left -= 1
                        yield name, entry.path, status.st_mtime_ns
            folders += reversed(below)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """What is in a folder, by name, without what is hidden or no reading matter."""
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError:
        return []
    return [
        entry
        for entry in entries
        if not any(fnmatch(entry.name, pattern) for pattern in (".*", *SKIPPED_FILES))
    ]


def _lines(path: str) -> list[str]:
    """The lines of a text file; none where it cannot be read or is no text."""
    try:
        # The last step may have become a link since the walk; where the system can, it is refused.
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)), "rb") as file:
            data = file.read(MAX_FILE_BYTES)
    except OSError:
        return []
    return [] if b"\0" in data[:8192] else data.decode("utf-8", "replace").splitlines()


def _find(words: set[str], files: dict[str, list[str]]) -> dict[tuple[str, int], set[str]]:
    """Which of ``words`` stand where, by file and line number."""
    # A word begins after something that is no letter, or with a capital letter, as in toolCall.
    either = "|".join(sorted(words, key=lambda word: (-len(word), word)))
    pattern = re.compile(rf"(?:(?<![^\W\d_])|(?=[A-Z]))(?i:{either})")
    return {
        (name, number): {word.lower() for word in found}
        for name, lines in files.items()
        for number, line in enumerate(lines, 1)
        if (found := pattern.findall(line))
    }


def _rarity(hits: dict[tuple[str, int], set[str]], *, total: int) -> dict[str, float]:
    """How much each word counts: the fewer lines of all hold it, the more."""
    counts = Counter(word for here in hits.values() for word in here)
    return {word: math.log(1 + total / count) for word, count in counts.items()}


def _trunk(word: str) -> str:
    """The part of a word that its other forms share: `call` of `calls` and `calling`."""
    for ending in ("ing", "ed", "es", "s", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def _short(line: str) -> str:
    return line.rstrip() if len(line) <= MAX_LINE else line[:MAX_LINE] + " ..."
