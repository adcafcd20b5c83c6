"""A frame against another: golden bytes, what is kept, and that both halves come to the same."""

from __future__ import annotations

import dataclasses
import hashlib

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.proto.codec import Codec, CodecConfig, checksum, fit
from isthmus.proto.errors import CodecError
from isthmus.proto.frame_codec import FrameCodec
from isthmus.proto.temporal.delta import upto
from isthmus.proto.temporal.reconstruction import HELD, Reconstruction, References
from isthmus.proto.temporal.sequences import coded, fit_deltas, sizes
from moving import KEEP, SHAPE, STEPS, clip, temporal

FRAMES = clip(40, seed=9)
CODEC = FrameCodec(temporal())
SENT = st.lists(
    st.tuples(st.integers(0, 39), st.integers(0, 1), st.integers(1, 2), st.integers(1, 2)), min_size=1, max_size=12
)
"""Which frame, at what step, of how many layers, and how many of its reference's layers were used."""


def whole(frame: int, step: int = 0) -> Reconstruction:
    found = CODEC.whole(FRAMES[frame], step)
    assert found is not None
    return found


def golden() -> tuple[CodecConfig, np.ndarray]:
    """Integers scaled by powers of two, and steps that are some: the same on every machine."""
    rng = np.random.default_rng(20)
    frames = (rng.integers(-16, 17, (12, 4, 6, 5)) * rng.integers(0, 9, (12, 4, 6, 5)) / 64).astype(np.float32)
    for i in range(1, 12):
        frames[i] = np.where(rng.random(frames[i].shape) < 0.9, frames[i - 1], frames[i])
    config = fit(frames, (0.0, 0.25, -0.25, 0.5, 0.0), (0.5, 1.0))
    return fit_deltas(config, [list(frames)], ((0.75, 0.75), (0.625, 0.625)), lags=(1, 2)), frames


# Golden bytes


def test_golden_bytes() -> None:
    config, frames = golden()
    codec = FrameCodec(config)
    reference = codec.whole(frames[2], 0)
    assert reference is not None
    assert reference.seal == 0xABF5586F
    deltas = [codec.delta(frames[5], step, layers, reference) for step in (0, 1) for layers in (1, 2)]
    assert [delta.payload.hex() for delta in deltas] == [
        "4000084615681e0d182301",
        "41001710f28406aadeb0411a071aa1d85fa906489ab808",
        "400104af645fa17700",
        "41011a178315c22ee644946a8ea918fcac4c6056cbee0e",
    ]
    assert checksum(deltas[1].payload, reference.seal) == 0x2E878F25
    assert (
        hashlib.sha256(b"".join(delta.reconstruction.symbols.tobytes() for delta in deltas)).hexdigest()[:16]
        == "14d57b8924add098"
    )


def test_a_config_without_deltas_codes_as_before() -> None:
    config = temporal()
    before, after = Codec(dataclasses.replace(config, deltas=None)), Codec(config)
    for step in (0, 1):
        payloads = before.encode(FRAMES[3], step)
        assert after.encode(FRAMES[3], step) == payloads
        crossed = CODEC.crossed(payloads)
        np.testing.assert_array_equal(crossed.features, before.decode(payloads))


# Both halves


@given(sent=SENT)
def test_both_halves_come_to_the_same(sent: list[tuple[int, int, int, int]]) -> None:
    """Whatever is coded against whatever, at any step, with as many layers as were used."""
    device = server = whole(0)
    for frame, step, layers, used in sent:
        device, server = upto(device, used), upto(server, used)
        delta = CODEC.delta(FRAMES[frame], step, layers, device)
        crossed = CODEC.crossed([delta.payload], server)
        assert crossed.layers == layers
        assert crossed.reconstruction is not None
        device, server = delta.reconstruction, crossed.reconstruction
        assert device.step == server.step == step
        np.testing.assert_array_equal(device.symbols, server.symbols)
        assert device.seal == server.seal
        within = KEEP[step][layers - 1] * STEPS[step] * (3 if layers == 1 else 1)
        reach = (2 * 3 if layers == 1 else 7) * STEPS[step]
        inside = np.abs(FRAMES[frame]) < reach
        assert np.abs(FRAMES[frame] - crossed.features)[inside].max() <= within * (1 + 1e-5)


