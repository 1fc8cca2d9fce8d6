"""How the benchmarks measure: paired samples, medians, and tables that say what they are."""

from __future__ import annotations

import gc
import os
import platform
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

Work = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Samples:
    """CPU seconds of one piece of work, sample by sample."""

    seconds: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def ratio_to(self, other: Samples) -> float:
        """The median of the ratios of samples that were taken side by side."""
        return statistics.median(a / b for a, b in zip(self.seconds, other.seconds, strict=True))


async def side_by_side(
    works: Mapping[str, Work], *, samples: int = 15, at_least: float = 0.02
) -> dict[str, Samples]:
    """CPU time of each of ``works``, taken in turns (A B A B ...), after a warm-up.

    One sample repeats its work until it has used about ``at_least`` seconds of CPU. The garbage
    collector stays on, as in life, and starts each sample from the same state.
    """
    repeats = {name: await _repeats(work, at_least) for name, work in works.items()}
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(samples):
        for name, work in works.items():
            gc.collect()
            began = time.process_time()
            for _ in range(repeats[name]):
                await work()
            seconds[name].append((time.process_time() - began) / repeats[name])
    return {name: Samples(taken) for name, taken in seconds.items()}


async def _repeats(work: Work, at_least: float) -> int:
    for _ in range(2):
        began = time.process_time()
        await work()
        took = time.process_time() - began
    return max(1, round(at_least / max(took, 1e-6)))


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; the first column is left-aligned, figures are not."""
    lines = [
        "| " + " | ".join(header) + " |",
        "|---|" + "--:|" * (len(header) - 1),
        *("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows),
    ]
    return "\n".join(lines)


def machine() -> str:
    """What this was measured on."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        cores = os.cpu_count() or 1
    return (
        f"{platform.python_implementation()} {platform.python_version()}, "
        f"{platform.system()} {platform.machine()}, {cores} cores"
    )


def main(report: Callable[[], str]) -> None:
    """Print one benchmark's report by itself."""
    sys.stdout.write(f"{report()}\n\n{machine()}\n")
