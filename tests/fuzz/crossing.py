"""What crosses between the halves, as a target of the search: bytes in; a value whose form is checked, or an IsthmusError.

Imports are within the functions: only what is under test is watched, and only it is paid for.
"""

from __future__ import annotations

import contextlib
import math
import struct
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np

from isthmus.proto.errors import IsthmusError

# --- codec ---


@cache
def _codecs() -> list[Any]:
    """Static, static of five layers, zstd, spectral: every backend and both packings."""
    from isthmus.models import bundle
    from isthmus.proto.codec import Codec, fit

    rng = np.random.default_rng(0)

    def fitted(*shape: int, layers: int = 2) -> Any:
        samples = rng.normal(size=(16, *shape)).astype(np.float32)
        return Codec(fit(samples, (0.0,) * shape[-1], (0.5, 1.0), layers=layers))

    shipped = [Codec(bundle.load(name, half="head").codec) for name in ("signs", "cifar10")]
    return [*shipped, fitted(4, 4, 8), fitted(6, 6, 3, layers=5), fitted(40, 40, 24), _spectral()]


def _spectral() -> Any:
    from isthmus.proto.bits.spectrum import Spectrum
    from isthmus.proto.codec import Codec, fit

    shape, steps = (4, 4, 3), (0.25, 1.0)
    samples = np.random.default_rng(1).normal(size=(32, *shape)).astype(np.float32)
    spectrum = Spectrum(
        tilt=0.5,
        order="".join(f"{(i // 3) % 16:x}" for i in range(48)),
        bands=(((12, 5), (20, 3), (16, 3)),) * 2,
        floor=(-4.0,) * 3,
        spread=(1.0,) * 3,
        restored=(((1.0, 0.0),) * 3,) * 2,
    )
    return Codec(fit(samples, (0.0,) * 3, steps, spectrum=spectrum))


@cache
def _temporal() -> tuple[Any, Any]:
    """A codec of deltas, and what they are coded against."""
    from isthmus.proto.codec import fit
    from isthmus.proto.frame_codec import FrameCodec
    from isthmus.proto.temporal.sequences import fit_deltas

    samples = np.random.default_rng(3).normal(size=(16, 4, 4, 8)).astype(np.float32)
    config = fit(samples, (0.0,) * 8, (0.5, 1.0))
    coder = FrameCodec(fit_deltas(config, [list(samples)], ((0.8, 0.8), (0.6, 0.6)), lags=(1,)))
    return coder, coder.whole(samples[0], 0)


def _deltas(data: bytes) -> None:
    """The payload of a frame that is coded against another."""
    from isthmus.proto.errors import CodecError

    coder, reference = _temporal()
    try:
        crossed = coder.crossed([data], reference)
    except CodecError:
        return
    assert crossed.features.shape == (4, 4, 8)
    assert np.isfinite(crossed.features).all()
    assert 1 <= crossed.layers <= 2
    assert np.abs(crossed.reconstruction.symbols).max() <= 7
    assert coder.crossed([data], crossed.reconstruction).reconstruction.step == crossed.reconstruction.step


def _deltas_seeds() -> Iterator[bytes]:
    coder, reference = _temporal()
    rng = np.random.default_rng(4)
    for share in (0.0, 0.05, 0.5):
        moved = (rng.normal(size=(4, 4, 8)) * (rng.random((4, 4, 8)) < share)).astype(np.float32)
        features = (reference.symbols * np.float32(0.5) + moved).astype(np.float32)
        for step, layers in ((0, 1), (0, 2), (1, 1), (1, 2)):
            yield coder.delta(features, step, layers, reference).payload


def codec(data: bytes) -> None:
    """First byte: which codec. Then payloads, each behind its length; or a delta, for the number after the last codec's."""
    from isthmus.proto.errors import CodecError

    if data and data[0] % (len(_codecs()) + 1) == len(_codecs()):
        _deltas(data[1:])
        return
    coder = _codecs()[data[0] % (len(_codecs()) + 1)] if data else _codecs()[0]
    payloads, rest = [], data[1:]
    while rest:
        size = int.from_bytes(rest[:2], "little")
        payloads.append(rest[2 : 2 + size])
        rest = rest[2 + size :]
    try:
        features = coder.decode(payloads)
    except CodecError:
        return
    config = coder.config
    assert features.shape == (config.height, config.width, config.channels)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()


def codec_seeds() -> Iterator[bytes]:
    rng = np.random.default_rng(2)
    for number, coder in enumerate(_codecs()):
        config = coder.config
        features = rng.normal(size=(config.height, config.width, config.channels)).astype(np.float32)
        for step in range(len(config.steps)):
            payloads = coder.encode(features, step)
            for count in range(1, len(payloads) + 1):
                yield bytes([number]) + b"".join(len(p).to_bytes(2, "little") + p for p in payloads[:count])
    yield from (bytes([len(_codecs())]) + delta for delta in _deltas_seeds())


