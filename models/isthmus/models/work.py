"""The work of each stage of a head, counted from its graph, and the time that a profile says it takes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from isthmus.models.bundle import Bundle
from isthmus.models.profiles import Profile, Threads
from isthmus.proto.errors import BundleError

if TYPE_CHECKING:
    from isthmus.models.flatbuffer import Signature


class Work(NamedTuple):
    """The work of one frame: FLOPs, bytes that its operators and the executor read and write, operators."""

    flops: int
    traffic_bytes: int
    ops: int
    int8: bool
    """Whether most of the FLOPs are on int8 tensors."""


def of_head(bundle: Bundle) -> dict[tuple[int, float], Work]:
    """The work of every (stage, width). Raises BundleError naming the signature that the head lacks."""
    from isthmus.models import flatbuffer  # reports need no graphs, and not every runtime brings the means to read them

    signatures = flatbuffer.signatures(bundle.head_path)
    found = {}
    for i, stage in enumerate(bundle.manifest.stages):
        for s in stage:
            if not s.signature:
                found[i, s.width] = _of_picture(bundle)
                continue
            if s.signature not in signatures:
                raise BundleError(f"{bundle.head_path}: no signature '{s.signature}'; export the bundle again")
            found[i, s.width] = _work(signatures[s.signature])
    return found


CODING_FLOPS = {"webp": 2700, "jpeg": 85}
"""A pixel: what its coder takes, as operations of a convolutional network that takes as long on the same x86 core (416 x 416
pixels of WebP 14.4 ms, of JPEG 0.44 ms; FastestDet, 246 MFLOP, 7.7 ms)."""


def _of_picture(bundle: Bundle) -> Work:
    """The work of making the picture small enough; it is coded only when it is sent."""
    picture = bundle.manifest.picture
    return _resizing(0 if picture is None else math.prod(picture.crossing.shape))


def _resizing(pixels: int) -> Work:
    return Work(0, 2 * 3 * pixels, 1, False)


def coding_s(profile: Profile, bundle: Bundle) -> float:
    """Seconds that `profile` takes to code a picture that is sent, on one thread; 0 where none crosses."""
    picture = bundle.manifest.picture
    return 0.0 if picture is None else coding_of(profile, picture.crossing.shape, picture.format)


def coding_of(profile: Profile, shape: tuple[int, int], format_: str) -> float:
    """The same for a picture of (height, width) in a format."""
    pixels = math.prod(shape)
    return _seconds(profile, Work(CODING_FLOPS[format_] * pixels, 2 * 3 * pixels, 1, False), "one")


def resizing_s(profile: Profile, shape: tuple[int, int]) -> float:
    """Seconds that `profile` takes to make a picture of (height, width) of a larger one."""
    return _seconds(profile, _resizing(math.prod(shape)), "all")


FLOW_FLOPS, FLOW_BYTES = 50_000_000, 1_000_000
"""Following one or two boxes from one picture of 320 x 256 to the next: operations of a convolutional network that takes as
long on the same x86 core (0.8 ms for one box, 0.5 for each more; 122 MFLOP of a head 2.5 ms), and bytes of two pyramids."""


def flow_s(profile: Profile) -> float:
    """Seconds that `profile` takes on one thread to follow boxes from one picture to the next."""
    return profile.stage_s(FLOW_FLOPS, FLOW_BYTES, ops=1, threads="one", int8=False)


def _work(s: Signature) -> Work:
    flops = sum(o.flops for o in s.operators)
    in_int8 = sum(o.flops for o in s.operators if o.inputs and s.tensors[o.inputs[0]].dtype == "int8")
    traffic_bytes = sum(o.traffic_bytes for o in s.operators)
    # What goes in and what comes out is copied; a picture is bytes before it is floats.
    traffic_bytes += 2 * sum(t.size_bytes for t in (*s.inputs.values(), *s.outputs.values()))
    if "image" in s.inputs:
        traffic_bytes += s.inputs["image"].size_bytes + s.inputs["image"].elements
    return Work(flops, traffic_bytes, len(s.operators), 2 * in_int8 > flops)


def signature_s(profile: Profile, signature: Signature, *, threads: Threads = "all") -> float:
    """Seconds that `profile` takes for one call of a signature."""
    return _seconds(profile, _work(signature), threads)


def _seconds(profile: Profile, w: Work, threads: Threads, *, int8: bool = False) -> float:
    return profile.stage_s(w.flops, w.traffic_bytes, ops=w.ops, threads=threads, int8=int8 or w.int8)


def stage_times(
    profile: Profile, bundle: Bundle, *, threads: Threads = "all", int8: bool = False
) -> tuple[tuple[float, ...], ...]:
    """[stage][width] in seconds: what `profile` takes for the head of `bundle`, widths ascending.

    `int8` takes it as if it were quantised, which an int8 head is anyway.
    """
    work = of_head(bundle)
    return tuple(
        tuple(_seconds(profile, work[i, width], threads, int8=int8) for width in sorted(bundle.manifest.widths))
        for i in range(len(bundle.manifest.stages))
    )
