"""A headless Chromium that looks at a page: over its pipe (Chrome DevTools Protocol), with nothing but the standard library.

PYTHONPATH=tests python -m world.browser http://127.0.0.1:8070/ page.png [--dark] [--width 1280] [--height 1000] [--after 8]
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip
PATIENCE_S = 120.0


def chromium() -> str | None:
    """Where it is; None where it is not installed."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


class Browser:
    """One tab."""

    def __init__(self, into: int, out: int) -> None:
        self._into, self._out, self._read = into, out, b""
        self._last = 0
        self._session: str | None = None
        self.said: list[str] = []
        """What the page's console and its errors said."""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **arguments: Any) -> dict[str, Any]:
        """What a command of the protocol gives."""
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": arguments}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._into, json.dumps(message).encode() + b"\0")
        while True:
            told = self._next()
            if told.get("id") == self._last:
                assert "error" not in told, told
                return dict(told["result"])
            if told.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled"):
                self.said.append(json.dumps(told["params"]))

    def look(self, url: str, *, width: int, height: int, dark: bool) -> None:
        """Go to a page, as seen on such a screen."""
        phone = width < 600
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.ask("Emulation.setEmulatedMedia", features=scheme)
        self.ask("Page.navigate", url=url)

    def value(self, expression: str) -> Any:
        """What an expression is on the page."""
        return self.ask("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def until(self, expression: str) -> None:
        """Wait until an expression is true on the page."""
        end_s = time.monotonic() + PATIENCE_S
        while not self.value(expression):
            assert time.monotonic() < end_s, f"never true: {expression}; {self.said}"
            time.sleep(0.1)

    def picture(self) -> bytes:
        """What is seen now, PNG."""
        return base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._read:
            content = os.read(self._out, 1 << 20)
            assert content, "the browser is gone"
            self._read += content
        one, _, self._read = self._read.partition(b"\0")
        return dict(json.loads(one))


@contextlib.contextmanager
def browsing() -> Iterator[Browser]:
    """A browser, until the block ends."""
    program = chromium()
    assert program is not None
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    with tempfile.TemporaryDirectory() as profile:
        # Its pipe is descriptors 3 and 4 by convention; bash puts them there, whatever they are here.
        line = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}'
        command = ["bash", "-c", line, program, *QUIET, f"--user-data-dir={profile}"]
        process = subprocess.Popen(
            command, pass_fds=(theirs_in, theirs_out), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        try:
            yield Browser(ours_out, ours_in)
        finally:
            process.kill()
            process.wait()
            os.close(ours_out)
            os.close(ours_in)
            for _ in range(20):  # its children write into the profile until they have ended too
                shutil.rmtree(profile, ignore_errors=True)
                if not Path(profile).exists():
                    Path(profile).mkdir()
                    break
                time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("out", type=Path)
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=1000)
    parser.add_argument("--after", type=float, default=8.0)
    asked = parser.parse_args()
    with browsing() as browser:
        browser.look(asked.url, width=asked.width, height=asked.height, dark=asked.dark)
        time.sleep(asked.after)
        asked.out.write_bytes(browser.picture())


if __name__ == "__main__":
    main()
