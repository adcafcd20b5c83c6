"""Structs as tables of Markdown: each field's type, default and meaning, read from the source that declares it.

What a field means stands in the string below it, which Python throws away; so the source itself is read.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from reference_pages.meanings import MEANINGS

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Field:
    """One field as its class declares it; `default` is None where it must be given."""

    name: str
    type: str
    default: str | None
    meaning: str


def fields(kind: type) -> list[Field]:
    """The fields that a class declares itself, in its order."""
    (declared,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(declared, ast.ClassDef)
    return [
        Field(
            node.target.id,
            ast.unparse(node.annotation),
            _default(kind, node.value),
            _below(after) or MEANINGS.get(kind.__name__, {}).get(node.target.id, ""),
        )
        for node, after in zip(declared.body, [*declared.body[1:], None], strict=True)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    ]


def words(kind: type) -> str:
    """The words of an enumeration and what each means, as a heading and a table."""
    (declared,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(declared, ast.ClassDef)
    rows = [
        (f"`{(word := ast.literal_eval(node.value))}`", prose(_below(after) or MEANINGS[kind.__name__][word]))
        for node, after in zip(declared.body, [*declared.body[1:], None], strict=True)
        if isinstance(node, ast.Assign)
    ]
    return (
        f"## {kind.__name__}\n\n{prose(inspect.cleandoc(kind.__doc__ or ''))}\n\n{table(('word', 'meaning'), rows)}\n"
    )


def _default(kind: type, value: ast.expr | None) -> str | None:
    """A default as it is written; of a constant, its value."""
    if isinstance(value, ast.Name):
        return repr(vars(sys.modules[kind.__module__])[value.id])
    return None if value is None else ast.unparse(value)


def _below(node: ast.stmt | None) -> str:
    """The string that stands alone as `node`; nothing where it is something else."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return " ".join(node.value.value.split())
    return ""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown, where a bar in a cell is no new column."""
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def described(kind: type, level: int = 2) -> str:
    """A struct as a heading, what it is, and the table of its fields."""
    rows = [
        (
            f"`{field.name}`",
            f"`{field.type}`",
            "" if field.default is None else f"`{field.default}`",
            prose(field.meaning),
        )
        for field in fields(kind)
    ]
    shown = table(("key", "type", "default", "meaning"), rows)
    return f"{'#' * level} {kind.__name__}\n\n{prose(inspect.cleandoc(kind.__doc__ or ''))}\n\n{shown}\n"


def prose(text: str) -> str:
    """Text of a docstring that Markdown shows as it stands: brackets of array shapes, and stars, are no markup."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([\[\]*_<])", r"\\\1", part) for part in parts)


@cache
def source(path: str) -> str:
    """A file of the repository, by its path from the root."""
    return (ROOT / path).read_text(encoding="utf-8")
