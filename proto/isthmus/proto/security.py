"""Mutual TLS from folders of PEM files: `isthmus certs` writes them, each half reads its own part."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import grpc

from isthmus.proto.errors import SecurityError

CA, CA_KEY = "ca.pem", "ca.key"
SERVER, SERVER_KEY = "server.pem", "server.key"
DEVICE, DEVICE_KEY = "device.pem", "device.key"
FIRST_DEVICE = "device"
"""The name in the certificate that `isthmus certs init` makes for a first device: an agent's client id by default."""
SHARED_NAME = "isthmus device"
"""The name in the certificate that all devices of an older `isthmus certs init` share; it says of none who it is."""
BALANCER, BALANCER_NAME = "balancer.pem", "isthmus balancer"
"""A balancer's certificate and key, in one file; and the name in it, which a server believes what `BALANCED` says."""
BALANCED = "x-isthmus-device"
"""The header in which a balancer that ends a device's TLS says the name in that device's certificate."""

Half = Literal["server", "device"]
FILES: dict[Half, tuple[str, str, str]] = {"server": (CA, SERVER, SERVER_KEY), "device": (CA, DEVICE, DEVICE_KEY)}
PLACES: dict[Half, str] = {"server": "server", "device": f"devices/{FIRST_DEVICE}"}
"""Where a folder of both halves keeps what each needs."""


def part(folder: str | Path, half: Half) -> Path:
    """The folder with a half's files: `folder` itself, or its part for this half where it holds those of both."""
    folder = Path(folder)
    inner = folder / PLACES[half]
    return inner if inner.is_dir() and not (folder / FILES[half][1]).exists() else folder


def read(folder: str | Path, half: Half) -> tuple[bytes, bytes, bytes]:
    """A half's authority, certificate and key, as PEM. Raises SecurityError that names the file."""
    authority, certificate, key = (_read(part(folder, half) / name, half) for name in FILES[half])
    return authority, certificate, key


def channel_credentials(folder: str | Path) -> grpc.ChannelCredentials:
    """A device's side: it trusts servers of the same authority only. Raises SecurityError."""
    authority, certificate, key = read(folder, "device")
    return grpc.ssl_channel_credentials(authority, key, certificate)


def _read(path: Path, half: Half) -> bytes:
    try:
        return path.read_bytes()
    except PermissionError as error:
        raise SecurityError(f"{path}: {error.strerror}; let the user or group of this process read it") from error
    except OSError as error:
        needed = ", ".join(FILES[half])
        raise SecurityError(f"{path}: {error.strerror}; `isthmus certs` makes {needed}, copy all of them") from error
