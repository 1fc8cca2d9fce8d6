"""Sets of cases, from files and from Python."""

from __future__ import annotations

from pathlib import Path

import pytest
from mcp_types import ImageContent, TextContent

from agentloop.errors import DefinitionError
from agentloop.evals import Case, read_cases
from agentloop.evals.case import file_name, numbered


def write(folder: Path, text: str) -> Path:
    file = folder / "cases.jsonl"
    file.write_text(text, encoding="utf-8")
    return file


def test_each_line_of_a_file_is_a_case_and_other_fields_are_metadata(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        '{"id": "sum", "prompt": "1+1?", "expected": 2, "level": "easy"}\n\n{"prompt": "Grüße"}\n',
    )
    assert read_cases(file) == [
        Case("1+1?", 2, id="sum", metadata={"level": "easy"}),
        Case("Grüße"),
    ]


def test_a_file_may_call_its_fields_anything(tmp_path: Path) -> None:
    file = write(tmp_path, '{"q": "Why?", "a": "because", "n": 7}')
    assert read_cases(file, prompt="q", expected="a", id="n") == [Case("Why?", "because", id="7")]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "line 2: no JSON"),
        ("[1]", "line 2: a case is a JSON object"),
        ('{"question": "?"}', "line 2: 'prompt' is not a text"),
        ('{"prompt": " "}', "line 2: 'prompt' is not a text"),
    ],
)
def test_what_is_no_case_is_named_with_its_line(tmp_path: Path, line: str, problem: str) -> None:
    file = write(tmp_path, '{"prompt": "fine"}\n' + line)
    with pytest.raises(DefinitionError, match=problem):
        read_cases(file)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="cannot be read"):
        read_cases(tmp_path / "none.jsonl")


def test_cases_without_an_id_are_numbered() -> None:
    assert [case.id for case in numbered([Case("a"), Case("b", id="x"), Case("c")])] == [
        "1",
        "x",
        "3",
    ]


@pytest.mark.parametrize(
    ("cases", "problem"),
    [([], "no cases"), ([Case("a", id="x"), Case("b", id="x")], "two cases have the id 'x'")],
)
def test_a_set_has_cases_and_each_its_own_id(cases: list[Case], problem: str) -> None:
    with pytest.raises(DefinitionError, match=problem):
        numbered(cases)


def test_a_question_is_the_words_of_the_prompt() -> None:
    image = ImageContent(data="AA==", mime_type="image/png")
    assert Case([TextContent(text="What is this?"), image]).question == "What is this?\n[image]"


def test_names_of_files_are_safe_and_each_its_own() -> None:
    names = ["a", "A", "a/b", "a b", "../../etc/passwd", "", "ä", "x" * 300, "x" * 301, "a.b-c_1"]
    files = [file_name(name) for name in names]
    assert len({file.lower() for file in files}) == len(names)
    assert all("/" not in file and not file.startswith(".") and len(file) < 80 for file in files)
    assert file_name("a.b-c_1") == "a.b-c_1"
