"""Vocabulary to protobuf and back, and the channel settings that both ends of a stream must share.

Durations cross as whole microseconds, rounded down so that nobody believes he has more time than he has; no wall clock
crosses. What a peer sends is checked here for form; a payload's checksum is for whoever decodes it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError
from msgspec import Struct

from isthmus.proto import edge_pb2 as pb
from isthmus.proto.codec import MAX_LAYERS, CodecConfig
from isthmus.proto.errors import WireError
from isthmus.proto.messages import (
    Ack,
    Busy,
    Cancel,
    DeviceMessage,
    Drain,
    Heartbeat,
    Hello,
    Hint,
    Invalid,
    Late,
    Layer,
    Result,
    ServerHeartbeat,
    ServerMessage,
    Welcome,
)
from isthmus.proto.vocabulary import Load, ServerTimings

MAX_US = 2**32 - 1
"""The longest duration that a field holds, 71 minutes; no budget is as long."""
SHA256_BYTES = 32
NAME_CHARACTERS = 128
"""The longest name that a device may give itself or its bundle; a certificate's holds 64."""
LAYER_OVERHEAD_BYTES = 64
"""A `Layer` without its payload: every varint at its longest, tags and lengths."""
RESULT_ROOM_BYTES = 64 * 1024
"""Every other message fits: 16,000 logits, or any text."""
MAX_CREDITS = 65_536
"""No server can mean more frames in flight on one stream than this: at 1,000 frames a second, a minute of them."""
LONGEST_S = 60.0
"""The longest deadline there is, so that no server can have kept a frame that it answers for longer."""


def microseconds(duration_s: float) -> int:
    """Whole microseconds, rounded down (a nanosecond is forgiven) and clamped to 0..2^32 - 1 (71 minutes)."""
    if duration_s != duration_s:
        raise WireError("duration: not a number; a budget or time was never set")
    return int(min(max(duration_s * 1e6 + 1e-3, 0.0), MAX_US))


def _seconds(duration_us: int) -> float:
    return duration_us / 1e6


def max_message_bytes(config: CodecConfig) -> int:
    """The largest message that either half has reason to send."""
    return max(config.max_layer_bytes + LAYER_OVERHEAD_BYTES, RESULT_ROOM_BYTES)


def channel_options(max_message_bytes: int) -> list[tuple[str, int]]:
    """Settings of a device's gRPC channel: notice a dead link within about 4 s, then try again and again, never resend.

    `min_reconnect_backoff_ms` is gRPC's name for the time that one attempt to connect may take: below 3 s, TLS over a
    link of 0.7 s round trip never comes up.
    """
    return [
        *_shared_options(max_message_bytes),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 3000),
        ("grpc.max_reconnect_backoff_ms", 1000),
        ("grpc.enable_retries", 0),
    ]


def server_options(max_message_bytes: int) -> list[tuple[str, int]]:
    """Settings of a gRPC server: accept the devices' pings; refuse a port that another server holds.

    A connection that says nothing a server understands ends after 10 s, one without a stream after a minute.
    """
    return [
        *_shared_options(max_message_bytes),
        ("grpc.http2.min_ping_interval_without_data_ms", 1000),
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.so_reuseport", 0),
        ("grpc.server_handshake_timeout_ms", 10_000),
        ("grpc.max_connection_idle_ms", 60_000),
    ]


