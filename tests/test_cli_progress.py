"""What progress says of a run, of runs inside it, and of text that nobody vouches for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from mcp_types import CreateMessageRequestParams

from agentloop import Agent
from agentloop.cli._progress import Line, Progress, plain
from agentloop.cli._terminal import one_line, safe
from agentloop.testing.carry import Carrier, carry
from agentloop_providers import ScriptedProvider
from agentloop_providers.scripted import use

CARRIERS = pytest.mark.parametrize("carrier", ["direct", "push", "rounds", "task"])


class Editors:
    """Answers for an editor, which asks two writers at once, and for the writers."""

    name = "editors"

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds

    async def sample(self, request: CreateMessageRequestParams) -> Any:
        await anyio.sleep(self._seconds)
        answer = "A part." if request.system_prompt == "Write." else self._edit(request)
        return await ScriptedProvider(answer).sample(request)

    def _edit(self, request: CreateMessageRequestParams) -> Any:
        if len(request.messages) > 1:
            return "All of it."
        return [use("writer", id="a", prompt="one"), use("writer", id="b", prompt="two")]


def editor() -> Agent[str]:
    return Agent("editor", "Edit.", tools=[Agent("writer", "Write.").as_tool()])


async def told(provider: Any, carrier: Carrier) -> tuple[list[str], Progress]:
    lines: list[str] = []
    write: Callable[[Line], None] = lambda line: lines.append(plain(line))  # noqa: E731
    progress = Progress(write)
    await carry(editor(), "Go.", provider=provider, carrier=carrier, on_event=progress)
    return lines, progress


@CARRIERS
async def test_runs_inside_a_run_are_indented_named_and_numbered(carrier: Carrier) -> None:
    lines, progress = await told(Editors(), carrier)
    words = [" ".join(line.split()) for line in lines]
    assert sum(line.startswith("    writer ") and " model " in line for line in lines) == 2
    assert sum(line.startswith("    writer 2 ") and " model " in line for line in lines) == 1
    assert sum(line.startswith("writer done after 1 step") for line in words) == 1
    assert sum(line.startswith("writer 2 done after 1 step") for line in words) == 1
    assert words[0].startswith("1. model ")
    assert words[0].endswith(" 2 tool calls")
    assert words[-2].startswith("2. model ")
    assert words[-1].startswith("done after 2 steps, 2 tool calls, ")
    assert (progress.asks, progress.tool_calls) == (4, 2)
    assert progress.running == {}


@CARRIERS
async def test_an_ask_takes_as_long_as_the_model_takes(carrier: Carrier) -> None:
    lines, _ = await told(Editors(seconds=0.1), carrier)
    asks = [line for line in lines if " model " in line]
    assert len(asks) == 4
    for line in asks:
        milliseconds = float(line.partition(" ms")[0].split()[-1])
        assert 100 <= milliseconds < 1000
    calls = [line for line in lines if 'prompt="' in line]
    assert all(float(line.partition(" ms")[0].split()[-1]) >= 100 for line in calls)


async def test_what_runs_is_listed_while_it_runs() -> None:
    seen: list[list[str]] = []
    progress = Progress(lambda line: None)

    class Watching(Editors):
        async def sample(self, request: CreateMessageRequestParams) -> Any:
            await anyio.lowlevel.checkpoint()
            seen.append([plain(running.line) for running in progress.running.values()])
            return await super().sample(request)

    await editor().run("Go.", provider=Watching(), on_event=progress)
    assert len(seen[0]) == 1
    assert seen[0][0].startswith(" 1. model ")
    whose = [line.split(" 1. model")[0].strip() for line in seen[1] if " 1. model" in line]
    assert whose == ["writer", "writer 2"]
    assert [line.split()[-1] for line in seen[1] if "prompt=" in line] == [
        'prompt="one"',
        'prompt="two"',
    ]
    assert len(seen[-1]) == 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, \u00fc, \u4f60\u597d, \U0001f468\u200d\U0001f469", None),
        ("two\nlines\tand a tab", None),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x9b31m", r"\x9b31m"),
        ("back\x08\rto the start\x00", r"back\x08\rto the start\x00"),
        ("\u202egnp.exe\u2066", r"\u202egnp.exe\u2066"),
        ("a\u2028b", r"a\u2028b"),
        ("\ud800", r"\ud800"),
    ],
)
def test_safe_text_steers_no_terminal(text: str, shown: str | None) -> None:
    assert safe(text) == (text if shown is None else shown)


def test_one_line_is_one_line_and_bounded() -> None:
    assert one_line("a\n b\tc\x85\x1bd") == r"a b c\x85\x1bd"
    assert one_line("x" * 1_000_000, 10) == "xxxxxxx..."
