"""What a server can be told. `proto.config` reads it from a file, ISTHMUS_SERVER_* variables and flags."""

from __future__ import annotations

import msgspec

MOST = {
    "threads": (256, "every one of them is started, and the process dies where the system gives no more"),
    "max_batch": (1024, "a batch of this size is timed, and its memory taken, before the server is ready"),
}
"""The most of some keys, and why."""
RAY = "ray"
"""The engine that is no engine of this process."""
ONLY_RAY = ("replicas", "ray", "replica_cpus")
LEAST_AGE_S, MOST_AGE_S = 1.0, 7 * 86_400.0
"""A stream that moves on costs its device half a second without the server: more often than each second there is none left."""


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
    """HOST:PORT of the Prometheus page."""
    engine: str = "onnx"
    """What runs the parts of a tail that are ONNX, here; or "ray": whole tails, on a cluster."""
    threads: int = 1
    """Threads of the tail."""
    replicas: int | str = 1
    """Tails that Ray runs: a number, or "1-4" for as many as the load asks for."""
    ray: str | None = None
    """The address of a Ray cluster, such as "auto" for this machine's; None starts one that ends with the server."""
    replica_cpus: float | None = None
    """Processors that Ray sets aside for each tail; None: as many as it has threads."""
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
    stream_age_s: float | None = None
    """A device is asked to connect again after so long, give or take a fifth; None: never. For servers behind a balancer."""
    debug: bool = False
    """Offer gRPC reflection."""

    def __post_init__(self) -> None:
        if self.certs is not None and self.insecure:
            raise ValueError("insecure contradicts certs; drop one of them")
        if self.engine != RAY and (given := [key for key in ONLY_RAY if getattr(self, key) not in (None, 1)]):
            raise ValueError(f"{given[0]} is for engine = '{RAY}' only")
        if self.replica_cpus is not None and not 0 < self.replica_cpus <= MOST["threads"][0]:
            raise ValueError(f"replica_cpus = {self.replica_cpus}, expected more than 0")
        for key in ("listen", "metrics"):
            if (address := getattr(self, key)) is not None:
                _check_address(key, address)
        for key, (most, why) in MOST.items():
            if (value := getattr(self, key)) > most:
                raise ValueError(f"{key} = {value}, expected at most {most}: {why}")
        for key in ("threads", "max_batch", "credits", "max_streams"):
            if (value := getattr(self, key)) < 1:
                raise ValueError(f"{key} = {value}, expected at least 1")
        for key in ("max_fps", "max_mbps"):
            if not 0 < (rate := getattr(self, key)) < float("inf"):
                raise ValueError(f"{key} = {rate}, expected more than 0")
        if self.stream_age_s is not None and not LEAST_AGE_S <= self.stream_age_s <= MOST_AGE_S:
            raise ValueError(f"stream_age_s = {self.stream_age_s}, expected {LEAST_AGE_S:g} s to {MOST_AGE_S:g} s")
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
