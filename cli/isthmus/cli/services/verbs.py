"""`isthmus service`: a half as a service of systemd's, put in, taken out, shown."""

from __future__ import annotations

from pathlib import Path

import typer

from isthmus.cli.options import FORMAT, INSECURE, Format, tell
from isthmus.cli.services import installation, units
from isthmus.cli.services.installation import Done
from isthmus.cli.services.units import Role

app = typer.Typer(no_args_is_help=True, help="A half as a service of systemd's: started at boot, watched, hardened.")

ROLE = typer.Argument(help="agent or server.")
ROOT = typer.Option(Path("/"), help="Write below this folder, as into an image of a card.")
REPLACE = typer.Option(False, "--replace", help="Also where the unit was edited; the edited one is kept beside it.")
PROGRAM = typer.Option(None, help="The `isthmus` that the unit starts [this one].")


@app.command()
def install(
    role: Role = ROLE,
    config_file: Path | None = typer.Option(None, "--config", "-c", help="Configuration to begin with [a small one]."),
    certs: str | None = typer.Option(None, "--certs", help="Folder of `isthmus certs` to take this half's part of."),
    insecure: bool | None = INSECURE,
    root: Path = ROOT,
    program: str | None = PROGRAM,
    replace: bool = REPLACE,
    format_: Format = FORMAT,
) -> None:
    """Write the unit, and configuration and certificates where there are none; it starts nothing."""
    started = program or installation.program()
    done = installation.install(
        role, root, program=started, given=config_file, certs=certs, insecure=bool(insecure), replace=replace
    )
    unit = units.name(role)
    following = [
        f"systemctl daemon-reload && systemctl enable --now {unit}",
        f"systemctl status {unit}; journalctl -u {unit}",
    ]
    _tell(done, "written", following, format_)


@app.command()
def uninstall(role: Role = ROLE, root: Path = ROOT, replace: bool = REPLACE, format_: Format = FORMAT) -> None:
    """Delete the unit; configuration, keys and records stay. An enabled one is refused."""
    _tell(installation.uninstall(role, root, replace=replace), "deleted", ["systemctl daemon-reload"], format_)


@app.command()
def show(
    role: Role = ROLE,
    certs: bool = typer.Option(True, "--certs/--no-certs", help="As with certificates, or without."),
    program: str | None = PROGRAM,
) -> None:
    """Print the unit that would be installed."""
    typer.echo(units.unit(role, program or "/opt/isthmus/bin/isthmus", certs=certs), nl=False)


def _tell(done: Done, what: str, following: list[str], format_: Format) -> None:
    """`following`: what to type next."""
    lines = [*(f"{what}: {path}" for path in done.written), *(f"left as it was: {path}" for path in done.left)]
    lines += [f"{'next:' if n == 0 else '     '} {line}" for n, line in enumerate(following)]
    facts = {what: done.written, "left": done.left, "notes": done.advice, "next": following}
    tell(format_, "\n".join(lines), **facts)
    for line in done.advice:
        typer.echo(f"note: {line}", err=True)
