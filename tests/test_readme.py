"""What README.md shows is what happens."""

from __future__ import annotations

import inspect
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def shown() -> dict[str, Any]:
    """Everything that README's Python blocks define, run one after the other."""
    names: dict[str, Any] = {"__name__": "readme"}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    return names


async def test_the_tests_that_it_shows_pass(shown: dict[str, Any]) -> None:
    tests = [value for name, value in shown.items() if name.startswith("test_")]
    assert tests
    for test in tests:
        assert inspect.iscoroutinefunction(test)
        await test()


async def test_the_function_with_several_agents_works_on_both_carriers(
    shown: dict[str, Any],
) -> None:
    from agentloop.testing import MockClient
    from agentloop_providers import OfflineProvider

    for carrier in ("push", "rounds", "task"):
        async with MockClient(shown["server"], OfflineProvider(), carrier=carrier) as client:  # type: ignore[arg-type]
            result = await client.call_tool("compare", {"one": "Oslo", "other": "Rome"})
            assert not result.is_error
            assert set(result.structured_content) == {"winner", "reason"}


def test_embedding_takes_fewer_than_fifteen_lines() -> None:
    (server,) = [block for block in blocks("python") if "MCPServer(" in block]
    code = server[server.index("server = MCPServer") :]
    assert len([line for line in code.splitlines() if line.strip()]) < 15


def test_the_first_command_prints_what_it_says() -> None:
    (printed,) = blocks("text")
    command, _ = commands()
    assert _answer(printed) == _answer(_run(command, ROOT))


def test_the_agent_that_it_shows_answers_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "cities.py").write_text(blocks("python")[0])
    _, command = commands()
    (line,) = [line for line in blocks("console")[1].splitlines() if line.startswith("Rome")]
    assert line in _run(command, tmp_path).splitlines()


def commands() -> list[str]:
    """The ``agentloop`` commands that it shows."""
    lines = "".join(blocks("console")).splitlines()
    return [line for line in lines if line.startswith("$ uv run agentloop ")]


def _run(command: str, folder: Path) -> str:
    arguments = shlex.split(command.removeprefix("$ uv run agentloop "))
    return subprocess.run(
        [sys.executable, "-m", "agentloop", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout


def _answer(text: str) -> tuple[str, str]:
    """The first line of an answer and its last; line numbers move with the code."""
    lines = [re.sub(r":\d+(-\d+)?", "", line) for line in text.splitlines() if line.strip()]
    answers = [line for line in lines if line.startswith("16")]
    return answers[0], lines[-1]
