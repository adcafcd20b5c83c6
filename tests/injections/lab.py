"""Real processes under the harness: started, read line by line, waited for, stopped. Waits are for conditions, never for luck."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from injections.machine import CpuWaits, Usage, usage

PATIENCE_S = 60.0
"""How long any condition is waited for: a busy machine is slow, not wrong."""
BEAT_S = 0.02
ISTHMUS = (sys.executable, "-m", "isthmus.cli")
HERE = "127.0.0.1"
CONNECTED = re.compile(r"server .*: connected")
"""What an agent's log says of each connection that came about."""


def until(condition: Callable[[], Any], what: str, *, of: Sequence[Role] = (), limit_s: float = PATIENCE_S) -> Any:
    """Wait for something true and give it; fails, with the last words of the roles `of`, when it does not come."""
    end_s = time.monotonic() + limit_s
    while not (found := condition()):
        if time.monotonic() > end_s or any(role.ended for role in of):
            found = condition()
            if found:
                break
            raise AssertionError(f"{what}: did not come about\n" + "\n".join(role.last_words for role in of))
        time.sleep(BEAT_S)
    return found


@dataclass
class Role:
    """One process: its standard output line by line, its log, what it uses."""

    arguments: Sequence[str]
    log_path: Path
    prefix: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    stdout: int = subprocess.PIPE
    program: Sequence[str] = ISTHMUS
    """What runs the arguments; a test that must disturb the product from within puts a launcher here."""
    patience_s: float = PATIENCE_S

    def __post_init__(self) -> None:
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, *self.program, *self.arguments],
                stdin=subprocess.DEVNULL,
                stdout=self.stdout,
                stderr=log,
                env={**os.environ, **self.environment},
            )
        self.lines: list[str] = []
        self.settled: Usage | None = None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        if self.process.stdout is not None:
            for line in self.process.stdout:
                self.lines.append(line.decode())

    @property
    def pid(self) -> int:
        """Its process."""
        return self.process.pid

    @property
    def ended(self) -> bool:
        """It has come to an end."""
        return self.process.poll() is not None

    @property
    def log(self) -> str:
        """All that it wrote to standard error."""
        return self.log_path.read_text(errors="replace")

    @property
    def last_words(self) -> str:
        """What a failing test shows of it."""
        log = self.log.splitlines()
        return "\n".join(
            [f"{' '.join(self.arguments)}: code {self.process.poll()}, {len(self.lines)} lines", *log[-15:]]
        )

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait for something true of this process."""
        return until(condition, what, of=[self], limit_s=self.patience_s)

    def settle(self) -> None:
        """From here on it must not grow."""
        self.settled = usage(self.pid)

    def signal(self, number: int) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def wait(self, limit_s: float = PATIENCE_S) -> int:
        """Its exit code, once it has ended by itself and all it said has been read."""
        try:
            code = self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"does not end\n{self.last_words}") from None
        self._reader.join(PATIENCE_S)
        return code

    def end(self, limit_s: float = PATIENCE_S) -> int:
        """Ask it to end; its exit code."""
        if not self.ended:
            self.signal(signal.SIGTERM)
        return self.wait(limit_s)

    def kill(self) -> None:
        """End it as a power cut does."""
        if not self.ended:
            self.process.kill()
        self.process.wait()
        self._reader.join(PATIENCE_S)
        if self.process.stdout is not None:
            self.process.stdout.close()


class Server(Role):
    """`isthmus serve`, ready."""

    address = ""
    certs: Path | None = None
    """The folder from which a device's certificates for it can be read; None in plaintext."""

    def ready(self) -> str:
        """Where it listens, once it does."""
        line = self.until(lambda: self.lines and self.lines[0], "the server is ready")
        self.address = next(
            word.rstrip(",") for word in line.split() if word.rstrip(",").rpartition(":")[2].isdecimal()
        )
        self.settle()
        return self.address


