"""The laboratory of the injections: roles, a network, limits; what this machine cannot have is skipped by name."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from injections.lab import Lab
from injections.machine import UnavailableError
from injections.network import Network


@pytest.fixture(autouse=True, scope="session")
def no_cores() -> None:
    """A process that is made to crash leaves no image of its memory behind."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """Starts processes, and ends those that a test has left."""
    laboratory = Lab(tmp_path)
    with contextlib.closing(laboratory):
        yield laboratory


@pytest.fixture
def net() -> Iterator[Network]:
    """A router between device and server that really drops packets."""
    if os.geteuid() != 0:
        pytest.skip("a network of its own needs root")
    network = Network()
    try:
        network.__enter__()
    except UnavailableError as error:
        pytest.skip(f"a network of its own: {error}")
    try:
        yield network
    finally:
        network.__exit__(None, None, None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """What this machine cannot have skips the test, by name."""
    try:
        yield
    except UnavailableError as error:
        pytest.skip(str(error))
