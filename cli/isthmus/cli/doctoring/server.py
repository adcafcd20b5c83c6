"""The server: whether it can be reached and trusted, what it serves, and what the link to it can do."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isthmus.cli.doctoring.finding import Finding, failure, ok, warning
from isthmus.proto.operations import probe

if TYPE_CHECKING:
    from isthmus.device.config import AgentConfig

PATIENCE_S = 5.0
ROUND_TRIPS = 9
ENOUGH_S, MOST_CALLS = 0.25, 32
"""More is sent at once until it takes so long, or so much is under way: 2 MB."""


@dataclass(frozen=True)
class Described:
    """What a server says of itself."""

    server_id: str
    bundles: tuple[tuple[str, str], ...]
    """Names and sha256 of what it serves."""
    codec_version: int


@dataclass(frozen=True)
class Facts:
    """A server as it is seen from here."""

    address: str
    bundle: str
    """What this device would serve with it, and its sha256."""
    sha256: str
    codec_version: int
    deadline_s: float
    unreachable: str = ""
    refused: str = ""
    asked: bool = True
    """False where neither certificates nor plaintext were allowed: only whether it listens was looked at."""
    described: Described | None = None
    round_trip_s: float | None = None
    up_Bps: float | None = None
    down_Bps: float | None = None
    probed: bool = False
    """Whether the server knows the call that the link is measured by."""


def facts(config: AgentConfig, address: str) -> Facts:
    """Look at the server of this configuration. Raises BundleError, SecurityError."""
    from isthmus.models import bundle as bundles
    from isthmus.proto.codec import CODEC_VERSION

    bundle = bundles.load(config.bundle, half="head")
    seen: dict[str, Any] = {
        "address": address,
        "bundle": bundle.manifest.name,
        "sha256": bundle.sha256.hex(),
        "codec_version": CODEC_VERSION,
        "deadline_s": config.deadline_s,
    }
    if why := unreachable(address):
        return Facts(**seen, unreachable=why)
    if config.certs is None and not config.insecure:
        return Facts(**seen, asked=False)
    return Facts(**seen, **asyncio.run(_asked(config, address)))


def unreachable(address: str) -> str:
    """Why nothing listens there; '' where something does."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE_S):
            return ""
    except (OSError, ValueError) as error:
        return str(error)


async def _asked(config: AgentConfig, address: str) -> dict[str, Any]:
    import grpc.aio

    from isthmus.proto import edge_pb2, edge_pb2_grpc, security, wire

    options = wire.channel_options(wire.RESULT_ROOM_BYTES)
    if config.certs is None:
        channel = grpc.aio.insecure_channel(address, options=options)
    else:
        channel = grpc.aio.secure_channel(address, security.channel_credentials(config.certs), options=options)
    async with channel:
        try:
            said = await edge_pb2_grpc.EdgeStub(channel).Describe(edge_pb2.DescribeRequest(), timeout=PATIENCE_S)
        except grpc.aio.AioRpcError as error:
            return {"refused": f"{error.code().name.lower()}: {error.details()}"}
        # A server from before there were several says its one bundle only.
        served = [(b.name, b.sha256.hex()) for b in said.bundles] or [(said.bundle_name, said.bundle_sha256.hex())]
        described = Described(said.server_id, tuple(served), said.codec_version)
        call: Any = channel.unary_unary(probe.PATH)
        try:
            return {"described": described, "probed": True} | await measured(lambda r: call(r, timeout=60.0))
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return {"described": described}
            return {"described": described, "refused": f"{error.code().name.lower()}: {error.details()}"}


