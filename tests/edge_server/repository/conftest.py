"""For tests of a folder on a real server: looks that follow each other at once, and no traceback."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from isthmus.edge_server.repository import catalogue, repository


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repository, "LOOK_S", 0.02)
    monkeypatch.setattr(catalogue, "SETTLE_S", 0.0)


@pytest.fixture
def blameless(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing that is done to a folder, or said by whoever pushes, leaves a traceback."""
    caplog.set_level("INFO")
    yield
    assert not [record.getMessage() for record in caplog.records if record.exc_info]
