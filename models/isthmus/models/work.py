"""How much work each stage of a head is, counted from its graph, and how long a profile says that it takes."""

from __future__ import annotations

from typing import NamedTuple

from isthmus.models import flatbuffer
from isthmus.models.bundle import Bundle
from isthmus.models.profiles import Profile, Threads
from isthmus.proto.errors import BundleError


class Work(NamedTuple):
    """Of one input: FLOPs, bytes that its operators read and write, operators."""

    flops: int
    traffic_bytes: int
    ops: int


def of_head(bundle: Bundle) -> dict[tuple[int, float], Work]:
    """The work of every (stage, width). Raises BundleError naming the signature that the head lacks."""
    signatures = flatbuffer.signatures(bundle.head_path)
    found = {}
    for i, stage in enumerate(bundle.manifest.stages):
        for s in stage:
            if s.signature not in signatures:
                raise BundleError(f"{bundle.head_path}: no signature '{s.signature}'; export the bundle again")
            operators = signatures[s.signature]
            traffic_bytes = sum(o.traffic_bytes for o in operators)
            found[i, s.width] = Work(sum(o.flops for o in operators), traffic_bytes, len(operators))
    return found


def stage_times(
    profile: Profile, bundle: Bundle, *, threads: Threads = "all", int8: bool = False
) -> tuple[tuple[float, ...], ...]:
    """[stage][width] in seconds: what `profile` takes for the head of `bundle`, widths ascending."""
    work = of_head(bundle)
    return tuple(
        tuple(
            profile.stage_s(w.flops, w.traffic_bytes, ops=w.ops, threads=threads, int8=int8)
            for w in (work[i, width] for width in sorted(bundle.manifest.widths))
        )
        for i in range(len(bundle.manifest.stages))
    )
