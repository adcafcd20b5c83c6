"""The operator's table of failures: every row names a test that is there, every injection has a row, and every test is named."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "failure-behaviour.md"
INJECTIONS = range(1, 41)
HERE = ROOT / "tests" / "injections"


def rows() -> list[list[str]]:
    """The cells of every row of every table, without the heads."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and not line.startswith("| no.")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def named(row: list[str]) -> list[str]:
    """The tests that a row names, as FILE::TEST."""
    return re.findall(r"`([^`]+::[^`]+)`", row[-1])


def file_of(test: str) -> Path:
    """The file that a row means: an injection's, or the one of this name elsewhere below tests/."""
    name = test.partition("::")[0]
    if (HERE / name).is_file():
        return HERE / name
    (found,) = (ROOT / "tests").rglob(name)
    return found


def held_in(path: Path) -> dict[str, str]:
    """The tests of a file with their docstrings."""
    found = (node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef))
    return {node.name: ast.get_docstring(node) or "" for node in found if node.name.startswith("test_")}


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[1][:40])
def test_a_row_names_tests_that_are_there(row: list[str]) -> None:
    assert len(row) == 5
    assert all(row)
    assert named(row), "names no test"
    for test in named(row):
        assert test.partition("::")[2] in held_in(file_of(test)), test


def test_every_injection_has_its_row_and_its_test() -> None:
    numbers = {int(number) for row in rows() for number in re.findall(r"\d+", row[0])}
    assert numbers == set(INJECTIONS)
    said = " ".join(doc.partition(":")[0] for path in HERE.glob("test_*.py") for doc in held_in(path).values())
    assert set(map(int, re.findall(r"\d+", said))) == set(INJECTIONS)


def test_no_injection_goes_without_a_row() -> None:
    shown = {test for row in rows() for test in named(row) if file_of(test).parent == HERE}
    there = {f"{path.name}::{name}" for path in HERE.glob("test_*.py") for name in held_in(path)}
    assert shown == there
