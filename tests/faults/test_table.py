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
def functions_of(file: str) -> dict[str, ast.AST]:
    """All functions and methods of a file, by name; none where there is no such file."""
    path = TESTS / file
    tree = ast.parse(path.read_text()) if path.is_file() else ast.Module([], [])
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return {node.name: node for node in ast.walk(tree) if isinstance(node, kinds)}


def can_fail(named: str) -> bool:
    """Whether ``file::test`` is there, asserts something by itself or by a helper, and is run."""
    file, _, name = named.partition("::")
    found = functions_of(file)
    if not name.startswith("test_") or name not in found:
        return False
    called = {
        ast.unparse(node.func) for node in ast.walk(found[name]) if isinstance(node, ast.Call)
    }
    known = {**functions_of("histories.py"), **found}
    helpers = [known[call] for path in called if (call := path.rpartition(".")[2]) in known]
    left_out = re.search(r"mark\.(skip|xfail)\b", ast.unparse(found[name]))
    return left_out is None and any(asserts(node) for node in (found[name], *helpers))


def asserts(function: ast.AST) -> bool:
    asserted = any(isinstance(node, ast.Assert) for node in ast.walk(function))
    return asserted or "pytest.raises(" in ast.unparse(function)


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


def test_every_promise_of_the_docs_names_its_tests() -> None:
    """Each point of the page, and each row of what a client may do, is held by tests."""
    page = PROMISES.read_text()
    promises = re.findall(r"^- .*(?:\n  .*)*", page, re.M)
    assert len(promises) > 30
    named = {promise: re.findall(r"`([^`]+::[^`]+)`", promise) for promise in promises}
    assert [promise for promise, tests in named.items() if not tests] == []
    everywhere = set(re.findall(r"`([^`]+::[^`]+)`", page))
    assert [test for test in everywhere if not can_fail(test)] == []


def test_ids_in_names_of_tests_are_in_the_table() -> None:
    """A test that has an id in its name is one that the table names for it."""
    for name in functions_of("faults/test_protocol.py"):
        for id in re.findall(r"(?<=_)[STMPNEH]\d+(?=_)", name):
            assert f"faults/test_protocol.py::{name}" in REQUIREMENTS[id].tests, id
