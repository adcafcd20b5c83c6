"""The face: `isthmus`. Every error that is ours ends with its own exit code and one clear line; Ctrl-C ends with 130."""

from __future__ import annotations

import logging
import sys
from importlib import metadata

import typer
from rich.console import Console

from isthmus.cli import demo, doctor, field, models, runs, traces
from isthmus.proto.errors import IsthmusError

app = typer.Typer(
    name="isthmus",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="One neural network in two halves: a head on the device, a tail on an edge server, an answer by every deadline.",
)
app.command("agent")(field.agent)
app.command("serve")(field.serve)
app.command("relay")(field.relay)
app.command("demo")(demo.demo)
app.command("report")(runs.report)
app.command("doctor")(doctor.doctor)
app.add_typer(field.certs, name="certs")
app.add_typer(models.app, name="models")
app.add_typer(traces.app, name="traces")


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", help="Print the version and stop.", is_eager=True),
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Log what happens, to standard error."),
) -> None:
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(asctime)s %(levelname).1s %(name)s: %(message)s"
    )
    if version:
        typer.echo(f"isthmus {metadata.version('isthmus')}")
        raise typer.Exit


def main() -> None:
    """Entry point of the `isthmus` command."""
    errors = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)
    try:
        app()
    except IsthmusError as error:
        errors.print(f"[bold red]error:[/] {_plain(error)}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


def _plain(error: IsthmusError) -> str:
    """The message with rich's markup switched off."""
    return str(error).replace("[", r"\[")
