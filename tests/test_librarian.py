"""The librarian example: its answer, and what its tools may see."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import agentloop
from agentloop import RunResult, Stop, ToolError
from agentloop.errors import DefinitionError
from agentloop_providers import OfflineProvider

EXAMPLE = Path(__file__).parent.parent / "examples" / "librarian.py"
QUESTION = "How many tool calls may run at the same time by default, and where is that decided?"


@pytest.fixture(scope="module")
def example() -> Any:
    spec = importlib.util.spec_from_file_location("example_librarian", EXAMPLE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with things to read, and with things that nobody may see."""
    root = tmp_path / "notes"
    (root / "sea").mkdir(parents=True)
    (root / "sea" / "harbour.md").write_text(
        "# The harbour\n\nThe harbour was opened in 1931. Up to 40 boats\ncan moor there.\n"
    )
    (root / "boats.py").write_text('class Boat:\n    """Floats."""\n\n    masts: int = 2\n')
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_text("the secret harbour\n")
    (tmp_path / "notes-secret.txt").write_text("the secret harbour\n")
    (root / "linked.txt").symlink_to(outside / "secret.txt")
    (root / "linked").symlink_to(outside)
    for name in (".git", ".venv", "node_modules"):
        (root / name).mkdir()
        (root / name / "secret.txt").write_text("the secret harbour\n")
    (root / ".env").write_text("the secret harbour\n")
    (root / "uv.lock").write_text("the secret harbour\n")
    (root / "secret.bin").write_bytes(b"the secret harbour\0\n")
    (root / "large.txt").write_text("the secret harbour\n" * 100_000)
    os.mkfifo(root / "pipe.txt")
    return root


def ask(agent: Any, question: str) -> Any:
    return agent.run(question, provider=OfflineProvider())


def calls(result: RunResult[Any]) -> list[list[str]]:
    """The names of the tools called in each reply."""
    found = [
        [block.name for block in message.content_as_list if block.type == "tool_use"]
        for message in result.messages
        if message.role == "assistant"
    ]
    return [names for names in found if names]


# --- the answer --------------------------------------------------------------------------------


async def test_it_finds_out_how_many_tool_calls_run_at_the_same_time(example: Any) -> None:
    result = await ask(example.librarian(), QUESTION)
    first = result.text.splitlines()[0]
    assert result.stop is Stop.DONE
    assert first.startswith("16: `parallel: int = 16` (agentloop/usage.py:")
    assert "in class Limits" in first
    assert "agentloop/dispatch.py" in result.text
    assert len(calls(result)) >= 2
    assert max(map(len, calls(result))) >= 2


@pytest.mark.parametrize(
    ("question", "wanted"),
    [
        ("What does the class Transcript do?", "append"),
        ("What is the default timeout of a tool?", "60"),
        ("How many agents may be nested inside one another?", "MAX_NESTING"),
        ("What is in agentloop/meta.py?", "_meta"),
    ],
)
async def test_it_answers_other_questions_too(example: Any, question: str, wanted: str) -> None:
    assert wanted in (await ask(example.librarian(), question)).text.split("\n\n")[0]


