"""The house's own rules: imports point one way, portions stay portions, the tree of rooms is the one that is packaged."""

from __future__ import annotations

import ast
import statistics
import subprocess
from collections import Counter
from collections.abc import Callable
from functools import cache
from graphlib import TopologicalSorter
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
"""Portions, and the portions that each may import."""
TOP = "top files"
_MADE = {TOP, "data", "bundling", "splitting", "training"}
MODELS_ROOM_MAY_IMPORT = {
    TOP: set[str](),
    "data": {TOP},
    "bundling": {TOP, "data"},
    "splitting": {TOP, "data", "bundling"},
    "training": {TOP, "data", "bundling", "splitting"},
    "distillation": _MADE,
    "injection": {*_MADE, "distillation"},
    "compression": _MADE,
    "filtering": _MADE,
    "detection": _MADE,
    "ablation": _MADE,
}
"""Folders of `models`, and what each may import beside itself; the files directly in `models` are one room."""
_PLAYED = {"traces", "capacity", "link", "replay", "policies"}
EMULATION_ROOM_MAY_IMPORT = {
    "trace_readers": set[str](),
    "traces": {"trace_readers"},
    "synthetic": {"traces"},
    "recorder": {"traces"},
    "trace_summary": {"traces"},
    "capacity": {"traces"},
    "timetable": set[str](),
    "link": {"traces", "capacity", "timetable"},
    "realtime": {"traces", "synthetic", "recorder", "capacity", "link"},
    "replay": set[str](),
    "sequences": {"replay"},
    "policies": {"replay", "sequences"},
    "virtual": _PLAYED,
    "clairvoyant": {*_PLAYED, "virtual", "timetable"},
    "simulate": {*_PLAYED, "virtual", "clairvoyant"},
    "sweep": {*_PLAYED, "sequences", "virtual", "clairvoyant", "simulate"},
    "ray_sweep": {"sweep"},
    "load": set[str](),
    "run_summary": set[str](),
    "reports": {"traces", "policies", "run_summary"},
}
"""Folders and files of `emulation`, and what each may import beside itself."""
TRAINING_ONLY = {"torch", "litert_torch", "onnxscript", "ai_edge_quantizer"}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def is_for_checkers(node: ast.AST) -> bool:
    """Whether a node is there for type checkers, and never runs."""
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def runs_at_import(node: ast.AST) -> bool:
    """Whether what is inside a node runs when its module is imported: not a function's body, nor what is for type checkers."""
    return not (isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or is_for_checkers(node))


@cache
def imports(path: Path, *, at_the_top: bool = False, types: bool = True) -> frozenset[str]:
    """Full names of what a file imports: modules, and what is taken from them."""
    names: set[str] = set()
    left: list[ast.AST] = [tree(path)]
    while left:
        node = left.pop()
        if (runs_at_import(node) or not at_the_top) and (types or not is_for_checkers(node)):
            left += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def rooms(portion: str) -> list[Path]:
    return sorted((ROOT / portion / "isthmus" / portion).rglob("*.py"))


def written() -> list[Path]:
    """Every file of the product but those that a compiler wrote."""
    return [path for portion in MAY_IMPORT for path in rooms(portion) if "_pb2" not in path.name]


@cache
def modules() -> dict[str, Path]:
    """The product's modules by their full names."""
    found = {}
    for portion in MAY_IMPORT:
        for path in rooms(portion):
            parts = path.relative_to(ROOT / portion).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def ours(path: Path, *, types: bool = True) -> set[str]:
    """The product's modules that a file imports; without `types`, when it runs."""
    found = set()
    for name in imports(path, types=types):
        while name and name not in modules():
            name = name.rpartition(".")[0]
        found |= {name} - {""}
    return found


def folder_of_models(module: str) -> str | None:
    """`training` for a module in `models/training`, TOP for one directly in `models`; None for one elsewhere."""
    if not module.startswith("isthmus.models"):
        return None
    folder = modules()[module].parent.name
    return TOP if folder == "models" else folder


def room_of_emulation(module: str) -> str | None:
    """`traces` for `emulation/traces.py`, `virtual` for a module in `emulation/virtual`; None for one elsewhere."""
    return module.split(".")[2] if module.startswith("isthmus.emulation.") else None


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


