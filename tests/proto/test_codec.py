"""The feature codec: golden bytes, what survives a round trip, and that nothing a peer sends does harm."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from isthmus.proto.bits.packing import ALPHABET, MAX_RUN, Packing
from isthmus.proto.codec import HEADER_BYTES, LAYERS, RAW, STATIC, ZSTD, Codec, CodecConfig, checksum, fit
from isthmus.proto.errors import CodecError

STEPS = (0.5, 0.7, 1.0, 1.4)
Features = NDArray[np.float32]


def correlated(frames: int, height: int, width: int, channels: int, seed: int = 0) -> Features:
    """Heavy-tailed features of about unit variance whose neighbours correlate, as in a trained bottleneck."""
    rng = np.random.default_rng(seed)

    def field(rho: float) -> NDArray[np.float64]:
        x = rng.standard_normal((frames, height, width, channels))
        fresh = (1 - rho * rho) ** 0.5
        for i in range(1, height):
            x[:, i] = rho * x[:, i - 1] + fresh * x[:, i]
        for j in range(1, width):
            x[:, :, j] = rho * x[:, :, j - 1] + fresh * x[:, :, j]
        return x

    x = field(0.6) * np.exp(0.5 * field(0.9) + 0.25 * rng.standard_normal((frames, 1, 1, 1)))
    of_unit_variance: Features = (x / x.std()).astype(np.float32)
    return of_unit_variance


def h0_bytes(known: Features, unseen: Features, step: float) -> float:
    """Mean bytes under per-channel zero-order statistics of other frames."""
    symbols = [(np.clip(np.rint(x / np.float32(step)), -7, 7) + 7).astype(np.intp) for x in (known, unseen)]
    bits = 0.0
    for channel in range(known.shape[3]):
        share = np.bincount(symbols[0][..., channel].ravel(), minlength=15) + 0.1
        bits -= float(np.log2(share / share.sum())[symbols[1][..., channel]].sum())
    return bits / 8 / len(unseen)


FRAMES = correlated(160, 8, 8, 12)
KNOWN, UNSEEN = FRAMES[:100], FRAMES[100:]
ZERO = tuple(0.01 * c for c in range(12))
MEANS = np.array(ZERO, np.float32)
SMALL = Codec(fit(KNOWN, ZERO, STEPS))
LARGE_FRAMES = correlated(6, 32, 32, 33)  # beyond the static code
LARGE = Codec(fit(LARGE_FRAMES[:4], (0.0,) * 33, STEPS))
CODECS = pytest.mark.parametrize(("codec", "x"), [(SMALL, UNSEEN[0]), (LARGE, LARGE_FRAMES[5])], ids=["static", "zstd"])


def assert_close(x: Features, decoded: Features, codec: Codec, step: int, bound_steps: float = 0.5) -> None:
    """Within `bound_steps` wherever x was not clipped."""
    size = codec.config.steps[step]
    inside = np.abs(x - np.array(codec.config.zero_point, np.float32)) < 7.49 * size
    error = np.abs(decoded.astype(np.float64) - x)[inside]
    assert error.max(initial=0) <= bound_steps * size * (1 + 1e-5)


# Golden bytes


def golden_codec() -> tuple[Codec, Features]:
    """Integers scaled by powers of two: the same on every machine."""
    rng = np.random.default_rng(20)
    frames = (rng.integers(-16, 17, (40, 4, 6, 5)) * rng.integers(0, 17, (40, 4, 6, 5)) / 64).astype(np.float32)
    config = fit(frames[:39], (0.0, 0.25, -0.25, 0.5, 0.0), (0.5, 1.0))
    return Codec(config), frames[39]


def test_golden_tables() -> None:
    codec, _ = golden_codec()
    digest = hashlib.sha256(b"".join(b"".join(row) for row in codec.config.tables)).hexdigest()
    assert digest[:16] == "fb3dfe097097023c"


@pytest.mark.parametrize(
    ("step", "hexes"),
    [
        (
            0,
            (
                "1000f4fbf4a72f70cf2c63db12e83573f64bc9ca77f0fbef2470a7f870c46f245687",
                "0100158f815b87e5273a6c5f2e1430578ae555916dce77bdca82",
            ),
        ),
        (1, ("10015a39424dce6cb25e1f5acb99fada5defd6e5330901", "0101437703006c6c51007520ecb242826c854085147593749315")),
    ],
)
def test_golden_payloads(step: int, hexes: tuple[str, str]) -> None:
    codec, x = golden_codec()
    assert tuple(p.hex() for p in codec.encode(x, step)) == hexes
    assert_close(x, codec.decode([bytes.fromhex(h) for h in hexes]), codec, step)


# Round trips


@CODECS
@pytest.mark.parametrize("step", range(len(STEPS)))
def test_both_layers_are_within_half_a_step(codec: Codec, x: Features, step: int) -> None:
    assert_close(x, codec.decode(codec.encode(x, step)), codec, step)


@CODECS
@pytest.mark.parametrize("step", range(len(STEPS)))
def test_the_base_alone_is_within_one_and_a_half_steps(codec: Codec, x: Features, step: int) -> None:
    base, _ = codec.encode(x, step)
    assert_close(x, codec.decode([base]), codec, step, bound_steps=1.5)


@given(
    x=hnp.arrays(np.float32, (3, 5, 2), elements=st.floats(-100, 100, width=32)),
    step=st.sampled_from((0.03125, 0.7, 3.0)),
    zero=st.floats(-2, 2, width=32),
)
def test_any_features_survive(x: Features, step: float, zero: float) -> None:
    codec = Codec(fit(x[None], (zero, -zero), (step,)))
    payloads = codec.encode(x, 0)
    assert max(map(len, payloads)) <= codec.config.max_layer_bytes
    assert_close(x, codec.decode(payloads), codec, 0, bound_steps=0.5 + 1e-4)
    assert_close(x, codec.decode(payloads[:1]), codec, 0, bound_steps=1.5 + 1e-4)


@given(density=st.floats(0, 0.2), seed=st.integers(0, 2**32 - 1), elements=st.integers(1, 3 * 3 * MAX_RUN))
def test_runs_of_zeros_survive(density: float, seed: int, elements: int) -> None:
    rng = np.random.default_rng(seed)
    x = ((rng.random((1, 1, elements)) < density) * rng.integers(-7, 8, (1, 1, elements))).astype(np.float32)
    packing = Packing((1, 1, elements), (0.0,) * elements, (1.0,))
    packed = [np.frombuffer(p, np.uint8) for p in packing.pack(x, 0)]
    assert all(p.max() < size for p, size in zip(packed, ALPHABET, strict=False))
    assert np.array_equal(packing.unpack([packing.expand(i, p) for i, p in enumerate(packed)], 0), x)


def test_values_beyond_the_last_level_are_clipped() -> None:
    x = np.full((8, 8, 12), 1e6, np.float32)
    x[0] = -1e6
    decoded = SMALL.decode(SMALL.encode(x, 0)) - MEANS
    assert np.allclose(decoded[1:], 3.5, atol=1e-6)
    assert np.allclose(decoded[0], -3.5, atol=1e-6)


def test_memory_layout_does_not_matter() -> None:
    turned = np.asfortranarray(UNSEEN[0])
    assert SMALL.encode(turned, 0) == SMALL.encode(UNSEEN[0], 0)
    assert SMALL.predict(turned) == SMALL.predict(UNSEEN[0])


def test_one_frame_leaves_no_trace_in_the_next() -> None:
    first = SMALL.encode(UNSEEN[1], 2)
    SMALL.encode(UNSEEN[2] * 5, 0)
    assert SMALL.encode(UNSEEN[1], 2) == first


def test_decoding_makes_a_new_writable_array() -> None:
    payloads = SMALL.encode(UNSEEN[0], 0)
    a, b = SMALL.decode(payloads), SMALL.decode(payloads)
    a += 1
    assert a.dtype == np.float32
    assert a.flags.c_contiguous
    assert not np.shares_memory(a, b)


# Sizes


@pytest.mark.parametrize("step", range(len(STEPS)))
def test_two_layers_cost_at_most_five_percent_more_than_the_zero_order_entropy(step: int) -> None:
    total = np.mean([sum(map(len, SMALL.encode(x, step))) for x in UNSEEN])
    assert total <= 1.05 * h0_bytes(KNOWN, UNSEEN, STEPS[step])


def test_incompressible_layers_travel_plain_and_within_the_bound() -> None:
    x = np.random.default_rng(1).choice(np.array([-3.5, -1.5, 1.5, 3.5], np.float32), (8, 8, 12))
    payloads = SMALL.encode(x + MEANS, 0)
    assert payloads[0][0] >> 4 == RAW
    assert max(map(len, payloads)) <= SMALL.config.max_layer_bytes == HEADER_BYTES + 256
    assert_close(x + MEANS, SMALL.decode(payloads), SMALL, 0)


def test_the_backend_follows_the_number_of_elements() -> None:
    assert [p[0] >> 4 for p in SMALL.encode(UNSEEN[0], 0)] == [STATIC] * LAYERS
    assert [p[0] >> 4 for p in LARGE.encode(LARGE_FRAMES[5], 0)] == [ZSTD] * LAYERS


@pytest.mark.parametrize("step", range(len(STEPS)))
def test_predictions_are_within_five_percent_at_the_median(step: int) -> None:
    real = np.array([[len(p) for p in SMALL.encode(x, step)] for x in UNSEEN])
    predicted = np.array([SMALL.predict(x)[step] for x in UNSEEN])
    assert predicted.shape == real.shape
    assert np.median(np.abs(predicted.sum(axis=1) / real.sum(axis=1) - 1)) <= 0.05


def test_more_signal_never_predicts_fewer_bytes() -> None:
    scales = 2.0 ** np.arange(-20, 21)
    sizes = [SMALL.predict((UNSEEN[0] * scale).astype(np.float32) + MEANS) for scale in scales]
    sizes.insert(0, SMALL.predict(np.full((8, 8, 12), ZERO, np.float32)))
    flat = np.array(sizes).reshape(len(sizes), -1)
    assert (np.diff(flat, axis=0) >= 0).all()
    assert flat.min() >= HEADER_BYTES
    assert flat.max() <= SMALL.config.max_layer_bytes


# What the head may hand over


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
@CODECS
def test_features_that_are_not_finite_are_refused(codec: Codec, x: Features, value: float) -> None:
    x = x.copy()
    x[-1, -1, -1] = value
    for call in (lambda: codec.encode(x, 0), lambda: codec.predict(x)):
        with pytest.raises(CodecError, match=r"^features: NaN, infinite"):
            call()


@pytest.mark.parametrize(
    "x",
    [np.zeros((8, 12, 8), np.float32), np.zeros(768, np.float32), np.zeros((8, 8, 12))],
    ids=["turned", "flat", "64"],
)
def test_features_of_another_shape_or_type_are_refused_naming_both(x: Features) -> None:
    for call in (lambda: SMALL.encode(x, 0), lambda: SMALL.predict(x)):
        with pytest.raises(CodecError, match=r"^features: float\d\d \(.*\), the bundle's are float32 \(8, 8, 12\)"):
            call()


@pytest.mark.parametrize("step", [-1, 4])
def test_a_step_off_the_ladder_is_refused(step: int) -> None:
    with pytest.raises(CodecError, match=rf"^step {step}: the ladder has 4"):
        SMALL.encode(UNSEEN[0], step)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"zero_point": (0.0,)}, "zero points"),
        ({"height": 0}, "zero points for a bottleneck"),
        ({"steps": ()}, "steps"),
        ({"steps": (0.5, 0.7, 1.0, -1.4)}, "must be positive"),
        ({"steps": (0.5, 0.7, 1.0, float("nan"))}, "must be positive"),
        ({"tables": SMALL.config.tables[:3]}, "tables must have 4 steps of 2 layers"),
        ({"size_fit": ((),) * 4}, "size_fit must have 4 steps of 2 layers"),
        ({"tables": ((bytes(256),) * 2,) * 4}, "table: must hold 256 lengths"),
        ({"tables": ((bytes(range(256)),) * 2,) * 4}, "table: must hold 256 lengths"),
        ({"tables": ((b"\x07" * 251 + bytes(5), b"\x08" * 243 + bytes(13)),) * 4}, "not a complete code"),
    ],
)
def test_a_config_that_contradicts_itself_is_refused(change: dict[str, object], why: str) -> None:
    config = dataclasses.replace(SMALL.config, **change)  # type: ignore[arg-type]
    with pytest.raises(CodecError, match=why):
        Codec(config)


@pytest.mark.parametrize("shape", [(8, 8, 12), (0, 8, 8, 12)])
def test_fitting_needs_frames(shape: tuple[int, ...]) -> None:
    with pytest.raises(CodecError, match=r"give \(N, H, W, C\)"):
        fit(np.zeros(shape, np.float32), ZERO, STEPS)


# What a peer may send


@CODECS
@pytest.mark.parametrize("layer", range(LAYERS))
def test_a_payload_cut_anywhere_is_refused(codec: Codec, x: Features, layer: int) -> None:
    payloads = list(codec.encode(x, 0))
    whole = payloads[layer]
    for length in range(0, len(whole), 1 if len(whole) < 1000 else 13):
        payloads[layer] = whole[:length]
        with pytest.raises(CodecError, match=rf"^layer {layer}: "):
            codec.decode(payloads[: layer + 1])


@CODECS
def test_every_flipped_bit_changes_the_checksum(codec: Codec, x: Features) -> None:
    payload = codec.encode(x, 3)[0]
    known = checksum(payload)
    for bit in range(8 * len(payload)):
        flipped = bytearray(payload)
        flipped[bit >> 3] ^= 1 << (bit & 7)
        assert checksum(bytes(flipped)) != known


def test_the_checksum_is_crc32() -> None:
    assert checksum(b"123456789") == 0xCBF43926


BASE, REFINEMENT = SMALL.encode(UNSEEN[0], 1)
OTHER = SMALL.encode(UNSEEN[0], 2)[1]


@pytest.mark.parametrize(
    ("payloads", "why"),
    [
        ([], r"payloads: 0 layers"),
        ([BASE, REFINEMENT, REFINEMENT], r"payloads: 3 layers"),
        ([b""], r"layer 0: 0 bytes, shorter than its header"),
        ([BASE, b"\x11"], r"layer 1: 1 bytes, shorter than its header"),
        ([REFINEMENT], r"layer 0: header says layer 1"),
        ([BASE, BASE], r"layer 1: header says layer 0"),
        ([BASE, OTHER], r"layer 1: step 2, the base has step 1"),
        ([b"\x10\x04" + BASE[2:]], r"layer 0: step 4, the ladder has 4"),
        ([b"\xf0\x00" + BASE[2:]], r"layer 0: backend 15 unknown"),
        ([b"\x00\x00" + bytes(257)], r"layer 0: 257 packed bytes, expected 256 at most"),
        ([b"\x00\x00" + bytes(255)], r"layer 0: 255 packed bytes, expected 256"),
        ([BASE, b"\x01\x01" + bytes(153)], r"layer 1: 153 packed bytes, expected 154"),
        ([b"\x20\x00" + BASE[2:]], r"layer 0: (not a zstd frame|a frame of)"),
        ([b"\x20\x00"], r"layer 0: not a zstd frame"),
    ],
)
def test_a_payload_out_of_place_is_refused(payloads: list[bytes], why: str) -> None:
    with pytest.raises(CodecError, match=f"^{why}"):
        SMALL.decode(payloads)


def magicless(plain: bytes, *, sized: bool = True) -> bytes:
    return zstandard.ZstdCompressor(write_content_size=sized).compress(plain)[4:]


@pytest.mark.parametrize(
    "frame",
    [
        magicless(bytes(1 << 20)),
        b"\xe0" + (1 << 45).to_bytes(8, "little") + bytes(8),  # claims 32 TiB
        magicless(bytes(100), sized=False),
    ],
    ids=["megabyte", "32 TiB", "no size"],
)
def test_a_zstd_bomb_is_refused_by_its_header(frame: bytes) -> None:
    with pytest.raises(CodecError, match=r"^layer 0: a frame of \d+ packed bytes, expected \d+ at most"):
        LARGE.decode([bytes((ZSTD << 4, 0)) + frame])


def test_a_static_bomb_is_bounded() -> None:
    with pytest.raises(CodecError, match=r"^layer 0: (more than 256 packed|not a body)"):
        SMALL.decode([bytes((STATIC << 4, 0)) + bytes(100_000)])


def test_longest_runs_stay_bounded() -> None:
    runs = bytes((RAW << 4, 0)) + bytes([ALPHABET[0] - 1]) * 256
    assert SMALL.decode([runs]).shape == (8, 8, 12)


@given(
    header=st.sampled_from([bytes((backend << 4, 0)) for backend in range(4)] + [b""]),
    bodies=st.lists(st.binary(max_size=600), min_size=1, max_size=2),
)
def test_any_bytes_decode_to_the_right_shape_or_are_refused(header: bytes, bodies: list[bytes]) -> None:
    for codec, shape in ((SMALL, (8, 8, 12)), (LARGE, (32, 32, 33))):
        payloads = [header + bodies[0], *(bytes((header[0] | 1, 0)) + b for b in bodies[1:] if header)]
        decoded = refused = None
        try:
            decoded = codec.decode(payloads)
        except CodecError as error:
            refused = str(error)
        if decoded is None:
            assert str(refused).startswith("layer ")
        else:
            assert decoded.shape == shape
            assert np.isfinite(decoded).all()


def test_fitted_configs_compare_and_hash_by_value() -> None:
    again: CodecConfig = fit(KNOWN, ZERO, STEPS)
    assert again == SMALL.config
    assert again.elements == 768
