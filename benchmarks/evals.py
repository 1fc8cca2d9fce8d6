"""What an evaluation costs: wall time of many cases at once, against the ideal.

Each case has five steps: a model that takes 50 ms, and a trivial tool. With 100 cases at a time
the ideal is what the model takes: cases x steps x 50 ms / 100. Results and transcripts are written
to a folder, as an evaluation does that can be gone on with. Each sample has a process of its own.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import anyio
import steps
from mcp_types import CreateMessageRequestParams, CreateMessageResultWithTools
from measuring import main, table

from agentloop.evals import Case, Report, contains, evaluate

CASES = 1000
STEPS = 5
MODEL_SECONDS = 0.05
CONCURRENCY = 100
SAMPLES = 5
IDEAL = CASES * STEPS * MODEL_SECONDS / CONCURRENCY


class Model(steps.Model):
    """Answers after a while."""

    async def sample(self, request: CreateMessageRequestParams) -> CreateMessageResultWithTools:
        await anyio.sleep(MODEL_SECONDS)
        return await super().sample(request)


def model(case: Case) -> Model:
    """A model for one trial, which takes as many asks as there are steps."""
    return Model(STEPS - 1)


async def run(folder: str | None, cases: int) -> Report:
    """Evaluate the agent of ``steps.py``."""
    return await evaluate(
        steps.AGENT,
        [Case(f"{steps.PROMPT} ({n})", "Done", id=str(n)) for n in range(cases)],
        providers={"fake": model},
        scorers=[contains()],
        concurrency=CONCURRENCY,
        folder=folder,
    )


async def measure(keep: bool) -> dict[str, float]:
    """Wall and CPU seconds of an evaluation."""
    with tempfile.TemporaryDirectory() as folder:
        await run(os.path.join(folder, "warm-up") if keep else None, 20)
        began, used = time.perf_counter(), time.process_time()
        report = await run(os.path.join(folder, "results") if keep else None, CASES)
        taken = {"wall": time.perf_counter() - began, "cpu": time.process_time() - used}
        assert len(report.trials) == CASES
        assert all(trial.value == 1 and trial.steps == STEPS for trial in report.trials)
        return taken


def in_own_process(keep: str) -> dict[str, float]:
    command = [sys.executable, __file__, keep]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def report() -> str:
    rows: list[list[str]] = []
    for keep, what in (("keep", "results and transcripts kept"), ("forget", "in memory")):
        samples = [in_own_process(keep) for _ in range(SAMPLES)]
        walls = [sample["wall"] for sample in samples]
        cpu = statistics.median(sample["cpu"] for sample in samples)
        rows.append(
            [
                what,
                f"{statistics.median(walls):.2f}",
                f"{max(walls):.2f}",
                f"{IDEAL:.2f}",
                f"{statistics.median(walls) / IDEAL:.2f}",
                f"{cpu / CASES * 1e6:,.0f}",
            ]
        )
    header = ["", "wall s", "worst", "ideal", "ratio", "CPU µs per case"]
    return "\n\n".join(
        [
            f"## Evaluation: {CASES:,} cases of {STEPS} steps, 50 ms model, "
            f"{CONCURRENCY} at a time",
            table(header, rows),
            f"Medians of {SAMPLES}.",
        ]
    )


if __name__ == "__main__":
    if sys.argv[1:]:
        print(json.dumps(anyio.run(measure, sys.argv[1] == "keep")))
    else:
        main(report)
