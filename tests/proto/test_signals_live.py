"""Whoever asks twice is not kept waiting, not even by a thread that the interpreter waits for."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

WAITS = """
import asyncio, threading, time
from isthmus.proto.signals import end_at_once_from_now_on
threading.Thread(target=time.sleep, args=(600,)).start()
async def role():
    asyncio.get_running_loop().add_signal_handler(15, lambda: None)
    end_at_once_from_now_on()
asyncio.run(role())
print("the loop is gone, the thread is not", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_next_signal_ends_the_process(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", WAITS], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.send_signal(number)
        assert process.wait(60) == 128 + number
        assert process.stderr.read() == b""
