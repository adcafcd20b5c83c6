"""What the two halves say to each other, as frozen data; `wire` turns it into protobuf and back.

Budgets and durations only: no wall clock ever crosses.
"""

from __future__ import annotations

import enum

from msgspec import Struct

from isthmus.proto.vocabulary import Load, ServerTimings


class Hello(Struct, frozen=True):
    """A device introduces itself: first message of a stream."""

    bundle_name: str
    bundle_sha256: bytes
    codec_version: int
    client_id: str


class Layer(Struct, frozen=True):
    """One refinement layer of one frame's features. `reference` is the frame coded against, None = intra.

    A layer with a reference stands for the base and as many refinements as its payload says; it is a frame's only one.

    `budget_s` is what the server has from the layer's arrival until its answer must have left: the device, which knows its
    link, has taken the way to the server and back off already.
    """

    frame_id: int
    layer: int
    last: bool
    budget_s: float
    payload: bytes
    crc: int
    tail: int = 0
    reference: int | None = None


class Cancel(Struct, frozen=True):
    """The device no longer needs an answer to this frame."""

    frame_id: int


class Heartbeat(Struct, frozen=True):
    """Proof of life, echoed by the server with the same sequence number."""

    sequence: int


DeviceMessage = Hello | Layer | Cancel | Heartbeat


class Welcome(Struct, frozen=True):
    """The server takes the device on. `credits` frames may be in flight."""

    server_id: str
    credits: int
    max_layer_bytes: int
    load: Load = Load()
    references: int = 0
    """How many of the stream's newest frames the server holds, to code others against; 0: it decodes intra frames only."""


class Ack(Struct, frozen=True):
    """A layer arrived whole."""

    frame_id: int
    layer: int
    load: Load = Load()


class Result(Struct, frozen=True):
    """What the tail gave for a frame, packed by the bundle's task (`tasks`)."""

    frame_id: int
    layers_used: int
    outputs: tuple[float, ...] | bytes
    timings: ServerTimings
    load: Load = Load()


class Late(Struct, frozen=True):
    """The frame could no longer finish in its budget and was not computed."""

    frame_id: int
    load: Load = Load()


class Hint(enum.Enum):
    """What would make a refused frame welcome."""

    NONE = 0
    NARROWER = 1
    EARLIER_EXIT = 2


class Busy(Struct, frozen=True):
    """The frame was not admitted; `retry_s` from now it is worth trying again."""

    frame_id: int
    retry_s: float
    hint: Hint = Hint.NONE
    load: Load = Load()


class Invalid(Struct, frozen=True):
    """A layer could not be decoded; only that layer is lost."""

    frame_id: int
    layer: int
    why: str
    load: Load = Load()


class Drain(Struct, frozen=True):
    """The server will stop: no new frames; those in flight are answered within `grace_s`."""

    grace_s: float
    load: Load = Load()


class ServerHeartbeat(Struct, frozen=True):
    """The echo of a device's heartbeat."""

    sequence: int
    load: Load = Load()


ServerMessage = Welcome | Ack | Result | Late | Busy | Invalid | Drain | ServerHeartbeat
