"""How well a model finds its way around agentloop's own sources, measured.

    agentloop eval examples/eval_librarian.py
    agentloop eval examples/eval_librarian.py --provider anthropic:MODEL --repeat 3
    python examples/eval_librarian.py

Without a provider it compares two that need no key: the offline stand-in, and a baseline that
searches once and takes the first line for the answer.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import anyio
from librarian import Library, librarian
from mcp_types import CreateMessageRequestParams

import agentloop
from agentloop import RunResult, ToolError
from agentloop.evals import Case, Evaluation, Score, contains, evaluate
from agentloop.meta import Reply
from agentloop_providers.scripted import reply, use

CASES = Path(__file__).parent / "data" / "librarian.jsonl"
"""Questions, each with what a right answer says, and the file that says it."""

PLACE = re.compile(r"([\w./-]+\.\w+):(\d+)")


class FirstHit:
    """The baseline: one search for the question as it stands, and its best line."""

    name = "first-hit"

    async def sample(self, request: CreateMessageRequestParams) -> Reply:
        last = request.messages[-1].content_as_list[0]
        if last.type == "text":
            return reply(use("search", id="first", text=last.text, limit=1))
        assert last.type == "tool_result"
        return reply(*(block for block in last.content if block.type == "text"))


def cites(result: RunResult[Any], case: Case) -> Score:
    """A scorer of our own: the answer names a line of the right file, and no line that is none."""
    places = PLACE.findall(result.text)
    try:
        for path, line in places:
            _library().read(path, int(line), 1)
    except ToolError as error:
        return Score(0, str(error))
    right = any(path.endswith(f"/{case.metadata['file']}") for path, _ in places)
    return Score(right, "" if right else f"no line of {case.metadata['file']} is named")


@cache
def _library() -> Library:
    return Library(Path(agentloop.__file__).parent)


def evaluation(cases: Path = CASES) -> Evaluation:
    """What ``agentloop eval`` runs; ``--arg cases=FILE`` takes other questions."""
    return Evaluation(
        librarian(),
        cases,
        scorers=[contains(), cites],
        providers=["offline", FirstHit()],
    )


async def main() -> None:
    wanted = evaluation()
    report = await evaluate(
        wanted.agent, wanted.cases, scorers=wanted.scorers, providers=wanted.providers
    )
    print(report.table())


if __name__ == "__main__":
    anyio.run(main)
