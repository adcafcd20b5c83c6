"""Mutual TLS from one folder of PEM files: `isthmus certs init` writes it, each half reads its own part."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import grpc

from isthmus.proto.errors import SecurityError

CA, CA_KEY = "ca.pem", "ca.key"
SERVER, SERVER_KEY = "server.pem", "server.key"
DEVICE, DEVICE_KEY = "device.pem", "device.key"

Half = Literal["server", "device"]
FILES: dict[Half, tuple[str, str, str]] = {"server": (CA, SERVER, SERVER_KEY), "device": (CA, DEVICE, DEVICE_KEY)}


def server_credentials(folder: str | Path) -> grpc.ServerCredentials:
    """A server's side: only devices with a certificate of the same authority get in. Raises SecurityError."""
    authority, certificate, key = read(folder, "server")
    return grpc.ssl_server_credentials([(key, certificate)], authority, require_client_auth=True)


def channel_credentials(folder: str | Path) -> grpc.ChannelCredentials:
    """A device's side: it trusts servers of the same authority only. Raises SecurityError."""
    authority, certificate, key = read(folder, "device")
    return grpc.ssl_channel_credentials(authority, key, certificate)


def read(folder: str | Path, half: Half) -> tuple[bytes, bytes, bytes]:
    """A half's authority, certificate and key, as PEM. Raises SecurityError that names the file."""
    authority, certificate, key = _read(folder, *FILES[half])
    return authority, certificate, key


def _read(folder: str | Path, *names: str) -> list[bytes]:
    files = []
    for path in (Path(folder) / name for name in names):
        try:
            files.append(path.read_bytes())
        except OSError as error:
            raise SecurityError(
                f"{path}: {error.strerror}; `isthmus certs init` makes {', '.join(names)}, copy all of them"
            ) from error
    return files
