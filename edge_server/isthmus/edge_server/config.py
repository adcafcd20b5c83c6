"""What a server can be told. `proto.config` reads it from a file, ISTHMUS_SERVER_* variables and flags."""

from __future__ import annotations

import msgspec

from isthmus.proto.monitoring.endpoint import address_of

MOST = {
    "threads": (256, "every one of them is started, and the process dies where the system gives no more"),
    "max_batch": (1024, "a batch of this size is timed, and its memory taken, before the server is ready"),
}
"""The most of some keys, and why."""


class ServerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything a server can be told."""

    bundle: str = "signs"
    listen: str = "127.0.0.1:50551"
    """HOST:PORT; port 0 takes a free one."""
    certs: str | None = None
    """Folder of ca.pem, server.pem and server.key; devices must then show a certificate of the same authority.

    The names in its revoked.txt, one a line, are turned away.
    """
    insecure: bool = False
    """Serve in plaintext to whoever connects."""
    metrics: str | None = None
    """HOST:PORT of /metrics, /healthz and /readyz; a port alone is for this machine."""
    engine: str = "onnx"
    threads: int = 1
    """Threads of the tail."""
    max_batch: int = 8
    credits: int = 8
    """Frames that one device may have in flight."""
    max_streams: int = 64
    """Devices served at a time."""
    max_fps: float = 1000.0
    """Frames that one device may send in a second; more are answered busy."""
    max_mbps: float = 200.0
    """Mbit/s that are read of one device."""
    grace_s: float = 5.0
    """How long a stopping server still answers what is in flight."""
    debug: bool = False
    """Offer gRPC reflection."""

    def __post_init__(self) -> None:
        if self.certs is not None and self.insecure:
            raise ValueError("insecure contradicts certs; drop one of them")
        _check_address("listen", self.listen)
        if self.metrics is not None:
            try:
                address_of(self.metrics)
            except ValueError as error:
                raise ValueError(f"metrics = {error}") from error
        for key, (most, why) in MOST.items():
            if (value := getattr(self, key)) > most:
                raise ValueError(f"{key} = {value}, expected at most {most}: {why}")
        for key in ("threads", "max_batch", "credits", "max_streams"):
            if (value := getattr(self, key)) < 1:
                raise ValueError(f"{key} = {value}, expected at least 1")
        for key in ("max_fps", "max_mbps"):
            if not 0 < (rate := getattr(self, key)) < float("inf"):
                raise ValueError(f"{key} = {rate}, expected more than 0")
        if not 0 <= self.grace_s <= 3600:
            raise ValueError(f"grace_s = {self.grace_s}, expected 0 to 3600 s")


def split_address(address: str) -> tuple[str, int]:
    """HOST and PORT of `HOST:PORT`; an IPv6 host stands in brackets."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _check_address(key: str, address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{key} = '{address}', expected HOST:PORT")
