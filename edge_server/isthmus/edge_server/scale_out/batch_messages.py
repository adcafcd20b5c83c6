"""What a server and a replica say to each other: batches one way, answers the other, each with its length before it.

Nothing in it is executed, whoever sends it. A replica that dials shows the server's key first.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

import msgspec
import numpy as np
from msgspec import Struct

from isthmus.edge_server.engines import Frame
from isthmus.proto.tasks.task import Packed

KEY_BYTES = 32
"""A random key: nobody guesses it."""
NAME_BYTES = 16
"""By which the links of one replica are known as such."""
MOST_BYTES = 1 << 28
"""The longest message: a batch of many large pictures. What says that it is longer is none of ours."""
_LENGTH = struct.Struct("!I")


class _Array(Struct, array_like=True, frozen=True):
    kind: str
    shape: tuple[int, ...]
    data: bytes


class Answers(Struct, tag=True, frozen=True):
    """The tail's answers to a batch, packed by the bundle's task."""

    answers: list[tuple[float, ...] | bytes | None]


class Failed(Struct, tag=True, frozen=True):
    """The tail raised this."""

    why: str


class Leaving(Struct, tag=True, frozen=True):
    """The replica is told to end: it answers what it has, and wants no more."""


Said = Answers | Failed | Leaving
_answers: msgspec.msgpack.Decoder[Said] = msgspec.msgpack.Decoder(Said)
_batches = msgspec.msgpack.Decoder(list[_Array])
_encoder = msgspec.msgpack.Encoder()


def packed_batch(frames: Sequence[Frame]) -> bytes:
    """A batch of B frames, each an array of whatever shape."""
    return _encoder.encode([_Array(frame.dtype.str, frame.shape, frame.tobytes()) for frame in frames])


def unpacked_batch(message: bytes) -> list[Frame]:
    """The frames of a batch. Raises msgspec.DecodeError or ValueError for what is none."""
    arrays = _batches.decode(message)
    return [np.frombuffer(one.data, np.dtype(one.kind)).reshape(one.shape) for one in arrays]


def answers_of(outputs: Sequence[Packed | None]) -> Answers:
    """What a tail gave, as it travels."""
    return Answers(list(outputs))


def packed_said(said: Said) -> bytes:
    """What a replica says."""
    return _encoder.encode(said)


def unpacked_said(message: bytes) -> Said:
    """What a replica has said. Raises msgspec.DecodeError for what is none of it."""
    return _answers.decode(message)


def send(link: socket.socket, message: bytes) -> None:
    """Send a message whole. Raises OSError."""
    link.sendall(_LENGTH.pack(len(message)) + message)


def receive(link: socket.socket) -> bytes:
    """The next message. Raises OSError, EOFError where the other has gone, TimeoutError after the link's own timeout."""
    (length,) = _LENGTH.unpack(receive_exactly(link, _LENGTH.size))
    if length > MOST_BYTES:
        raise ConnectionError(f"a message of {length} bytes, at most {MOST_BYTES} are expected")
    return receive_exactly(link, length)


def receive_exactly(link: socket.socket, count: int) -> bytes:
    """So many bytes. Raises as `receive`."""
    read = bytearray()
    while len(read) < count:
        if not (more := link.recv(min(count - len(read), 1 << 20))):
            raise EOFError("the other side has gone")
        read += more
    return bytes(read)
