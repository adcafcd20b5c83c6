"""Codecs of more than two layers: finer without a nearer clip, any prefix decodes, and the first two stay as they were."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.proto.bits.packing import Packing, limit
from isthmus.proto.codec import LAYERS, MAX_LAYERS, Codec, fit
from isthmus.proto.errors import CodecError

COUNTS = range(LAYERS, MAX_LAYERS + 1)
FRAMES = np.random.default_rng(0).laplace(0, 1.0, (40, 6, 7, 5)).astype(np.float32)
CODECS = {n: Codec(fit(FRAMES, (0.1,) * 5, (0.5 / 3 ** (n - LAYERS),), layers=n)) for n in COUNTS}


def test_each_layer_triples_the_levels() -> None:
    assert [2 * limit(n) + 1 for n in range(1, MAX_LAYERS + 1)] == [5, 15, 45, 135, 405]


@pytest.mark.parametrize("layers", COUNTS)
def test_every_prefix_is_within_half_of_its_own_step(layers: int) -> None:
    codec = CODECS[layers]
    for x in FRAMES[:10]:
        payloads = codec.encode(x, 0)
        assert len(payloads) == layers
        for used in range(1, layers + 1):
            step = codec.config.steps[0] * 3 ** (layers - used)
            inside = np.abs(x - np.float32(0.1)) <= limit(used) * step
            assert np.abs(codec.decode(payloads[:used]) - x)[inside].max() <= 0.5 * step * (1 + 1e-4)


@pytest.mark.parametrize("layers", COUNTS[1:])
def test_the_first_two_layers_are_those_of_a_codec_of_two(layers: int) -> None:
    """Three layers at a third of the step refine what two layers say, bit for bit, wherever rounding twice is rounding once."""
    x = (np.rint(FRAMES[0] * 2) / 2).astype(np.float32)
    two = Packing((6, 7, 5), (0.0,) * 5, (0.5,)).pack(x, 0)
    more = Packing((6, 7, 5), (0.0,) * 5, (0.5 / 3 ** (layers - 2),), layers).pack(x, 0)
    assert two == more[:2]


@given(st.integers(0, 2**32 - 1), st.integers(-100, 100))
def test_five_layers_hold_eight_bits(seed: int, zero: int) -> None:
    stored = np.random.default_rng(seed).integers(zero - 202, zero + 203, (1, 9, 3)).astype(np.float32)
    packing = Packing((1, 9, 3), (float(zero),) * 3, (1.0,), MAX_LAYERS)
    packed = [np.frombuffer(p, np.uint8) for p in packing.pack(stored, 0)]
    np.testing.assert_array_equal(packing.unpack([packing.expand(i, p) for i, p in enumerate(packed)], 0), stored)


@given(st.integers(LAYERS, MAX_LAYERS), st.binary(max_size=60), st.integers(0, MAX_LAYERS - 1))
def test_any_bytes_decode_to_the_right_shape_or_are_refused(layers: int, body: bytes, damaged: int) -> None:
    payloads = list(CODECS[layers].encode(FRAMES[0], 0))
    index = damaged % layers
    payloads[index] = payloads[index][:2] + body
    try:
        assert CODECS[layers].decode(payloads).shape == (6, 7, 5)
    except CodecError as error:
        refusal = str(error)
    else:
        return
    assert refusal.startswith(f"layer {index}: ")


def test_sizes_are_predicted_for_every_layer() -> None:
    codec = CODECS[4]
    sizes = np.array([[len(p) for p in codec.encode(x, 0)] for x in FRAMES])
    predicted = np.array([codec.predict(x)[0] for x in FRAMES])
    assert (np.median(np.abs(predicted / sizes - 1), axis=0) < 0.08).all()


def test_too_few_and_too_many_layers_are_refused() -> None:
    for count in (1, MAX_LAYERS + 1):
        with pytest.raises(CodecError, match=f"config: {count} layers, there may be 2 to 5"):
            Packing((6, 7, 5), (0.0,) * 5, (1.0,), count)
    with pytest.raises(
        CodecError, match="payloads: 3 layers; give the base, or the base and its refinements, 2 in all"
    ):
        CODECS[2].decode(CODECS[3].encode(FRAMES[0], 0))
    ragged = dataclasses.replace(CODECS[3].config, size_fit=CODECS[2].config.size_fit)
    with pytest.raises(CodecError, match="size_fit must have 1 steps of 3 layers"):
        Codec(ragged)
