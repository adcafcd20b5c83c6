"""`isthmus models push`: a bundle into the repository of a server that runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import grpc
import typer

from isthmus.cli.options import FORMAT, Format, tell
from isthmus.models import bundle, seal
from isthmus.models.bundle import Bundle
from isthmus.proto import edge_pb2, edge_pb2_grpc, wire
from isthmus.proto.errors import (
    BundleError,
    ConfigError,
    DataError,
    HandshakeError,
    IsthmusError,
    SecurityError,
    WireError,
)
from isthmus.proto.printable import printable
from isthmus.proto.security import channel_credentials

T = TypeVar("T")

CHUNK_BYTES = 256 << 10
MOST_MESSAGE_BYTES = 1 << 20
ERRORS: dict[grpc.StatusCode, type[IsthmusError]] = {
    grpc.StatusCode.PERMISSION_DENIED: SecurityError,
    grpc.StatusCode.INVALID_ARGUMENT: WireError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: DataError,
    grpc.StatusCode.FAILED_PRECONDITION: BundleError,
}
"""What a server's refusal is here; anything else is a HandshakeError."""


CERTS = typer.Option(None, help="Folder of a device's certificate; for a push, of one that --push-from names.")
PLAINTEXT = typer.Option(False, "--insecure", help="Plaintext instead of TLS.")


def push(
    name: str = typer.Argument(metavar="BUNDLE", help="A bundle of the zoo, or a folder."),
    server: str = typer.Argument(help="HOST:PORT of a server that was started with --models and --push-from."),
    certs: Path | None = CERTS,
    insecure: bool = PLAINTEXT,
    version: str | None = typer.Option(None, help="Its version there [the first 12 digits of its hash]."),
    format_: Format = FORMAT,
) -> None:
    """Send a bundle to a server, which serves it from then on; devices with an older one keep that."""
    found = bundle.load(name)
    version = version or found.sha256.hex()[:12]
    pushed = asked(server, certs, insecure, lambda stub: stub.Push(messages(found, version)))
    where = f"{printable(pushed.name)} {printable(pushed.version)}".rstrip()
    text = f"{server}: {where} {'was served already' if pushed.already else 'is served'}; {found.sha256.hex()[:12]}"
    told = {"name": pushed.name, "version": pushed.version, "sha256": found.sha256.hex()}
    tell(format_, text, server=server, **told, already=pushed.already)


def asked(server: str, certs: Path | None, insecure: bool, ask: Callable[[edge_pb2_grpc.EdgeStub], T]) -> T:
    """What a server answers. Raises ConfigError, SecurityError, and what its refusal is here."""
    if (certs is None) is not insecure:
        raise ConfigError(f"{server}: neither certificates nor plaintext, or both; give --certs FOLDER, or --insecure")
    options = wire.channel_options(MOST_MESSAGE_BYTES)
    channel = (
        grpc.insecure_channel(server, options)
        if certs is None
        else grpc.secure_channel(server, channel_credentials(certs), options)
    )
    try:
        with channel:
            return ask(edge_pb2_grpc.EdgeStub(channel))
    except grpc.RpcError as error:
        raise _refusal(server, error) from error


def messages(found: Bundle, version: str) -> Iterator[edge_pb2.PushMessage]:
    """What is said of a bundle, then the bytes of `bundle.toml` and of every file that it names."""
    paths = [found.folder / file for file in (seal.FILE, *found.manifest.files)]
    files = [edge_pb2.PushFile(name=path.name, size_bytes=path.stat().st_size) for path in paths]
    begin = edge_pb2.PushBegin(name=found.manifest.name, version=version, sha256=found.sha256, files=files)
    yield edge_pb2.PushMessage(begin=begin)
    for path in paths:
        with path.open("rb") as file:
            while data := file.read(CHUNK_BYTES):
                yield edge_pb2.PushMessage(data=data)


def _refusal(server: str, error: grpc.RpcError) -> IsthmusError:
    code, said = error.code(), printable(error.details() or "", 500)
    if code in ERRORS:
        return ERRORS[code](f"{server}: {said}")
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return HandshakeError(f"{server}: its Isthmus is older and takes no pushes; install the newer one there")
    way_out = "is `isthmus serve` running there, and do the certificates fit?"
    return HandshakeError(f"{server}: {code.name.lower()} ({said}); {way_out}")
