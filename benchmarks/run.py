"""Run benchmarks: all of them, or those that are named; print one report, or write it to a file.

uv run python benchmarks/run.py [NAME ...] [--write FILE]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from measuring import machine

HERE = Path(__file__).parent
NAMES = (
    "steps",
    "fanout",
    "runs",
    "wire",
    "durable",
    "mcp_memory",
    "imports",
    "soak",
    "replicas",
)


def report(names: list[str]) -> str:
    """The reports of ``names``, each from a process of its own, so that none warms up another."""
    sections: list[str] = []
    for name in names:
        sys.stderr.write(f"{name} ...\n")
        ended = subprocess.run(
            [sys.executable, HERE / f"{name}.py"], check=True, stdout=subprocess.PIPE, text=True
        )
        section, _, _ = ended.stdout.rpartition("\n\n")
        sections.append(section.strip())
    return "\n\n".join(
        [
            "# Benchmarks",
            f"Measured on {machine()}. CPU is process time. Figures that are compared were taken in "  # noqa: E501
            "turns, in one run; they are medians. `benchmarks/*.py` say what each one is.",
            *sections,
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--write", type=Path, metavar="FILE")
    chosen = parser.parse_args()
    if unknown := set(chosen.names) - set(NAMES):
        parser.error(f"there are no benchmarks {sorted(unknown)}; there are {', '.join(NAMES)}")
    text = report(chosen.names or list(NAMES))
    sys.stdout.write(text)
    if chosen.write:
        chosen.write.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
