"""What every test is run under."""

import os
import signal
from pathlib import Path

from hypothesis import settings

from side_by_side import pytest_collection_modifyitems, pytest_configure_node, pytest_runtest_protocol

__all__ = ["pytest_collection_modifyitems", "pytest_configure_node", "pytest_runtest_protocol"]

# A busy machine may stop a test for longer than hypothesis' default allows one example.
settings.register_profile("isthmus", deadline=None)
settings.load_profile("isthmus")

SHARED = Path(__file__).parents[2] / "shared"
for _variable, _folder in (("ISTHMUS_DATA", SHARED / "data"), ("ISTHMUS_TRACES", SHARED / "traces")):
    if _folder.is_dir():
        os.environ.setdefault(_variable, str(_folder))

if (
    "PYTEST_XDIST_WORKER" in os.environ
):  # as many processes compute as there are cores: more threads would only wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_configure() -> None:
    """A gate that was started in the background ignores Ctrl-C, and so would every process that a test interrupts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
