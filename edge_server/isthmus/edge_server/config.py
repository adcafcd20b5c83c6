"""What a server can be told. `proto.config` reads it from a file, ISTHMUS_SERVER_* variables and flags."""

from __future__ import annotations

import msgspec

from isthmus.proto.monitoring.endpoint import address_of
from isthmus.proto.monitoring.spans import check_collector

LOOPBACK = ("localhost", "127.0.0.1", "::1")
DEFAULT_BUNDLE = "signs"
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

    bundle: str | None = None
    """Zoo name or folder of the bundle; none, nor `models`: signs."""
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
    traces: str | None = None
    """URL of an OpenTelemetry collector (OTLP over HTTP), or "env": what OTEL_EXPORTER_OTLP_ENDPOINT says."""
    traces_share: float = 1.0
    """Of all frames, the share whose traces are sent; both halves choose the same frames."""
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
    announce: bool = False
    """Say by mDNS in the local network that this server is there, for agents that discover."""
    models: str | None = None
    """A folder of bundles, DIR/NAME or DIR/NAME/VERSION, all of which are served, also those that come while it runs."""
    max_tails: int | None = None
    """Tails that are loaded at a time, of `models`; none: all."""
    workers: int | None = None
    """Batches that run at a time, of all bundles together; none: one for so many processors as a tail has threads."""
    push: bool = False
    """Take bundles from whoever reaches this server, in plaintext on loopback."""
    push_from: str | None = None
    """Names of certificates, with commas between them, that bundles are taken from."""
    stream_age_s: float | None = None
    """A device is asked to connect again after so long, give or take a fifth; None: never. For servers behind a balancer."""
    debug: bool = False
    """Offer gRPC reflection."""

    def __post_init__(self) -> None:
        if self.certs is not None and self.insecure:
            raise ValueError("insecure contradicts certs; drop one of them")
        self._check_repository()
        self._check_scale_out()
        _check_address("listen", self.listen)
        if self.metrics is not None:
            try:
                address_of(self.metrics)
            except ValueError as error:
                raise ValueError(f"metrics = {error}") from error
        check_collector(self.traces, self.traces_share)
        for key, (most, why) in MOST.items():
            if (value := getattr(self, key)) > most:
                raise ValueError(f"{key} = {value}, expected at most {most}: {why}")
        for key in ("threads", "max_batch", "credits", "max_streams", "max_tails", "workers"):
            if (value := getattr(self, key)) is not None and value < 1:
                raise ValueError(f"{key} = {value}, expected at least 1")
        for key in ("max_fps", "max_mbps"):
            if not 0 < (rate := getattr(self, key)) < float("inf"):
                raise ValueError(f"{key} = {rate}, expected more than 0")
        if not 0 <= self.grace_s <= 3600:
            raise ValueError(f"grace_s = {self.grace_s}, expected 0 to 3600 s")

    def _check_repository(self) -> None:
        if self.models is None:
            for key in ("max_tails", "push", "push_from"):
                if getattr(self, key):
                    raise ValueError(f"{key} goes with models; name a folder of bundles")
            return
        if self.bundle is not None:
            raise ValueError("bundle contradicts models; put the bundle into that folder")
        if self.push and (not self.insecure or split_address(self.listen)[0] not in LOOPBACK):
            raise ValueError(
                "push: only insecure, and on loopback, where nobody else comes; else --certs and push_from = NAME"
            )
        if self.push_from is not None and (self.certs is None or not self.pushers):
            raise ValueError("push_from: names certificates; give certs too, and at least one name")

    def _check_scale_out(self) -> None:
        if self.engine != RAY and (given := [key for key in ONLY_RAY if getattr(self, key) not in (None, 1)]):
            raise ValueError(f"{given[0]} is for engine = '{RAY}' only")
        if self.engine == RAY and self.models is not None:
            raise ValueError(f"engine = '{RAY}' serves one bundle; name it with bundle, not models")
        if self.replica_cpus is not None and not 0 < self.replica_cpus <= MOST["threads"][0]:
            raise ValueError(f"replica_cpus = {self.replica_cpus}, expected more than 0")
        if self.stream_age_s is not None and not LEAST_AGE_S <= self.stream_age_s <= MOST_AGE_S:
            raise ValueError(f"stream_age_s = {self.stream_age_s}, expected {LEAST_AGE_S:g} s to {MOST_AGE_S:g} s")

    @property
    def pushers(self) -> frozenset[str]:
        """The names in `push_from`."""
        return frozenset(name.strip() for name in (self.push_from or "").split(",") if name.strip())


def split_address(address: str) -> tuple[str, int]:
    """HOST and PORT of `HOST:PORT`; an IPv6 host stands in brackets."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _check_address(key: str, address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{key} = '{address}', expected HOST:PORT")