async def measured(call: Callable[[bytes], Awaitable[bytes]]) -> dict[str, float | None]:
    """The median round trip, and the goodput of each way; None where the round trip hides it."""
    trips = [await _took(call, 1, probe.WANTED_BYTES, 0) for _ in range(ROUND_TRIPS)]
    round_trip_s = sorted(trips)[ROUND_TRIPS // 2]
    return {
        "round_trip_s": round_trip_s,
        "up_Bps": await _goodput(call, round_trip_s, probe.MOST_BYTES, 0),
        "down_Bps": await _goodput(call, round_trip_s, probe.WANTED_BYTES, probe.MOST_BYTES),
    }


async def _goodput(
    call: Callable[[bytes], Awaitable[bytes]], round_trip_s: float, up_bytes: int, down_bytes: int
) -> float | None:
    """Send more and more at once; what is measured last counts."""
    calls = 1
    while True:
        took_s = await _took(call, calls, up_bytes, down_bytes)
        if took_s - round_trip_s >= ENOUGH_S or calls >= MOST_CALLS:
            return probe.goodput_Bps(calls * max(up_bytes, down_bytes), took_s, round_trip_s)
        calls *= 2


async def _took(call: Callable[[bytes], Awaitable[bytes]], calls: int, up_bytes: int, down_bytes: int) -> float:
    request, began_s = probe.request(up_bytes=up_bytes, down_bytes=down_bytes), time.perf_counter()
    await asyncio.gather(*(_awaited(call(request)) for _ in range(calls)))
    return time.perf_counter() - began_s


async def _awaited(reply: Awaitable[bytes]) -> bytes:
    """GRPC's calls can be awaited and are no coroutines."""
    return await reply


def findings(seen: Facts) -> list[Finding]:
    """Judge it."""
    what = f"server {seen.address}"
    if seen.unreachable:
        return [failure(what, seen.unreachable, "is `isthmus serve` running there, and --listen right?")]
    if not seen.asked:
        return [ok(what, "accepts connections; give --certs or --insecure to hear more")]
    if seen.described is None or seen.refused:
        return [failure(what, seen.refused, _hint(seen.refused))]
    found = [_bundle(what, seen, seen.described)]
    return found + (_link(what, seen) if seen.probed else [ok(what, "does not measure links; update it to be told")])


def _hint(refused: str) -> str:
    said = refused.lower()
    if "revoked" in said:
        return "make a certificate of another name with `isthmus certs add-device`"
    if "hostname" in said or "peer name" in said:
        return "its certificate does not name it so: `isthmus certs init --host` takes every name that devices use"
    if "expired" in said or "not yet valid" in said:
        return "set the clocks, or make new certificates"
    if "handshake" in said or "certificate" in said:
        return "the certificates of both halves must come from one `isthmus certs init`"
    return "does it speak TLS (--certs) where you speak plaintext (--insecure), or the other way round?"


def _bundle(what: str, seen: Facts, described: Described) -> Finding:
    served = ", ".join(f"{name} {sha256[:12]}" for name, sha256 in described.bundles if name)
    if (seen.bundle, seen.sha256) not in described.bundles:
        return failure(
            what,
            f"serves {served or 'no bundle yet'}, this device has {seen.bundle} {seen.sha256[:12]}",
            "give both halves the same bundle: copy its folder, or name it with --bundle",
        )
    if described.codec_version != seen.codec_version:
        return failure(
            what, f"codec version {described.codec_version}, here {seen.codec_version}", "update the older half"
        )
    if len(described.bundles) > 1:
        return ok(what, f"{described.server_id} serves {len(described.bundles)} bundles, this device's among them")
    return ok(what, f"{described.server_id} serves {served}, as this device")


def _link(what: str, seen: Facts) -> list[Finding]:
    if seen.round_trip_s is None:
        return []
    ways = f"{_rate(seen.up_Bps)} up, {_rate(seen.down_Bps)} down"
    link = f"round trip {seen.round_trip_s * 1000:.1f} ms; {ways}"
    if seen.round_trip_s >= seen.deadline_s:
        return [warning(what, f"{link}: no answer of it can come within {seen.deadline_s * 1000:.0f} ms",
                        "give a longer --deadline, or a nearer server; until then the device answers alone")]  # fmt: skip
    return [ok(what, link)]


def _rate(rate_Bps: float | None) -> str:
    if rate_Bps is None:
        return "too fast to tell"
    mbps = rate_Bps * 8e-6
    return f"{mbps:.0f} Mbit/s" if mbps >= 100 else f"{mbps:.3g} Mbit/s"
