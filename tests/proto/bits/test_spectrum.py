"""Features coded as frequencies: golden bytes, what survives a round trip, what a prefix decodes to, what is refused."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from isthmus.models.bundling.spectral_fit import is_map, spectral, trained
from isthmus.proto.bits.spectrum import PER_BYTE, RUNS, SPECTRAL_LAYERS, Frequencies, Spectrum, _Band, cosines, restored
from isthmus.proto.codec import HEADER_BYTES, RAW, Codec, CodecConfig, fit
from isthmus.proto.errors import CodecError

SHAPE = 6, 8, 5


def smooth(frames: int, seed: int = 0) -> np.ndarray:
    """Maps (N, 6, 8, 5) float32 whose neighbours are alike, cut off at zero as by a ReLU."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((frames, *SHAPE)) + 2 * rng.standard_normal((frames, 1, 1, SHAPE[-1]))
    x[:, 1:] += x[:, :-1]
    x[:, :, 1:] += x[:, :, :-1]
    return np.maximum(x, 0).astype(np.float32)


FRAMES = smooth(60)
CODEC = Codec(spectral(FRAMES[:40]))
assert CODEC.config.spectrum is not None
SPECTRUM = CODEC.config.spectrum


# Golden bytes


def golden() -> tuple[Codec, np.ndarray]:
    """Maps of 1 x 1, of which a transform is exact: the same bytes on every machine."""
    rng = np.random.default_rng(20)
    frames = (rng.integers(-16, 17, (40, 1, 1, 60)) * rng.integers(0, 17, (40, 1, 1, 60)) // 32).astype(np.float32)
    frames *= np.arange(60, 0, -1, dtype=np.float32) // 4 / 8
    plain = ((1.0, 0.0),) * SPECTRAL_LAYERS
    spectrum = Spectrum(
        tilt=0.35,
        order="".join(f"{c // 4:x}" for c in range(60)),
        bands=(((7, 61), (20, 7), (33, 3)), ((3, 15), (17, 5), (40, 3))),
        floor=(-100.0,) * 60,
        spread=(1.0,) * 60,
        restored=(plain, plain),
    )
    return Codec(fit(frames[:39], (0.0,) * 60, (0.5, 2.0), spectrum=spectrum)), frames[39]


def test_golden_tables() -> None:
    codec, _ = golden()
    digest = hashlib.sha256(b"".join(b"".join(row) for row in codec.config.tables)).hexdigest()
    assert digest[:16] == "273bc77ac7147914"


@pytest.mark.parametrize(
    ("step", "hexes"),
    [
        (0, ("1000cbaf38a5fc09", "11004a35eb6b2300", "02000b62208d7ef3")),
        (1, ("0001c870", "0101002d79784c37", "1201edab451f6808")),
    ],
)
def test_golden_payloads(step: int, hexes: tuple[str, ...]) -> None:
    codec, x = golden()
    assert tuple(p.hex() for p in codec.encode(x, step)) == hexes
    assert codec.decode([bytes.fromhex(h) for h in hexes]).shape == x.shape


# Round trips


@given(st.sampled_from(sorted(PER_BYTE)), st.integers(1, 2000), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_any_symbols_survive(levels: int, count: int, density: float, seed: int) -> None:
    rng, most = np.random.default_rng(seed), (levels - 1) // 2
    symbols = rng.integers(-most, most + 1, count + 3) * (rng.random(count + 3) < density)
    band = _Band(3, count, levels)
    packed = np.frombuffer(band.packed(symbols.astype(np.float32)), np.uint8)
    assert len(packed) <= band.size
    assert packed.max() < band.alphabet <= 256
    np.testing.assert_array_equal(band.symbols(band.expand(packed)), symbols[3:])


def test_long_runs_are_few_bytes() -> None:
    band = _Band(0, 5 * 1001, 3)
    assert len(band.packed(np.zeros(5 * 1001, np.float32))) == len([256, 256, 256, 128, 64, 32, 8, 1])
    assert tuple(sorted(RUNS)) == RUNS


@pytest.mark.parametrize("n", [1, 3, 7, 14, 16])
def test_the_basis_is_orthonormal(n: int) -> None:
    np.testing.assert_allclose(cosines(n).T @ cosines(n), np.eye(n), atol=1e-6)


@given(hnp.arrays(np.float32, SHAPE, elements=st.floats(-100, 100, width=32)), st.sets(st.integers(0, SHAPE[-1] - 1)))
def test_a_transform_is_undone_and_leaves_spatial_channels_alone(x: np.ndarray, spatial: set[int]) -> None:
    frequencies, alone = Frequencies(SHAPE, 0.0, sorted(spatial)), sorted(spatial)
    there = frequencies.of(x, np.ones((6, 8, 1), np.float32))
    np.testing.assert_array_equal(there[:, :, alone], x[:, :, alone])
    np.testing.assert_allclose(frequencies.features(there), x, atol=1e-3)


def test_features_trained_for_it_are_transformed_where_that_takes_fewer_bits_and_are_not_clipped() -> None:
    """Channel 0 is nearly flat and large, the others are noise with many zeros."""
    rng = np.random.default_rng(4)
    x = rng.standard_normal((40, *SHAPE)).astype(np.float32) * (rng.random((40, *SHAPE)) < 0.2)
    x[..., 0] = 100 * rng.standard_normal((40, 1, 1)).astype(np.float32) + 0.1 * x[..., 0]
    codec = Codec(trained(x, (0.25, 0.5)))
    assert codec.config.spectrum is not None
    assert codec.config.spectrum.spatial == (1, 2, 3, 4)
    assert max(levels for row in codec.config.spectrum.bands for _, levels in row) == 243**2
    for step in (0, 1):
        wrong = np.stack([codec.decode(codec.encode(each, step)) - each for each in x])
        assert np.abs(wrong).max() < 2 * codec.config.steps[step]


@pytest.mark.parametrize("step", range(len(CODEC.config.steps)))
def test_more_layers_and_finer_steps_are_nearer(step: int) -> None:
    def error(step: int, layers: int) -> float:
        decoded = [CODEC.decode(CODEC.encode(x, step)[:layers]) for x in FRAMES[40:]]
        return float(np.mean((np.stack(decoded) - FRAMES[40:]) ** 2))

    errors = [error(step, layers) for layers in range(1, SPECTRAL_LAYERS + 1)]
    assert errors == sorted(errors, reverse=True)
    if step:
        assert errors[-1] > error(step - 1, SPECTRAL_LAYERS)


def test_decoded_maps_have_the_mean_and_the_variance_of_the_true_ones() -> None:
    """A ReLU's floor behind a coarse quantiser lifts the mean, and lost frequencies lower the variance."""
    step = len(CODEC.config.steps) - 1
    decoded = np.stack([CODEC.decode(CODEC.encode(x, step)) for x in FRAMES[:40]])
    assert decoded.min() >= 0
    assert abs(decoded.mean() - FRAMES[:40].mean()) < 0.01 * FRAMES.std()
    assert decoded.std() == pytest.approx(FRAMES[:40].std(), rel=0.03)
    untouched = ((1.0, 0.0),) * SPECTRAL_LAYERS
    plain = msgspec.structs.replace(SPECTRUM, restored=(untouched,) * len(CODEC.config.steps))
    lifted = Codec(replace(CODEC.config, spectrum=plain))
    bent = np.stack([lifted.decode(lifted.encode(x, step)) for x in FRAMES[:40]])
    assert bent.mean() - FRAMES[:40].mean() > 0.02 * FRAMES.std()


def test_features_without_a_floor_are_left_as_they_are_decoded() -> None:
    x = np.random.default_rng(1).standard_normal((40, *SHAPE)).astype(np.float32)
    spectrum = spectral(x).spectrum
    assert spectrum is not None
    assert {point for row in spectrum.restored for point in row} == {(1.0, 0.0)}


@given(st.floats(0.5, 2, width=32), st.floats(-1, 1, width=32))
def test_nothing_is_put_below_its_floor(gain: float, shift: float) -> None:
    floor, spread = np.array([-1.0, 0.0], np.float32), np.array([0.5, 2.0], np.float32)
    x = np.random.default_rng(0).standard_normal((3, 4, 2)).astype(np.float32)
    assert (restored(x, floor, spread, gain, shift) >= floor).all()
    np.testing.assert_allclose(restored(x, floor - 10, spread, 1.0, 0.0), x, atol=1e-5)


def test_smooth_maps_take_fewer_bytes_than_value_by_value() -> None:
    """At no more than the same squared error."""
    values = Codec(fit(FRAMES[:40], (0.0,) * 5, (1.5,)))
    by_value = [values.encode(x, 0) for x in FRAMES[40:]]
    wrong = np.mean([(values.decode(p) - x) ** 2 for p, x in zip(by_value, FRAMES[40:], strict=True)])
    for step in reversed(range(len(CODEC.config.steps))):
        payloads = [CODEC.encode(x, step) for x in FRAMES[40:]]
        if np.mean([(CODEC.decode(p) - x) ** 2 for p, x in zip(payloads, FRAMES[40:], strict=True)]) <= wrong:
            break
    else:
        pytest.fail("never so near")
    assert sum(len(b) for p in payloads for b in p) < 0.8 * sum(len(b) for p in by_value for b in p)


def test_sizes_are_predicted() -> None:
    for step in range(len(CODEC.config.steps)):
        sizes = np.array([sum(map(len, CODEC.encode(x, step))) for x in FRAMES])
        predicted = np.array([sum(CODEC.predict(x)[step]) for x in FRAMES])
        assert np.median(np.abs(predicted - sizes)) < 4 + 0.05 * sizes.mean()


# Refusals


@given(st.binary(max_size=200), st.integers(0, SPECTRAL_LAYERS - 1), st.integers(0, 3), st.integers(0, 6))
def test_any_bytes_decode_to_the_right_shape_or_are_refused(body: bytes, layer: int, backend: int, step: int) -> None:
    payloads = list(CODEC.encode(FRAMES[0], step))
    payloads[layer] = bytes((backend << 4 | layer, step)) + body
    try:
        decoded = CODEC.decode(payloads)
    except CodecError as error:
        refusal = str(error)
    else:
        assert decoded.shape == SHAPE
        assert np.isfinite(decoded).all()
        return
    assert refusal.startswith(f"layer {layer}: ")


def test_the_longest_runs_are_refused_before_they_are_written_out() -> None:
    count, levels = SPECTRUM.bands[0][2]
    per_byte = round(PER_BYTE[levels])
    longest = levels**per_byte + len(RUNS) - 1
    payloads = list(CODEC.encode(FRAMES[0], 0))
    payloads[2] = bytes((RAW << 4 | 2, 0)) + bytes([longest]) * (-(-count // per_byte))
    with pytest.raises(CodecError, match=r"layer 2: \d+ packed bytes, expected \d+"):
        CODEC.decode(payloads)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_features_that_are_not_finite_are_refused(value: float) -> None:
    x = FRAMES[0].copy()
    x[1, 2, 3] = value
    for refusing in (lambda: CODEC.encode(x, 0), lambda: CODEC.predict(x)):
        with pytest.raises(CodecError, match="NaN, infinite or beyond"):
            refusing()
    with pytest.raises(CodecError, match="the bundle's are float32"):
        CODEC.encode(FRAMES[0][:2], 0)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"order": "0" * 239}, "order must be 240 hex digits"),
        ({"order": "g" * 240}, "order must be 240 hex digits"),
        ({"floor": (0.0,)}, "must be 5 each"),
        ({"bands": SPECTRUM.bands[1:]}, "bands must have 9 steps of 3 layers"),
        ({"bands": (((1, 3), (1, 3), (1, 3)),) * 9}, "bands of a step must hold 240 coefficients"),
        ({"bands": (((238, 4), (1, 3), (1, 3)),) * 9}, "bands may have 3, 5, 7"),
        ({"restored": ()}, "restored must have 9 steps"),
        ({"spatial": (0,)}, "spatial channels .* tilt 0.35: must be 0"),
        ({"spatial": (5,), "tilt": 0.0}, "spatial channels .* of 5"),
    ],
)
def test_a_spectrum_that_contradicts_itself_is_refused(change: dict[str, object], why: str) -> None:
    config: CodecConfig = replace(CODEC.config, spectrum=msgspec.structs.replace(SPECTRUM, **change))
    with pytest.raises(CodecError, match=why):
        Codec(config)


def test_payloads_stay_within_the_bound_that_the_bundle_tells() -> None:
    noise = 1e4 * np.random.default_rng(3).standard_normal(SHAPE).astype(np.float32)
    for step in range(len(CODEC.config.steps)):
        sizes = [len(p) for p in CODEC.encode(noise, step)]
        assert HEADER_BYTES < max(sizes) <= CODEC.max_layer_bytes
        assert CODEC.decode(CODEC.encode(noise, step)).shape == SHAPE


def test_a_spectrum_reads_as_it_was_written() -> None:
    assert msgspec.convert(msgspec.to_builtins(SPECTRUM), Spectrum) == SPECTRUM
    assert hash(CODEC.config) == hash(replace(CODEC.config))


def test_what_is_no_map_is_told() -> None:
    assert is_map(FRAMES)
    assert not is_map(FRAMES[:, :1])
    assert not is_map(np.zeros((1, 112, 112, 32), np.float32))