def _shared_options(max_message_bytes: int) -> list[tuple[str, int]]:
    return [
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.keepalive_time_ms", 2000),
        ("grpc.keepalive_timeout_ms", 2000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.ping_timeout_ms", 2000),
    ]


def to_device_pb(message: DeviceMessage) -> pb.DeviceMessage:
    """A device's message for the wire. Raises WireError on a number that its field cannot hold."""
    try:
        return _TO_DEVICE[type(message)](message)
    except ValueError as error:
        raise WireError(f"{type(message).__name__}: {error}") from error


def to_server_pb(message: ServerMessage) -> pb.ServerMessage:
    """A server's message for the wire. Raises WireError on a number that its field cannot hold."""
    try:
        filled = _TO_SERVER[type(message)](message)
        load = message.load
        filled.load.CopyFrom(
            pb.Load(queue=load.queue, wait_us=microseconds(load.wait_s), tail_us=microseconds(load.tail_s))
        )
    except ValueError as error:
        raise WireError(f"{type(message).__name__}: {error}") from error
    return filled


def from_device_pb(message: pb.DeviceMessage) -> DeviceMessage:
    """What a device said. Raises WireError on an empty or malformed message."""
    kind = message.WhichOneof("kind")
    if kind is None:
        raise WireError("device message: empty or of an unknown kind; compare the two halves' versions")
    read: Callable[[Any], DeviceMessage] = _FROM_DEVICE[kind]
    return read(getattr(message, kind))


def from_server_pb(message: pb.ServerMessage) -> ServerMessage:
    """What a server said. Raises WireError on an empty or malformed message."""
    kind = message.WhichOneof("kind")
    if kind is None:
        raise WireError("server message: empty or of an unknown kind; compare the two halves' versions")
    load = Load(message.load.queue, _seconds(message.load.wait_us), _seconds(message.load.tail_us))
    read: Callable[[Any, Load], ServerMessage] = _FROM_SERVER[kind]
    return read(getattr(message, kind), load)


class Expected(Struct, frozen=True):
    """What a server's messages must fit: the bundle that both halves have agreed on."""

    layers: int = MAX_LAYERS
    """Layers that a frame may have."""
    max_layer_bytes: int = 0
    """The bundle's largest payload, which the server must be ready to take."""


def read_server(raw: bytes, expected: Expected) -> ServerMessage:
    """What a server said, checked against `expected`: nothing that a server sends costs more than the frame it is about.

    A result that does not fit comes as the Invalid of its frame. Raises WireError on whatever else cannot be meant.
    """
    try:
        message = pb.ServerMessage.FromString(raw)
    except DecodeError as error:
        raise WireError(
            f"server message: {len(raw)} bytes that are no message; compare the two halves' versions"
        ) from error
    return _fitting(from_server_pb(message), expected)


def _fitting(message: ServerMessage, expected: Expected) -> ServerMessage:
    match message:
        case Result() if wrong := _wrong(message, expected):
            return Invalid(message.frame_id, 0, f"result: {wrong}", message.load)
        case Ack(layer=layer) | Invalid(layer=layer) if layer >= expected.layers:
            raise WireError(f"layer {layer}: this bundle has {expected.layers}")
        case Welcome() if not 1 <= message.credits <= MAX_CREDITS:
            raise WireError(f"welcome: {message.credits} credits, expected 1 to {MAX_CREDITS}")
        case Welcome() if message.max_layer_bytes < expected.max_layer_bytes:
            raise WireError(
                f"welcome: takes layers of {message.max_layer_bytes} bytes, this bundle's have up to {expected.max_layer_bytes}"
            )
    return message


def _wrong(m: Result, expected: Expected) -> str:
    """What is wrong with a result, as far as its form shows; whether its outputs are an answer, their task knows."""
    if not 1 <= m.layers_used <= expected.layers:
        return f"of {m.layers_used} layers, this bundle has {expected.layers}"
    if m.timings.total_s > LONGEST_S:
        return f"says it took {m.timings.total_s:.0f} s, no frame may take more than {LONGEST_S:.0f}"
    if not isinstance(m.outputs, bytes) and not all(map(math.isfinite, m.outputs)):
        return "numbers that are not finite; its tail is damaged"
    return ""


def _layer_to_pb(m: Layer) -> pb.DeviceMessage:
    layer = pb.Layer(
        frame=m.frame_id,
        layer=m.layer,
        last=m.last,
        budget_us=microseconds(m.budget_s),
        tail=m.tail,
        reference=0 if m.reference is None else m.reference + 1,
        crc=m.crc,
        payload=m.payload,
    )
    return pb.DeviceMessage(layer=layer)


def _layer_from_pb(m: pb.Layer) -> Layer:
    return Layer(
        frame_id=m.frame,
        layer=_layer_index(m.layer),
        last=m.last,
        budget_s=_seconds(m.budget_us),
        payload=m.payload,
        crc=m.crc,
        tail=m.tail,
        reference=m.reference - 1 if m.reference else None,
    )


def _layer_index(layer: int) -> int:
    if layer >= MAX_LAYERS:
        raise WireError(f"layer {layer}: there are {MAX_LAYERS} at most; compare the two halves' versions")
    return layer


def _hello_to_pb(m: Hello) -> pb.DeviceMessage:
    hello = pb.Hello(
        bundle_sha256=m.bundle_sha256,
        codec_version=m.codec_version,
        client_id=m.client_id,
        bundle_name=m.bundle_name,
    )
    return pb.DeviceMessage(hello=hello)


def _hello_from_pb(m: pb.Hello) -> Hello:
    if len(m.bundle_sha256) != SHA256_BYTES:
        raise WireError(f"hello: a bundle hash of {len(m.bundle_sha256)} bytes, SHA-256 has {SHA256_BYTES}")
    for name, value in (("client id", m.client_id), ("bundle name", m.bundle_name)):
        if len(value) > NAME_CHARACTERS:
            raise WireError(f"hello: a {name} of {len(value)} characters, at most {NAME_CHARACTERS} are welcome")
    return Hello(m.bundle_name, m.bundle_sha256, m.codec_version, m.client_id)


def _result_to_pb(m: Result) -> pb.ServerMessage:
    result = pb.Result(
        frame=m.frame_id,
        layers_used=m.layers_used,
        outputs=() if isinstance(m.outputs, bytes) else m.outputs,
        packed=m.outputs if isinstance(m.outputs, bytes) else b"",
        receive_us=microseconds(m.timings.receive_s),
        queue_us=microseconds(m.timings.queue_s),
        tail_us=microseconds(m.timings.tail_s),
        send_us=microseconds(m.timings.send_s),
    )
    return pb.ServerMessage(result=result)


def _result_from_pb(m: pb.Result, load: Load) -> Result:
    timings = ServerTimings(*map(_seconds, (m.receive_us, m.queue_us, m.tail_us, m.send_us)))
    return Result(m.frame, m.layers_used, m.packed or tuple(m.outputs), timings, load)


def _welcome_to_pb(m: Welcome) -> pb.ServerMessage:
    welcome = pb.Welcome(
        server_id=m.server_id, credits=m.credits, max_layer_bytes=m.max_layer_bytes, references=m.references
    )
    return pb.ServerMessage(welcome=welcome)


def _busy_to_pb(m: Busy) -> pb.ServerMessage:
    hint = pb.Busy.Hint.Name(m.hint.value)
    return pb.ServerMessage(busy=pb.Busy(frame=m.frame_id, retry_us=microseconds(m.retry_s), hint=hint))


def _busy_from_pb(m: pb.Busy, load: Load) -> Busy:
    try:
        hint = Hint(m.hint)
    except ValueError as error:
        raise WireError(f"busy: hint {m.hint} unknown; compare the two halves' versions") from error
    return Busy(m.frame, _seconds(m.retry_us), hint, load)


# One line for each kind of message and direction. The key fixes the type that the function is given.
_TO_DEVICE: dict[type, Callable[[Any], pb.DeviceMessage]] = {
    Hello: _hello_to_pb,
    Layer: _layer_to_pb,
    Cancel: lambda m: pb.DeviceMessage(cancel=pb.Cancel(frame=m.frame_id)),
    Heartbeat: lambda m: pb.DeviceMessage(heartbeat=pb.Heartbeat(sequence=m.sequence)),
}
_FROM_DEVICE: dict[str, Callable[[Any], DeviceMessage]] = {
    "hello": _hello_from_pb,
    "layer": _layer_from_pb,
    "cancel": lambda m: Cancel(m.frame),
    "heartbeat": lambda m: Heartbeat(m.sequence),
}
_TO_SERVER: dict[type, Callable[[Any], pb.ServerMessage]] = {
    Welcome: _welcome_to_pb,
    Ack: lambda m: pb.ServerMessage(ack=pb.Ack(frame=m.frame_id, layer=m.layer)),
    Result: _result_to_pb,
    Late: lambda m: pb.ServerMessage(late=pb.Late(frame=m.frame_id)),
    Busy: _busy_to_pb,
    Invalid: lambda m: pb.ServerMessage(invalid=pb.Invalid(frame=m.frame_id, layer=m.layer, why=m.why)),
    Drain: lambda m: pb.ServerMessage(drain=pb.Drain(grace_us=microseconds(m.grace_s))),
    ServerHeartbeat: lambda m: pb.ServerMessage(heartbeat=pb.Heartbeat(sequence=m.sequence)),
}
_FROM_SERVER: dict[str, Callable[[Any, Load], ServerMessage]] = {
    "welcome": lambda m, load: Welcome(m.server_id, m.credits, m.max_layer_bytes, load, m.references),
    "ack": lambda m, load: Ack(m.frame, _layer_index(m.layer), load),
    "result": _result_from_pb,
    "late": lambda m, load: Late(m.frame, load),
    "busy": _busy_from_pb,
    "invalid": lambda m, load: Invalid(m.frame, _layer_index(m.layer), m.why, load),
    "drain": lambda m, load: Drain(_seconds(m.grace_us), load),
    "heartbeat": lambda m, load: ServerHeartbeat(m.sequence, load),
}
