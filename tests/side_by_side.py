"""Tests in several processes at once (`pytest -n 2`): in what order they come, and which of them keep to themselves.

Nothing runs beside a test that is marked `alone`: it measures the machine, or takes all of it. One that is marked
`alone("ray")` runs beside no other of that name. Both are kept by locks on files; in a single process nothing is needed.
"""

from __future__ import annotations

import contextlib
import fcntl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FOLDER = pytest.StashKey[str]()
QUICK, LIVE, ALONE = range(3)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Every process of a run is told where the run's locks are."""
    if FOLDER not in node.config.stash:
        folder = tempfile.TemporaryDirectory(prefix="isthmus-tests-")
        node.config.add_cleanup(folder.cleanup)
        node.config.stash[FOLDER] = folder.name
    node.workerinput["locks"] = node.config.stash[FOLDER]


def _told(config: pytest.Config) -> dict[str, Any]:
    """What a process of several was told; nothing where there is one."""
    return getattr(config, "workerinput", {})


def _kind(item: pytest.Item) -> int:
    if any(not mark.args for mark in item.iter_markers("alone")):
        return ALONE
    return LIVE if item.path.name.endswith("_live.py") or {"injections", "world"} & set(item.path.parts) else QUICK


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Those that compute come first, and what is alone last.

    Each of two processes begins with a half: the second begins with those that mostly wait, while the first computes.
    """
    quick, live, alone = ([item for item in items if _kind(item) == kind] for kind in (QUICK, LIVE, ALONE))
    half = min(len(quick), len(items) // 2) if _told(config) else len(quick)
    items[:] = quick[:half] + live + quick[half:] + alone


@contextlib.contextmanager
def _locked(path: Path, how: int) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, how)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # a process that a test has left may have inherited the file


@contextlib.contextmanager
def _undisturbed(item: pytest.Item, folder: Path) -> Iterator[None]:
    """Who waits for the whole room is the next to have it: the others stand behind him in the queue."""
    names = sorted({name for mark in item.iter_markers("alone") for name in mark.args})
    with contextlib.ExitStack() as stack:
        with _locked(folder / "queue", fcntl.LOCK_EX):
            whole = _kind(item) == ALONE
            stack.enter_context(_locked(folder / "room", fcntl.LOCK_EX if whole else fcntl.LOCK_SH))
        for name in names:
            stack.enter_context(_locked(folder / f"room-{name}", fcntl.LOCK_EX))
        yield


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Before a test's time begins, its room is free."""
    folder = _told(item.config).get("locks")
    with _undisturbed(item, Path(folder)) if folder else contextlib.nullcontext():
        return (yield)
