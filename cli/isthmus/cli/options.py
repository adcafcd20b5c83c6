"""What several commands share: options, values as people write them, missing extras, and running until stopped."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import typer

from isthmus.proto import quantities
from isthmus.proto.errors import ConfigError, DataError

CONFIG = typer.Option(None, "--config", "-c", help="TOML file; flags and environment win over it.")
Format = Literal["text", "json"]
FORMAT = typer.Option("text", "--format", help="text or json.")
Fit = Literal["stretch", "letterbox"]
FIT = typer.Option("stretch", "--fit", help="How the model is given a picture of another shape: stretch, or letterbox.")
INSECURE = typer.Option(None, "--insecure", help="Plaintext instead of TLS.")
CHECKPOINTS, BUNDLES = Path("checkpoints"), Path("bundles")
"""The folders for trainings and bundles where no other is named."""


def seconds(text: str | None, flag: str) -> float | None:
    """'100ms' or '5m' in seconds; None for none. ConfigError names the flag."""
    if text is None:
        return None
    try:
        return quantities.parse(text, "s", bare=False)
    except ValueError as error:
        raise ConfigError(f"{flag}: {error}") from error


def megabits(text: str) -> float:
    """'500kbit/s', or a number of Mbit/s: what the flags take whose names end in -mbps. Raises ConfigError."""
    return _quantity(text, "mbps")


def size(text: str) -> float:
    """'20kB', or a number of bytes: what the flags take whose names end in -bytes. Raises ConfigError."""
    return _quantity(text, "bytes")


def _quantity(text: str, unit: str) -> float:
    try:
        return quantities.parse(text, unit, bare=True)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def tell(format_: Format, text: str, **facts: object) -> None:
    """Say on standard output what a command did: in words, or as one JSON object, in which a path is its name."""
    typer.echo(json.dumps(facts, default=str) if format_ == "json" else text)


@contextlib.contextmanager
def if_interrupted(there_is: str | Callable[[], str]) -> Iterator[None]:
    """Where Ctrl-C ends what is inside, say on standard error what there is by then; around a whole command, or in one."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"interrupted: {there_is if isinstance(there_is, str) else there_is()}", err=True)
        raise


NOTHING = "nothing is written"


def trained_until_then(checkpoint: Path) -> str:
    """What there is of a training that was interrupted."""
    if checkpoint.is_file():
        return f"{checkpoint} has what was trained; the same command goes on from it"
    return f"no epoch was finished; {NOTHING}"


def run_role(role: Coroutine[Any, Any, None]) -> None:
    """Run a role to its end; a reader that went away (`| head`) ends it quietly."""
    try:
        asyncio.run(role)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)


def check(flag: str, value: str | None, known: Sequence[str] | Any) -> None:
    """Raises ConfigError unless `value` is one of `known`, or none."""
    if value is not None and value not in known:
        raise ConfigError(f"{flag}: '{value}' is not one of {', '.join(known)}")


def label_names(path: Path | None, classes: int | None) -> tuple[str, ...]:
    """The names in a file, one a line, without blank lines at its end; empty without a file.

    Raises DataError when it cannot be read, or names more or fewer than the model has `classes` (None: nobody knows).
    """
    if path is None:
        return ()
    try:
        names = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); one name a line is expected") from error
    if classes is not None and len(names) != classes:
        hint = "; is one of them a background that the model does not know?" if len(names) == classes + 1 else ""
        raise DataError(f"{path}: {len(names)} names, the model has {classes} classes{hint or '; give one a line'}")
    return tuple(name.strip() for name in names)


EXTRAS = {
    "server": ("cryptography", "grpc_health", "grpc_reflection", "onnxruntime", "prometheus_client"),
    "emulation": ("matplotlib",),
    "discovery": ("zeroconf",),
    "frigate": ("zmq",),
    "metrics": ("prometheus_client",),
    "mqtt": ("paho",),
    "otel": ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"),
    "ray": ("ray",),
}
"""What each brings, by the names that are imported."""


def require(*extras: str) -> None:
    """Raises ConfigError, before any work is done, when a package of one of `extras` is not installed."""
    for extra in extras:
        for name in EXTRAS[extra]:
            try:
                absent = importlib.util.find_spec(name) is None
            except (ImportError, ValueError):
                absent = True
            if absent:
                raise missing(ImportError(name=name), extra)


def missing(error: ImportError, extra: str) -> ConfigError:
    """The error for a package of `extra` that could not be imported; names it and the way out."""
    return ConfigError(f"{error.name or error}: not installed; this needs the '{extra}' extra: {install(extra)}")


def install(extra: str = "") -> str:
    """The command that installs Isthmus with an extra: from the checkout that this is, or from a wheel."""
    chosen = f"[{extra}]" if extra else ""
    checkout = (Path(__file__).parents[3] / "pyproject.toml").is_file()
    return f"pip install -e '.{chosen}'" if checkout else f"pip install 'isthmus{chosen}'"