def test_the_answer_is_the_same_in_every_process(tmp_path: Path) -> None:
    sources = tmp_path / "agentloop"
    shutil.copytree(Path(agentloop.__file__).parent, sources)
    program = (
        "import anyio, runpy, sys\n"
        "from agentloop_providers import OfflineProvider\n"
        "agent = runpy.run_path(sys.argv[1])['librarian'](sys.argv[3])\n"
        "async def main():\n"
        "    return await agent.run(sys.argv[2], provider=OfflineProvider())\n"
        "print(anyio.run(main).text)\n"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", program, str(EXAMPLE), QUESTION, str(sources)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1


async def test_it_reads_any_folder(example: Any, folder: Path) -> None:
    agent = example.librarian(str(folder))
    boats = await ask(agent, "How many boats can moor in the harbour?")
    assert boats.text.startswith("40")
    assert "notes/sea/harbour.md:3" in boats.text
    masts = await ask(agent, "How many masts does a boat have by default?")
    assert masts.text.startswith("2: `masts: int = 2` (notes/boats.py:4, in class Boat)")


async def test_it_explains_what_documents_explain(example: Any, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "locks.md").write_text(
        "# The canal\n\nBoats wait for locks, and locks wait for boats: they work in turn.\n\n"
        "## Locks\n\nA lock lifts a boat by letting water in.\n\n"
        "| lock | rise |\n| --- | --- |\n| Upper | 4 m |\n| Lower | 3 m |\n"
    )
    (tmp_path / "notes" / "gates.py").write_text(
        'gates = open("gates")\n\n\ndef gate(\n    side: str,\n) -> None:\n'
        '    """Gates are closed by hand."""\n'
    )
    agent = example.librarian(str(tmp_path / "notes"))
    works = await ask(agent, "How do locks work?")
    assert works.text.startswith(
        "Locks: A lock lifts a boat by letting water in. (notes/locks.md:5)"
    )
    there = await ask(agent, "Which locks are there?")
    assert "| Upper | 4 m |\n    | Lower | 3 m |" in there.text.split("\n\n")[1]
    closed = await ask(agent, "How does a gate work?")
    assert closed.text.startswith("`def gate`: Gates are closed by hand. (notes/gates.py:4)")


async def test_a_brief_question_finds_the_file_of_that_name(example: Any, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    for number in range(30):
        (tmp_path / "notes" / f"log{number:02}.txt").write_text("Another tide was seen.\n" * 9)
    (tmp_path / "notes" / "tides.md").write_text("# About\n\nThe moon pulls the water.\n")
    result = await ask(example.librarian(str(tmp_path / "notes")), "How do tides work?")
    assert "The moon pulls the water." in result.text


async def test_it_says_when_nothing_is_found(example: Any, folder: Path) -> None:
    result = await ask(example.librarian(str(folder)), "Who invented the zeppelin?")
    assert "Nothing that was found answers it" in result.text


# --- the tools ---------------------------------------------------------------------------------


@pytest.fixture
def library(example: Any, folder: Path) -> Any:
    return example.Library(folder)


def test_only_text_files_inside_the_folder_are_seen(library: Any) -> None:
    assert library.list_files().splitlines() == [
        "notes/boats.py (4 lines)",
        "notes/sea/harbour.md (4 lines)",
    ]
    assert "secret" not in library.search("secret harbour")


@pytest.mark.parametrize(
    "path",
    [
        "../outside/secret.txt",
        "notes/../../outside/secret.txt",
        "linked.txt",
        "notes/linked/secret.txt",
        ".env",
        "notes/.git/secret.txt",
        "uv.lock",
        "secret.bin",
        "large.txt",
        "pipe.txt",
        "sea",
        "",
        "../notes-secret.txt",
        "\0",
    ],
)
def test_no_other_path_can_be_read(library: Any, folder: Path, path: str) -> None:
    for name in (path, str(folder / path) if "\0" not in path else path):
        with pytest.raises(ToolError, match="There is no file"):
            library.read(name)


def test_search_gives_the_best_lines_first(library: Any) -> None:
    found = library.search("opened harbours").splitlines()
    assert found[0].startswith("notes/sea/harbour.md:3: The harbour was opened in 1931.")
    assert len(library.search("harbour", limit=1).splitlines()) == 1
    assert library.search("zeppelin") == "No line in 2 files holds any of these words."
    with pytest.raises(ToolError, match="no word"):
        library.search("?!")


def test_search_finds_words_inside_of_identifiers(example: Any, tmp_path: Path) -> None:
    (tmp_path / "a.ts").write_text("let maxToolCalls = 3\nrecalls nothing\nmax_tool_calls\n")
    found = example.Library(tmp_path).search("call").splitlines()
    assert [line.split(":")[1] for line in found] == ["3", "1"]


def test_read_gives_numbered_lines(library: Any) -> None:
    assert library.read("notes/boats.py", start=4) == "notes/boats.py:4:     masts: int = 2"
    assert library.read("boats.py", lines=1) == "notes/boats.py:1: class Boat:"
    with pytest.raises(ToolError, match=r"notes/boats.py ends at line 4\."):
        library.read("boats.py", start=99)
    with pytest.raises(ToolError, match=r"Files with near names: notes/sea/harbour.md\."):
        library.read("harbour.md")


def test_files_that_change_are_read_again(library: Any, folder: Path) -> None:
    library.search("boat")
    (folder / "new.txt").write_text("a lighthouse\n")
    (folder / "boats.py").unlink()
    assert library.search("lighthouse") == "notes/new.txt:1: a lighthouse"
    assert library.list_files("*.py") == "No file fits '*.py'."


def test_a_folder_that_is_not_there_is_a_clear_error(example: Any, tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="there is no such folder"):
        example.librarian(str(tmp_path / "nowhere"))
