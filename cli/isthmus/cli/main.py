"""The face: `isthmus`. Every error that is ours ends with its own exit code and one clear line; Ctrl-C ends with 130.

Only the command that was asked for is imported: an agent on a small board loads nothing of the emulator.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Literal

import typer

from isthmus.cli.examples import EVERYWHERE, epilog
from isthmus.cli.strict import Strict, strictly
from isthmus.proto.errors import IsthmusError
from isthmus.proto.operations.version import version

COMMANDS = {
    "agent": "agent:agent",
    "frigate": "frigate:frigate",
    "serve": "serve:serve",
    "top": "top:top",
    "relay": "links.relay:relay",
    "shape": "links.shape:shape",
    "demo": "demo:demo",
    "emulate": "emulate:app",
    "sweep": "sweep:sweep",
    "report": "report:report",
    "doctor": "doctoring.doctor:doctor",
    "certs": "certs:app",
    "config": "configuration:app",
    "service": "services.verbs:app",
    "models": "models.verbs:app",
    "traces": "traces.verbs:app",
    "bench": "bench:app",
}
"""Each command's module in `isthmus.cli`, and what it is called there: a function, or a group of commands."""

SOURCE_THREAD = "source"
"""What an agent's reader calls its threads."""
os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what its core says on every attempt is said once, and better, by us
os.environ.setdefault(
    "OPENCV_IO_MAX_IMAGE_PIXELS", str(2**27)
)  # 400 MB decoded; OpenCV's own limit is more than a Pi has


def application(arguments: Sequence[str]) -> typer.Typer:
    """The command line for `arguments`: the one command that they begin with, or else (help, a typing error) all."""
    asked = next((word for word in arguments if not word.startswith("-")), "")
    app = typer.Typer(
        name="isthmus",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",  # or rich takes a default in [brackets] for a style, and shows nothing
        context_settings={"help_option_names": ["-h", "--help"]},
        help="One neural network in two halves: a head on the device, a tail on an edge server, an answer by every "
        "deadline.",
        epilog=EVERYWHERE,
    )
    app.callback()(_options)
    for name in _needed(asked, arguments):
        module, _, attribute = COMMANDS[name].partition(":")
        command = getattr(import_module(f"isthmus.cli.{module}"), attribute)
        if isinstance(command, typer.Typer):
            strictly(command, name)
            app.add_typer(command, name=name, epilog=epilog(name))
        else:
            app.command(name, cls=Strict, epilog=epilog(name))(command)
    return app


def _needed(asked: str, arguments: Sequence[str]) -> Iterable[str]:
    """The commands whose modules `arguments` need; typer takes no program without one, so a version needs a small one."""
    if asked in COMMANDS:
        return [asked]
    return ["service"] if "--version" in arguments else COMMANDS


def everywhere_first(arguments: Sequence[str]) -> list[str]:
    """The same with -v, --verbose and --log-format in front of the command, where they belong to all; `--` ends it."""
    ends = arguments.index("--") if "--" in arguments else len(arguments)
    front: list[str] = []
    rest: list[str] = []
    words = iter(arguments[:ends])
    for word in words:
        if word in ("-v", "--verbose") or word.startswith("--log-format="):
            front.append(word)
        elif word == "--log-format":
            front += [word, *itertools.islice(words, 1)]
        else:
            rest.append(word)
    return [*front, *rest, *arguments[ends:]]


class JsonLines(logging.Formatter):
    """A log line as JSON: what programs that collect logs read."""

    def format(self, record: logging.LogRecord) -> str:
        """One object on one line: the time in seconds since 1970, level, logger and message, and what was raised."""
        said: dict[str, object] = {"time_s": round(record.created, 3), "level": record.levelname.lower()}
        said |= {"logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return json.dumps(said)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"isthmus {version()}")
        raise typer.Exit


def _options(
    version: bool = typer.Option(
        False, "--version", help="Print the version and stop.", is_eager=True, callback=_version
    ),
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Log what happens, to standard error."),
    log_format: Literal["text", "json"] = typer.Option("text", help="Log lines as text, or each as JSON."),
) -> None:
    handler = logging.StreamHandler()
    text = logging.Formatter("%(asctime)s %(levelname).1s %(name)s: %(message)s")
    handler.setFormatter(JsonLines() if log_format == "json" else text)
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[handler])
    logging.getLogger("isthmus.edge_server").setLevel(logging.INFO)  # who comes and goes at a server is always shown


def main() -> None:
    """Entry point of the `isthmus` command."""
    if hasattr(signal, "SIGHUP") and sys.argv[1:2] in (["agent"], ["frigate"], ["serve"]):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a role reads things anew on it, and must not die of it before
    try:
        arguments = everywhere_first(sys.argv[1:])
        application(arguments)(arguments)
    except IsthmusError as error:
        typer.secho("error: ", fg="red", bold=True, nl=False, err=True)
        typer.echo(error, err=True)
        _leave(error.exit_code)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # once is enough: a second one would end it by the signal
        _leave(130)
    except SystemExit as end:  # as typer ends every command
        if isinstance(end.code, str):
            raise
        _leave(end.code or 0)


def _leave(code: int) -> None:
    """End with this code, at once where a source still hangs in a driver: its thread, in C++, would abort the process."""
    if any(thread.name == SOURCE_THREAD for thread in threading.enumerate()):
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(code)
    sys.exit(code)
