"""`isthmus config`: what a role's file may say, whether one is right, and where each value comes from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import msgspec
import typer

from isthmus.cli.options import CONFIG, FORMAT, Format, missing, tell
from isthmus.device.capture.sources.address import public
from isthmus.device.config import AgentConfig
from isthmus.device.frigate.config import FrigateConfig
from isthmus.proto import config, quantities

app = typer.Typer(help="A role's configuration: checked, shown with its origins, as JSON Schema.", no_args_is_help=True)
Role = Literal["agent", "frigate", "server"]
ROLE = typer.Argument(help="agent, frigate or server.")


def _kind(role: Role) -> type[msgspec.Struct]:
    if role == "agent":
        return AgentConfig
    if role == "frigate":
        return FrigateConfig
    try:
        from isthmus.edge_server.config import ServerConfig
    except ImportError as error:
        raise missing(error, "server") from error
    return ServerConfig


def _resolved(role: Role, file: Path | None) -> tuple[msgspec.Struct, dict[str, str]]:
    return config.resolve(_kind(role), file, {}, prefix=f"ISTHMUS_{role.upper()}")


@app.command()
def check(role: Role = ROLE, file: Path = typer.Argument(help="The TOML file."), format_: Format = FORMAT) -> None:
    """Say whether a file, with the variables that are set, is right; what is wrong is named, with exit code 3."""
    _, origin = _resolved(role, file)
    tell(format_, f"{file}: {len(origin)} values of {role}, all right", file=file, role=role, values=len(origin))


@app.command()
def show(role: Role = ROLE, file: Path | None = CONFIG, format_: Format = FORMAT) -> None:
    """Show every value that holds, and where it comes from: a file, a variable, or the default. Passwords are left out."""
    found, origin = _resolved(role, file)
    rows = [(key, _shown(getattr(found, key)), origin.get(key, "default")) for key in found.__struct_fields__]
    if format_ == "json":
        typer.echo(json.dumps({key: {"value": value, "from": where} for key, value, where in rows}, indent=2))
        return
    wide = max(len(key) for key, _, _ in rows)
    for key, value, where in rows:
        typer.echo(f"{key:<{wide}}  {json.dumps(value):<24}  {where}")


def _shown(value: object) -> object:
    return public(value) if isinstance(value, str) else value


@app.command()
def schema(role: Role = ROLE) -> None:
    """Print the JSON Schema of a role's file, for editors that complete and check it."""
    typer.echo(json.dumps(_schema(_kind(role)), indent=2))


def _schema(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """What msgspec says of the struct, with text allowed where a quantity may have a unit."""
    made = msgspec.json.schema(kind)["$defs"][kind.__name__]
    for key, one in made["properties"].items():
        if quantities.unit_of(key) is not None:
            made["properties"][key] = {
                "anyOf": [one, {"type": "string", "examples": ["100ms"]}],
                "default": one["default"],
            }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}
