"""A small bundle's facts, an engine that is as simple as can be, and frames to send."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from isthmus.edge_server.streams import Served
from isthmus.proto import codec
from isthmus.proto.messages import Hello, Layer
from isthmus.proto.tasks.task import Packed

SHAPE = (4, 4, 8)


class Sums:
    """A tail of two logits: the sum of the features, and its negative."""

    def run(self, frames: Sequence[NDArray[Any]]) -> list[Packed]:
        return [(total, -total) for total in np.stack(frames).sum(axis=(1, 2, 3)).tolist()]


@pytest.fixture
def engine() -> Sums:
    return Sums()


@pytest.fixture(scope="session")
def served() -> Served:
    samples = np.random.default_rng(0).normal(size=(64, *SHAPE)).astype(np.float32)
    return Served("tiny", bytes(range(32)), codec.fit(samples, (0.0,) * SHAPE[2], (0.5, 1.0)))


@pytest.fixture(scope="session")
def features() -> NDArray[np.float32]:
    return np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)


@pytest.fixture(scope="session")
def hello(served: Served) -> Hello:
    return Hello(served.name, served.sha256, codec.CODEC_VERSION, "cam0")


Frame = Callable[..., tuple[Layer, Layer]]


@pytest.fixture(scope="session")
def frame(served: Served, features: NDArray[np.float32]) -> Frame:
    payloads = codec.Codec(served.codec).encode(features, 0)

    def make(frame_id: int, *, budget_s: float = 30.0) -> tuple[Layer, Layer]:
        base, fine = (
            Layer(frame_id, index, index == 1, budget_s, payload, codec.checksum(payload))
            for index, payload in enumerate(payloads)
        )
        return base, fine

    return make


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """A server that ends leaves its process little patience; this process goes on."""
    numbers = signal.SIGTERM, signal.SIGINT, signal.SIGHUP
    handlers = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)
