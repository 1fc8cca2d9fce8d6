"""What it costs to begin: CPU time and modules of fresh processes, over a bare interpreter."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time

from measuring import main, table

SAMPLES = 9
BARE = "bare interpreter"
COMMANDS = {
    BARE: "pass",
    "`import mcp_types`": "import mcp_types",
    "`import agentloop`": "import agentloop",
    "`from agentloop import Agent`": "from agentloop import Agent",
    "`from agentloop.mcp import mount`": "from agentloop.mcp import mount",
    "`agentloop --version`": "import sys; from agentloop.cli import main; main(['--version'])",
    "`agentloop --help`": "import sys; from agentloop.cli import main; main(['--help'])",
}
HEAVY = ("anyio", "pydantic", "mcp_types", "mcp", "agentloop_providers", "anthropic", "openai")
LIST = (
    "import atexit, json, sys; "
    "atexit.register(lambda: print('\\n' + json.dumps(list(sys.modules)), file=sys.stderr))\n"
)


def cost(code: str) -> tuple[float, float]:
    """CPU and wall seconds of a process that runs ``code``."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, code
    return usage.ru_utime + usage.ru_stime, wall


def modules(code: str) -> list[str]:
    """The modules that are loaded when a process that runs ``code`` ends."""
    ended = subprocess.run([sys.executable, "-c", LIST + code], capture_output=True, check=True)
    return json.loads(ended.stderr.splitlines()[-1])


def report() -> str:
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    for sample in range(-1, SAMPLES):
        for name, code in COMMANDS.items():
            took = cost(code)
            if sample >= 0:  # the first one writes byte code and fills caches
                taken[name].append(took)
    rows: list[list[str]] = []
    plain = len(modules(COMMANDS[BARE]))
    for name, samples in taken.items():
        pairs = list(zip(samples, taken[BARE], strict=True))
        over = 0 if name == BARE else 1
        cpu, wall = (statistics.median(a[i] - over * b[i] for a, b in pairs) for i in (0, 1))
        loaded = modules(COMMANDS[name])
        heavy = ", ".join(package for package in HEAVY if package in loaded) or "none"
        rows.append(
            [name, f"{cpu * 1e3:.0f}", f"{wall * 1e3:.0f}", str(len(loaded) - over * plain), heavy]
        )
    return "\n\n".join(
        [
            "## Beginning: imports and the command",
            "Over the bare interpreter, whose own figures stand in the first line.",
            table(["what", "CPU ms", "wall ms", "modules", "big packages loaded"], rows),
        ]
    )


if __name__ == "__main__":
    main(report)