class Agent(Role):
    """`isthmus agent`, whose every line is the answer to a frame."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.waits = CpuWaits(self.pid)
        self.judged_by = "signs"
        """The bundle whose two halves give its answers, of which there may be copies with other tails."""

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The answers so far, in the order in which they were given."""
        return [json.loads(line) for line in list(self.lines) if line.endswith("\n")]

    @property
    def sources(self) -> list[str]:
        """Where each came from."""
        return [row["source"] for row in self.rows]

    @property
    def connections(self) -> int:
        """How often it was welcomed."""
        return len(CONNECTED.findall(self.log))

    def settle(self) -> None:
        """From its first answer on it must not grow."""
        self.until(lambda: self.lines or self.ended, "its first answer")
        if not self.ended:
            super().settle()

    def answered_by(self, source: str, count: int = 3, *, after: int | None = None) -> int:
        """Wait for so many more answers by `source`, beyond the first `after` (None: those that are there); the count of all."""
        start = len(self.lines) if after is None else after

        def enough() -> bool:
            return self.sources[start:].count(source) >= count

        self.until(enough, f"{count} answers by {source} after {start}")
        return len(self.lines)

    def more(self, count: int) -> int:
        """Wait for so many further answers, wherever they come from; how many there are then."""
        start = len(self.lines)
        self.until(lambda: len(self.lines) >= start + count, f"{count} more answers")
        return len(self.lines)

    def wait(self, limit_s: float = PATIENCE_S) -> int:
        """Its exit code, once it has ended."""
        code = super().wait(limit_s)
        self.waits.close()
        return code

    def kill(self) -> None:
        """End it as a power cut does."""
        super().kill()
        self.waits.close()


class Lab:
    """Starts roles, and ends those that a test has left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.roles: list[Role] = []

    def server(self, *more: str, bundle: str = "signs", listen: str = f"{HERE}:0", **how: Any) -> Server:
        """A server that is ready; plaintext unless `more` names certificates, of one bundle unless it names a folder."""
        posture = () if "--certs" in more else ("--insecure",)
        served = () if "--models" in more else ("--bundle", bundle)
        arguments = ("serve", *served, "--listen", listen, *posture, *more)
        server = Server(arguments, self._log("server"), **how)
        server.certs = Path(more[more.index("--certs") + 1]) if "--certs" in more else None
        self.roles.append(server)
        server.ready()
        return server

    def agent(
        self,
        server: str | None,
        *more: str,
        frames: int | None = None,
        source: str = "generated:3",
        deadline: str = "400ms",
        fps: float = 30,
        bundle: str = "signs",
        client_id: str = "cam0",
        **how: Any,
    ) -> Agent:
        """An agent at work: at a generous deadline, since these tests are about where answers come from, not how fast."""
        arguments = ["agent", "--bundle", bundle, "--source", source, "--deadline", deadline, "--fps", f"{fps:g}"]
        arguments += ["--client-id", client_id]
        arguments += [] if frames is None else ["--frames", str(frames)]
        if server is not None:
            arguments += ["--server", server, *(() if "--certs" in more else ("--insecure",))]
        agent = Agent([*arguments, *more], self._log("agent"), **how)
        self.roles.append(agent)
        return agent

    def run(self, *arguments: str, limit_s: float = PATIENCE_S, **how: Any) -> Role:
        """Any command of Isthmus, to its end."""
        role = Role(arguments, self._log(arguments[0]), **how)
        self.roles.append(role)
        role.wait(limit_s)
        return role

    def role(self, *arguments: str, **how: Any) -> Role:
        """Any other process, running."""
        role = Role(arguments, self._log("role"), **how)
        self.roles.append(role)
        return role

    def _log(self, name: str) -> Path:
        return self.folder / f"{len(self.roles)}-{name}.log"

    def close(self) -> None:
        """End what still runs."""
        for role in reversed(self.roles):
            with contextlib.suppress(ProcessLookupError):
                role.signal(signal.SIGCONT)
            role.kill()


@cache
def _given() -> set[str]:
    return set()


def free_address() -> str:
    """An address that nobody listens on now, and that was not given before: two roles may not be told the same."""
    while True:
        with socket.socket() as taken:
            taken.bind((HERE, 0))
            address = f"{HERE}:{taken.getsockname()[1]}"
        if address not in _given():
            _given().add(address)
            return address


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that do nothing but compute."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
