"""`isthmus certs`: certificates for TLS in both directions."""

from __future__ import annotations

from pathlib import Path

import typer

from isthmus.cli.options import missing

app = typer.Typer(no_args_is_help=True, help="Certificates for TLS in both directions.")


@app.command("init")
def certs_init(
    folder: Path = typer.Argument(help="Where to put them; made if it is not there."),
    host: list[str] = typer.Option(["localhost", "127.0.0.1"], help="Names and addresses of the server; repeatable."),
) -> None:
    """Make a private authority, a server certificate and a device certificate."""
    try:
        from isthmus.edge_server import security
    except ImportError as error:
        raise missing(error, "server") from error
    security.init(folder, tuple(host))
    typer.echo(
        f"{folder}: ca.pem, server.pem, server.key, device.pem, device.key\n"
        f"server: isthmus serve --certs {folder}    (needs ca.pem, server.pem, server.key)\n"
        f"device: isthmus agent --certs {folder}    (needs ca.pem, device.pem, device.key)"
    )
