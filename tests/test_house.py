"""The house's own rules: imports point one way, portions stay portions, the tree of rooms is the one that is packaged."""

from __future__ import annotations

import ast
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "proto": {"proto"},
    "models": {"models", "proto"},
    "device": {"device", "models", "proto"},
    "edge_server": {"edge_server", "models", "proto"},
    "emulation": {"emulation", "device", "edge_server", "models", "proto"},
    "cli": {"cli", "emulation", "device", "edge_server", "models", "proto"},
}
TRAINING_ONLY = {"torch", "litert_torch", "onnxscript", "ai_edge_quantizer"}


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def rooms(portion: str) -> list[Path]:
    return sorted((ROOT / portion / "isthmus" / portion).rglob("*.py"))


@pytest.mark.parametrize("portion", MAY_IMPORT)
def test_imports_point_one_way(portion: str) -> None:
    for path in rooms(portion):
        used = {name.split(".")[1] for name in imports(path) if name.startswith("isthmus.")}
        assert used <= MAY_IMPORT[portion], f"{path.relative_to(ROOT)} imports {used - MAY_IMPORT[portion]}"


@pytest.mark.parametrize("portion", ["proto", "device", "edge_server", "emulation"])
def test_nothing_that_runs_in_the_field_imports_the_training_stack(portion: str) -> None:
    for path in rooms(portion):
        used = {name.split(".")[0] for name in imports(path)}
        assert not used & TRAINING_ONLY, f"{path.relative_to(ROOT)} imports {used & TRAINING_ONLY}"


def test_no_portion_hides_the_others() -> None:
    """A stray `isthmus/__init__.py` would make one portion a regular package and the others vanish."""
    assert not list(ROOT.glob("*/isthmus/__init__.py"))


def test_every_portion_is_typed() -> None:
    assert all((ROOT / p / "isthmus" / p / "py.typed").is_file() for p in MAY_IMPORT)


def test_the_version_comes_from_the_metadata() -> None:
    assert metadata.version("isthmus").count(".") == 2


def test_files_stay_readable() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for portion in MAY_IMPORT
        for path in rooms(portion)
        if "_pb2" not in path.name and (lines := len(path.read_text().splitlines())) > 400
    }
    assert not long, f"over 400 lines: {long}"