def test_what_is_used_without_making_a_bundle_stands_alone() -> None:
    """A file directly in `models/` runs on a device: it imports none of the folders and nothing that trains."""
    for path in (ROOT / "models/isthmus/models").glob("*.py"):
        names = imports(path)
        assert {folder_of_models(name) for name in ours(path)} <= {TOP, None}, f"{path.name} imports a folder"
        assert not {name.split(".")[0] for name in names} & TRAINING_ONLY, f"{path.name} imports what trains"


@pytest.mark.parametrize(
    "folder", ["proto/isthmus", "device/isthmus", "edge_server/isthmus", "emulation/isthmus", "examples"]
)
def test_where_bundles_are_made_is_no_business_of_those_who_run_them(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        used = {folder_of_models(name) for name in ours(path)} - {TOP, None}
        assert not used, f"{path.relative_to(ROOT)} imports models/{used}"


@pytest.mark.parametrize("folder", ["data", "bundling", "splitting"])
def test_bundles_are_measured_and_split_without_torch(folder: str) -> None:
    for path in (ROOT / "models/isthmus/models" / folder).glob("*.py"):
        at_the_top = {name.split(".")[0] for name in imports(path, at_the_top=True)}
        assert not at_the_top & TRAINING_ONLY, f"{folder}/{path.name} imports {at_the_top & TRAINING_ONLY} at its top"


@pytest.mark.parametrize(
    ("room_of", "may_import"),
    [(folder_of_models, MODELS_ROOM_MAY_IMPORT), (room_of_emulation, EMULATION_ROOM_MAY_IMPORT)],
)
def test_the_arrows_inside_a_portion(room_of: Callable[[str], str | None], may_import: dict[str, set[str]]) -> None:
    for module, path in modules().items():
        room = room_of(module)
        if room is None:
            continue
        assert room in may_import, f"{module}: a new room; say in tests/test_house.py what it may import"
        used = {room_of(name) for name in ours(path)} - {room, None}
        assert used <= may_import[room], f"{module} imports {used - may_import[room]}"


def test_nothing_is_imported_in_a_circle() -> None:
    TopologicalSorter({module: ours(path, types=False) - {module} for module, path in modules().items()}).prepare()


def test_no_portion_hides_the_others() -> None:
    """A stray `isthmus/__init__.py` would make one portion a regular package and the others vanish."""
    assert not list(ROOT.glob("*/isthmus/__init__.py"))


def test_every_portion_is_typed() -> None:
    assert all((ROOT / p / "isthmus" / p / "py.typed").is_file() for p in MAY_IMPORT)


def test_the_version_comes_from_the_metadata() -> None:
    assert metadata.version("isthmus").count(".") == 2


def test_files_stay_readable() -> None:
    long = {
        str(path.relative_to(ROOT)): lines for path in written() if (lines := len(path.read_text().splitlines())) > 400
    }
    assert not long, f"over 400 lines: {long}"


def test_functions_stay_short() -> None:
    """Counted are the lines of a function's body, blank ones too; not its signature, not its docstring."""
    lengths = [
        (body[-1].end_lineno or 0) - body[0].lineno + 1
        for path in written()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (body := node.body[ast.get_docstring(node) is not None :])
    ]
    assert statistics.median(lengths) <= 6


def test_no_folder_is_crowded() -> None:
    counts = Counter(path.parent for path in written() if path.name != "__init__.py")
    crowded = {str(folder.relative_to(ROOT)): count for folder, count in counts.items() if count > 20}
    assert not crowded, f"more than 20 modules: {crowded}"


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this tree is no git checkout, whose files are looked at")
def test_nothing_tracked_leads_out_of_the_tree() -> None:
    listed = subprocess.run(["git", "ls-files", "-s", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for entry in listed.stdout.split("\0")[:-1]:
        mode, name = entry.split()[0], entry.split("\t")[1]
        if mode == "120000":
            assert (ROOT / name).resolve().is_relative_to(ROOT.resolve()), f"{name}: a link out of the tree"
