"""Lines that stand together, and are quoted together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from agentloop_providers.offline.evidence import Line
from agentloop_providers.offline.shapes import extent


@dataclass(frozen=True, slots=True)
class Scored:
    """A line, and how much it says."""

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


def passages_of(
    scored: Sequence[Scored],
    pages: dict[str, list[Line]],
    *,
    at_most: int,
    least: float,
    members: bool,
) -> list[Passage]:
    """The best lines with what belongs to them, none twice and none far worse than the first.

    ``least`` is the share of the best score that is good enough; ``members`` is as in
    :func:`extent`.
    """
    chosen: list[Passage] = []
    taken: set[tuple[str, int]] = set()
    enough = least * max((item.score for item in scored[:2]), default=0.0)
    for item in scored:
        if len(chosen) >= at_most or (chosen and item.score < enough):
            break
        if (item.page, item.position) in taken:
            continue
        page = pages[item.page]
        first, last = extent(page, item.position, members=members)
        is_free = all((item.page, n) not in taken for n in range(first, last + 1))
        passage = Passage(page[first : last + 1] if is_free else [item.line], item.line, item.score)
        taken.update((item.page, n) for n in range(first - 1, last + 2))
        if not any(p.text == passage.text or p.best.text == item.line.text for p in chosen):
            chosen.append(passage)
    return chosen