def test_whole_frames_are_the_same_to_both_halves() -> None:
    """Clipped symbols too; a prefix is the base alone."""
    x = (FRAMES[0] * 6).astype(np.float32)
    for step in (0, 1):
        payloads, device = CODEC.encode(x, (), step), CODEC.whole(x, step)
        assert device is not None
        for layers in (1, 2):
            crossed = CODEC.crossed(payloads[:layers])
            assert crossed.reconstruction is not None
            np.testing.assert_array_equal(crossed.reconstruction.symbols, upto(device, layers).symbols)


def test_noise_about_the_edge_of_a_symbol_costs_nothing() -> None:
    """Which a plain difference pays for again and again."""
    x = np.full(SHAPE, 0.25, np.float32)
    reference = CODEC.whole(x, 0)
    assert reference is not None
    noise = np.random.default_rng(0).uniform(-0.14, 0.14, SHAPE).astype(np.float32)
    assert len(CODEC.delta((x + noise).astype(np.float32), 0, 2, reference).payload) == 3


def test_errors_do_not_add_up() -> None:
    """What drifts slowly is followed, though each frame alone moves by next to nothing."""
    held, x = whole(0), FRAMES[0]
    for i in range(50):
        x = (FRAMES[0] + 0.02 * i).astype(np.float32)
        held = CODEC.delta(x, 0, 2, held).reconstruction
    inside = np.abs(x) < 3
    assert np.abs(x - held.symbols * np.float32(STEPS[0]))[inside].max() <= 0.8 * STEPS[0] * (1 + 1e-5)


def test_the_sizes_are_exact() -> None:
    found = CODEC.delta_bytes(FRAMES[7], whole(4))
    for step in (0, 1):
        for layers in (1, 2):
            assert found[step][layers - 1] == len(CODEC.delta(FRAMES[7], step, layers, whole(4)).payload)
    assert FrameCodec(dataclasses.replace(temporal(), deltas=None)).delta_bytes(FRAMES[7], whole(4)) == ()


# What a peer may send


@given(payload=st.binary(max_size=120), step=st.integers(0, 2), kind=st.integers(0, 255))
def test_no_payload_does_harm(payload: bytes, step: int, kind: int) -> None:
    for body in (payload, bytes((kind, step)) + payload, bytes((0x41, step)) + payload):
        try:
            crossed = CODEC.crossed([body], whole(0))
        except CodecError:
            continue
        assert crossed.features.shape == SHAPE
        assert np.isfinite(crossed.features).all()
        assert crossed.reconstruction is not None
        assert np.abs(crossed.reconstruction.symbols).max() <= 7


def test_a_delta_stands_alone_and_needs_its_reference() -> None:
    delta = CODEC.delta(FRAMES[5], 0, 2, whole(2)).payload
    with pytest.raises(CodecError, match="header says layer 1"):
        CODEC.crossed([delta])
    with pytest.raises(CodecError, match="a delta is one"):
        CODEC.crossed([delta, delta], whole(2))
    with pytest.raises(CodecError, match="no delta's"):
        CODEC.crossed(CODEC.encode(FRAMES[5], (), 0)[:1], whole(2))
    plain = FrameCodec(dataclasses.replace(temporal(), deltas=None))
    with pytest.raises(CodecError, match="does not send"):
        plain.crossed([delta], whole(2))
    with pytest.raises(CodecError, match="codes no such delta"):
        plain.delta(FRAMES[5], 0, 2, whole(2))


