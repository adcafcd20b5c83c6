"""`isthmus top`: a running agent, by its live page, or a running server, by its metrics, in a terminal."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from urllib.parse import parse_qs, urlsplit

import typer
from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from isthmus.cli.options import FORMAT, Format, seconds
from isthmus.cli.top_view import AgentView, ServerView, counted
from isthmus.proto.errors import DataError

PATIENCE_S = 3.0
MOST_BYTES = 1 << 22
"""Of an answer: a page of metrics has some thousand bytes."""
TOKEN = "ISTHMUS_PAGE_TOKEN"


class Watched:
    """Whatever runs at an address: which it is shows at the first look."""

    def __init__(self, address: str) -> None:
        """Raises DataError when the address is none."""
        parts = urlsplit(address if "://" in address else f"http://{address}")
        try:
            named = parts.scheme in ("http", "https") and parts.hostname and parts.port is not None
        except ValueError:
            named = False
        if not named:
            raise DataError(f"{address}: expected HOST:PORT of an agent's --page or a server's --metrics")
        self.name = f"{parts.hostname}:{parts.port}"
        self._base = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        self._token = (parse_qs(parts.query).get("token") or [os.environ.get(TOKEN, "")])[0]
        self._agent, self._server = AgentView(self.name), ServerView(self.name)
        self._is_agent: bool | None = None

    def look(self, now: float) -> tuple[RenderableType, object]:
        """What is to be shown, and the same as data. Raises DataError when nothing of ours answers."""
        if self._is_agent is not False:
            status, content = self._get("/state.json")
            if status == 403:
                raise DataError(
                    f"{self.name}: needs its token: give the whole address from the agent's log, or set {TOKEN}"
                )
            if status == 200 and content.startswith(b"{"):
                self._is_agent = True
                state = json.loads(content)
                return self._agent.shown(state), state
        status, content = self._get("/metrics")
        counts = counted(content.decode(errors="replace")) if status == 200 else {}
        if any(name.startswith("isthmus_agent_") for name in counts):
            raise DataError(f"{self.name}: an agent's metrics; give the address of its --page")
        if not any(name.startswith("isthmus_") for name in counts):
            raise DataError(f"{self.name}: neither an agent's page nor a server's metrics")
        self._is_agent = False
        return self._server.shown(counts, now), counts

    def _get(self, path: str) -> tuple[int, bytes]:
        request = urllib.request.Request(self._base + path)
        if self._token:
            request.add_header("Authorization", f"Bearer {self._token}")
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
                return answer.status, answer.read(MOST_BYTES)
        except urllib.error.HTTPError as error:
            return error.code, b""
        except (OSError, ValueError) as error:
            why = getattr(error, "reason", error)
            raise DataError(
                f"{self.name}: does not answer ({why}); is it running, with --page or --metrics?"
            ) from error


def top(
    address: str = typer.Argument("127.0.0.1:8070", help="HOST:PORT of an agent's --page or a server's --metrics."),
    every: str = typer.Option("1s", help="Look so often."),
    once: bool = typer.Option(False, "--once", help="Look once, print, and end."),
    format: Format = FORMAT,
) -> None:
    """Watch a running agent or server in this terminal, also over ssh; Ctrl-C ends it, and nothing of what is watched."""
    watched, console = Watched(address), Console(highlight=False)
    shown, data = watched.look(time.monotonic())
    if format == "json":
        typer.echo(json.dumps(data))
        return
    if once or not console.is_terminal:
        console.print(shown)
        return
    pause_s = max(0.1, seconds(every, "--every") or 1.0)
    with Live(shown, console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(shown, refresh=True)
            time.sleep(pause_s)
            try:
                shown, _ = watched.look(time.monotonic())
            except DataError as error:  # it may come back
                shown = Text(f"{error}\n\ntried again; Ctrl-C ends this")
