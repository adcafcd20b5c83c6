"""Mutual TLS from one folder of PEM files: `isthmus certs init` writes it, each half reads its own part."""

from __future__ import annotations

from pathlib import Path

import grpc

from isthmus.proto.errors import SecurityError

CA, CA_KEY = "ca.pem", "ca.key"
SERVER, SERVER_KEY = "server.pem", "server.key"
DEVICE, DEVICE_KEY = "device.pem", "device.key"
SHARED_NAME = "isthmus device"
"""The name in the certificate that all devices of an older `isthmus certs init` share; it says of none who it is."""


def server_credentials(folder: str | Path) -> grpc.ServerCredentials:
    """A server's side: only devices with a certificate of the same authority get in. Raises SecurityError."""
    authority, certificate, key = _read(folder, CA, SERVER, SERVER_KEY)
    return grpc.ssl_server_credentials([(key, certificate)], authority, require_client_auth=True)


def channel_credentials(folder: str | Path) -> grpc.ChannelCredentials:
    """A device's side: it trusts servers of the same authority only. Raises SecurityError."""
    authority, certificate, key = _read(folder, CA, DEVICE, DEVICE_KEY)
    return grpc.ssl_channel_credentials(authority, key, certificate)


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
