"""The tables of this folder are whole, and what they name is there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.faults.requirements import REQUIREMENTS
from tests.faults.table import CARRIERS, TABLE

TESTS = Path(__file__).parents[1]
REQUIRED = {"S": 22, "T": 14, "M": 11, "P": 2, "N": 5, "E": 8, "H": 9}
"""How many of each kind bind a server; those of tasks are held in a folder of their own."""
PROMISES = TESTS.parent / "docs" / "faults.md"


@cache
def tests_in(file: str) -> dict[str, ast.AST]:
    """The tests of a file, by name; none where there is no such file."""
    path = TESTS / file
    tree = ast.parse(path.read_text()) if path.is_file() else ast.Module([], [])
    functions = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {node.name: node for node in functions if node.name.startswith("test_")}


def can_fail(named: str) -> bool:
    """Whether ``file::test`` is there, asserts something, and is not left out."""
    file, _, name = named.partition("::")
    node = tests_in(file).get(name)
    if node is None:
        return False
    written = ast.unparse(node)
    left_out = re.search(r"mark\.(skip|skipif|xfail)\b|pytest\.(skip|xfail)\(", written)
    asserts = any(isinstance(inner, ast.Assert) for inner in ast.walk(node))
    return left_out is None and (asserts or "pytest.raises(" in written)


def test_every_fault_of_the_list_has_a_row() -> None:
    assert list(TABLE) == [f"B{number:02}" for number in range(1, 74)]
    for row in TABLE.values():
        assert row.outcome
        assert row.carriers
        assert set(row.carriers) <= set(CARRIERS)


def test_every_requirement_of_a_server_has_a_row() -> None:
    ids = [f"{kind}{n}" for kind, count in REQUIRED.items() for n in range(1, count + 1)]
    assert list(REQUIREMENTS) == ids


@pytest.mark.parametrize("id", REQUIREMENTS)
def test_a_requirement_has_tests_that_can_fail(id: str) -> None:
    assert REQUIREMENTS[id].tests
    assert [named for named in REQUIREMENTS[id].tests if not can_fail(named)] == []


def test_ids_in_names_of_tests_are_in_the_table() -> None:
    """A test that has an id in its name is one that the table names for it."""
    for name in tests_in("faults/test_protocol.py"):
        for id in re.findall(r"(?<=_)[STMPNEH]\d+(?=_)", name):
            assert f"faults/test_protocol.py::{name}" in REQUIREMENTS[id].tests, id
