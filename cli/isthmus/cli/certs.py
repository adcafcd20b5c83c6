"""`isthmus certs`: certificates for TLS in both directions."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import typer

from isthmus.cli.options import FORMAT, Format, missing, tell

app = typer.Typer(no_args_is_help=True, help="Certificates for TLS in both directions.")

CERTS = typer.Option(Path("certs"), "--certs", help="Folder made by `isthmus certs init`.")


@app.command("init")
def certs_init(
    folder: Path = typer.Argument(help="Where to put them; made if it is not there."),
    host: list[str] = typer.Option(["localhost", "127.0.0.1"], help="Names and addresses of the server; repeatable."),
    format_: Format = FORMAT,
) -> None:
    """Make a private authority, a server certificate and that of a first device, named `device`."""
    files = _security().init(folder, tuple(host))
    text = (
        f"{folder}/ca              signs further devices; it goes nowhere\n"
        f"{folder}/server          copy to the server:  isthmus serve --certs server\n"
        f"{folder}/devices/device  copy to a device:    isthmus agent --certs device\n"
        f"one more device: isthmus certs add-device NAME --certs {folder}"
    )
    tell(format_, text, files=files)


@app.command("add-device")
def certs_add_device(
    name: str = typer.Argument(help="Its client id: letters, digits, dots, dashes and underscores."),
    certs: Path = CERTS,
    format_: Format = FORMAT,
) -> None:
    """Make a certificate for one more device."""
    files = _security().add_device(certs, name)
    text = f"{files[0].parent}  copy to the device: isthmus agent --certs {name} --client-id {name}"
    tell(format_, text, files=files)


@app.command("add-balancer")
def certs_add_balancer(
    host: list[str] = typer.Option(["localhost", "127.0.0.1"], help="Names and addresses of the balancer; repeatable."),
    certs: Path = CERTS,
    format_: Format = FORMAT,
) -> None:
    """Make the certificate of a balancer that ends the devices' TLS; its key can speak for every device."""
    files = _security().add_balancer(certs, tuple(host))
    text = f"{files[0].parent}  copy to the balancer; docs/scale-out.md has its configuration"
    tell(format_, text, files=files)


@app.command("revoke")
def certs_revoke(
    name: str = typer.Argument(help="The device's name, as it was given to add-device."),
    certs: Path = CERTS,
    format_: Format = FORMAT,
) -> None:
    """Turn a device away, for good: its streams are closed, its certificate opens no more."""
    path = _security().revoke(certs, name)
    text = f"{path}  copy to the server's folder, which takes it up within two seconds"
    tell(format_, text, revoked=name, file=path)


def _security() -> ModuleType:
    try:
        from isthmus.edge_server import security
    except ImportError as error:
        raise missing(error, "server") from error
    return security
