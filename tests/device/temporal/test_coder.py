"""What a device believes that a frame takes, and what it then takes."""

from __future__ import annotations

import numpy as np
import pytest

from isthmus.device.temporal.coder import Coder
from isthmus.proto.errors import CodecError, DataError
from isthmus.proto.frame_codec import NEVER
from isthmus.proto.vocabulary import Reference
from moving import SHAPE, clip, temporal

CLIP = clip(10, seed=11)


def test_sizes_of_deltas_are_those_of_their_payloads() -> None:
    coder = Coder(temporal())
    coder.whole(1, CLIP[0], (), 1)
    for used in (1, 2):
        _, deltas = coder.sizes(CLIP[3], (), Reference(1, used))
        for step in (0, 1):
            for layers in (1, 2):
                payload, _ = coder.delta(2, CLIP[3], step, layers, Reference(1, used))
                most = len(payload) > temporal().max_layer_bytes
                assert deltas[step][layers - 1] == (NEVER if most else len(payload))


def test_without_a_reference_there_are_none() -> None:
    coder = Coder(temporal())
    predicted, deltas = coder.sizes(CLIP[0], (), None)
    assert deltas == ()
    assert coder.sizes(CLIP[0], (), Reference(5, 2)) == (predicted, ())
    with pytest.raises(DataError, match="frame 7: nothing is held of frame 5"):
        coder.delta(7, CLIP[0], 0, 2, Reference(5, 2))


def test_where_it_is_close_the_sizes_of_the_whole_frame_are_real() -> None:
    """So that no frame takes more than it would take whole, whatever the prediction said."""
    coder = Coder(temporal())
    coder.whole(1, CLIP[0], (), 0)
    rng, close = np.random.default_rng(0), 0
    for share in np.linspace(0, 1, 21):
        moved = rng.random(SHAPE) < share
        x = np.where(moved, clip(1, seed=500)[0], CLIP[0]).astype(np.float32)
        sizes, deltas = coder.sizes(x, (), Reference(1, 2))
        for step in (0, 1):
            real = tuple(map(len, coder.whole(2, x, (), step)))
            for layers in (1, 2):
                believed, true, delta = sum(sizes[step][:layers]), sum(real[:layers]), deltas[step][layers - 1]
                assert delta > believed or delta <= true
                if 0.85 * true < delta < 1.15 * true:
                    close += sizes[step] == real
    assert close > 3


def test_features_that_are_not_finite_are_refused() -> None:
    coder = Coder(temporal())
    coder.whole(1, CLIP[0], (), 0)
    x = CLIP[1].copy()
    x[0, 0, 0] = np.nan
    with pytest.raises(CodecError, match="NaN"):
        coder.sizes(x, (), Reference(1, 2))
    with pytest.raises(CodecError, match="NaN"):
        coder.delta(2, x, 0, 2, Reference(1, 2))
