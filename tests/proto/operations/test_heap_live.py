"""Roles keep the collector from what they began with: in processes of their own, since it is the process's."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import gc, sys
sys.argv = ["isthmus", *{words!r}]
from isthmus.cli.main import main
try:
    main()
finally:
    print(gc.get_freeze_count() > 10_000)
"""


def test_an_agent_that_is_ready_is_not_held_up_by_what_it_began_with() -> None:
    words = ("agent", "--bundle", "signs", "--source", "generated:3", "--frames", "3")
    program = PROGRAM.format(words=words)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "True", done.stderr