# --- wire ---


def wire(data: bytes) -> None:
    """First byte: who speaks."""
    from google.protobuf.message import DecodeError

    from isthmus.proto import edge_pb2 as pb
    from isthmus.proto import wire

    from_device = not data or data[0] % 2 == 0
    try:
        message: Any = (pb.DeviceMessage if from_device else pb.ServerMessage).FromString(data[1:])
    except DecodeError:
        message = None
    with contextlib.suppress(IsthmusError):
        if hasattr(wire, "read_server") and not from_device:
            _sane(wire.read_server(data[1:], wire.Expected(layers=2, max_layer_bytes=100)))
        if message is not None:
            read = wire.from_device_pb(message) if from_device else wire.from_server_pb(message)
            back: Any = wire.to_device_pb if from_device else wire.to_server_pb
            assert type(wire.from_device_pb(back(read)) if from_device else wire.from_server_pb(back(read))) is type(
                read
            )


def _sane(message: Any) -> None:
    """Every number of a message is one that a session can count with."""
    for name in message.__struct_fields__:
        value = getattr(message, name)
        if isinstance(value, float):
            assert 0 <= value < 1e5, (name, value)


def wire_seeds() -> Iterator[bytes]:
    from isthmus.proto import messages as m
    from isthmus.proto import wire
    from isthmus.proto.vocabulary import Load, ServerTimings

    load = Load(3, 0.01, 0.002)
    device: list[m.DeviceMessage] = [
        m.Hello("signs", bytes(32), 1, "cam0"),
        m.Layer(7, 1, True, 0.1, b"abc", 5),
        m.Layer(9, 0, True, 0.1, b"A\0\0", 5, reference=7),
        m.Cancel(7),
        m.Heartbeat(1),
    ]
    server: list[m.ServerMessage] = [
        m.Welcome("edge", 8, 65_536, load),
        m.Welcome("edge", 8, 65_536, load, 16),
        m.Ack(7, 1, load),
        m.Result(7, 2, (0.5, -1.0), ServerTimings(0.1, 0.2, 0.3, 0.4), load),
        m.Result(7, 1, b"packed", ServerTimings(), load),
        m.Late(7, load),
        m.Busy(7, 0.1, m.Hint.NARROWER, load),
        m.Invalid(7, 1, "why", load),
        m.Drain(5.0, load),
        m.ServerHeartbeat(3, load),
    ]
    yield from (b"\0" + wire.to_device_pb(message).SerializeToString() for message in device)
    yield from (b"\1" + wire.to_server_pb(message).SerializeToString() for message in server)


# --- tasks ---


@cache
def _tasks() -> list[tuple[str, Any]]:
    from isthmus.proto.tasks import TASKS

    return list(TASKS.items())


def tasks(data: bytes) -> None:
    """First byte: which task, and whether plain numbers or packed bytes come."""
    if not data:
        return
    made = _tasks()
    task: Any = made[data[0] % len(made)][1]
    try:
        task = task(classes=5)
    except TypeError:
        task = task()
    body = data[1:]
    floats = struct.unpack(f"<{len(body) // 4}f", body[: len(body) // 4 * 4])
    for packed in (body, floats):
        try:
            guess = task.guess(packed, temperature=0.7, accuracy=0.5)
        except (ValueError, IsthmusError):
            continue
        assert isinstance(guess.label, int)
        assert math.isfinite(guess.confidence)
        task.agreement(guess, guess)


def tasks_seeds() -> Iterator[bytes]:
    rng = np.random.default_rng(3)
    classes, many = rng.normal(size=5).astype(np.float32), rng.normal(size=1000).astype(np.float32)
    boxes = [rng.random((6, 4), np.float32), np.arange(6.0, dtype=np.float32), rng.random(6, np.float32)]
    outputs: dict[str, list[list[Any]]] = {
        "segmentation": [[rng.integers(0, 3, (8, 8)).astype(np.uint8)]],
        "detection": [boxes, [*boxes, np.array([2.0])]],
        "pose": [[rng.random((1, 5, 3), np.float32)]],
        "depth": [[rng.random((6, 8), np.float32)]],
        "values": [[classes], boxes],
    }
    for number, (name, make) in enumerate(_tasks()):
        for each in outputs.get(name, [[classes], [many]]):
            packed = make().pack(each)
            yield bytes([number]) + (packed if isinstance(packed, bytes) else struct.pack(f"<{len(packed)}f", *packed))