def test_no_other_reference_passes_for_it() -> None:
    """The checksum begins with the seal of what it is coded against: another step, one symbol, or none."""
    reference, delta = whole(2), CODEC.delta(FRAMES[5], 0, 2, whole(2)).payload
    other = reference.symbols.copy()
    other[0, 0, 0] += 1
    seals = {0, reference.seal, Reconstruction(0, other).seal, Reconstruction(1, reference.symbols).seal}
    assert len({checksum(delta, seal) for seal in seals}) == len(seals) == 4


# What is held, and configurations


def test_the_oldest_is_forgotten() -> None:
    held, one = References(), whole(0)
    for frame in range(100):
        held.keep(frame, one)
    assert [held.of(frame) is not None for frame in (0, 99 - HELD, 100 - HELD, 99, 100)] == [
        False,
        False,
        True,
        True,
        False,
    ]
    held.keep(100 - HELD, one)  # anew
    held.keep(100, one)
    assert held.of(100 - HELD) is one
    assert held.of(101 - HELD) is None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"keep": ((0.8, 0.8),)}, "deltas.keep must have 2 steps of 2 layers"),
        ({"keep": ((0.4, 0.8), (0.8, 0.8))}, "half a step or more"),
        ({"keep": ((float("nan"), 0.8), (0.8, 0.8))}, "half a step or more"),
        ({"tables": (("8" * 256,) * 2,) * 2}, "table"),
        ({"tables": (("8" * 255 + "g",) * 2,) * 2}, "hex"),
    ],
)
def test_a_config_that_contradicts_itself_is_refused(change: dict[str, object], why: str) -> None:
    deltas = temporal().deltas
    assert deltas is not None
    wrong = msgspec.structs.replace(deltas, **change)
    with pytest.raises(CodecError, match=why):
        FrameCodec(dataclasses.replace(temporal(), deltas=wrong))


def test_deltas_are_of_two_layers_and_of_what_the_static_code_is_for() -> None:
    three = fit(np.stack(FRAMES), (0.0,) * 12, STEPS, layers=3)
    with pytest.raises(CodecError, match="deltas of 3 layers"):
        FrameCodec(dataclasses.replace(three, deltas=temporal().deltas))
    large = fit(np.stack(clip(2, shape=(60, 60, 12))), (0.0,) * 12, STEPS)
    with pytest.raises(CodecError, match="deltas of 43200 values, 32768 at most"):
        FrameCodec(dataclasses.replace(large, deltas=temporal().deltas))


# Sequences


def test_a_calm_clip_takes_a_tenth_and_a_wild_one_no_more_than_before() -> None:
    codec = Codec(temporal())
    calm = list(coded(codec, clip(30, seed=5), 0, 2, lag=3))
    assert [frame.delta_bytes is None for frame in calm[:4]] == [True, True, True, False]
    assert sum(f.sent_bytes for f in calm[3:]) < 0.15 * sum(f.whole_bytes for f in calm[3:])
    wild = [x for seed in range(20) for x in clip(1, seed=100 + seed)]
    for frame in coded(codec, wild, 0, 2, lag=3):
        assert frame.sent_bytes <= frame.whole_bytes


def test_sizes_of_a_clip_are_those_of_its_payloads() -> None:
    codec, frames = Codec(temporal()), clip(8, seed=6)
    alone, deltas = sizes(codec, frames, lag=2)
    assert alone.shape == deltas.shape == (8, 2, 2)
    assert alone[3, 1].tolist() == [len(payload) for payload in codec.encode(frames[3], 1)]
    assert not deltas[:2].any()
    assert deltas[2:].all()
    held = CODEC.whole(frames[0], 1)
    assert held is not None
    assert deltas[2, 1, 1] == len(CODEC.delta(frames[2], 1, 2, held).payload)


def test_sequences_need_deltas() -> None:
    with pytest.raises(CodecError, match="fit them first"):
        list(coded(Codec(dataclasses.replace(temporal(), deltas=None)), FRAMES, 0, 2, 1))
