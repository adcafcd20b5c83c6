"""What LiteRT writes past Python when it first runs: held back, and nothing else with it."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import os
from isthmus.models import bundle, litert

real = litert.np.zeros
def spoken(*arguments):  # in the middle of the first run
    os.write(2, b"a driver's own words\\n")
    return real(*arguments)
litert.np.zeros = spoken
assert not litert.is_accelerated()
interpreter = litert.opened((bundle.ZOO / "signs/head.tflite"))
key, *_ = interpreter.get_signature_list()
litert.Signature(interpreter, key)
print(litert.is_accelerated())
"""


def ran(code: str, **streams: int | None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True, **streams)  # type: ignore[call-overload, no-any-return]


def test_the_delegates_line_is_heard_and_not_shown_and_others_are_shown() -> None:
    done = ran(CODE, stderr=subprocess.PIPE)
    assert done.stdout.strip() == "True"
    assert "XNNPACK" not in done.stderr
    assert "a driver's own words" in done.stderr


def test_a_closed_standard_error_is_no_hindrance() -> None:
    closed = "import os\nos.close(2)\n" + CODE.replace('os.write(2, b"a driver\'s own words\\n")', "pass")
    assert ran(closed, stderr=None).stdout.strip() in ("True", "False")
