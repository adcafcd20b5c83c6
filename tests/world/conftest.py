"""Isthmus among programs that are none of ours: real processes, as in the injections."""

from __future__ import annotations

from injections.conftest import lab, net, pytest_runtest_call

__all__ = ["lab", "net", "pytest_runtest_call"]
