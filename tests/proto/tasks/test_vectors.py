"""Embeddings and plain outputs: small on the wire, whole again behind it, compared by angle and by relative error."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from isthmus.proto.tasks.vectors import (
    MOST_VALUES,
    ROOM_BYTES,
    Embeddings,
    Tensors,
    arrays_of,
    vector_of,
)
from isthmus.proto.vocabulary import Embedding, Guess, Values

RNG = np.random.default_rng(0)
Floats = NDArray[np.float32]


def vector(*values: float) -> Guess:
    return embedded(np.array(values, np.float32))


def embedded(a: Floats) -> Guess:
    return Embeddings().guess(Embeddings().pack([a]), temperature=1.0, accuracy=0.8)


def told(*outputs: NDArray[Any]) -> Guess:
    return Tensors().guess(Tensors().pack(outputs), temperature=1.0, accuracy=0.8)


def test_an_embedding_keeps_its_direction_in_a_byte_a_value() -> None:
    a = RNG.normal(size=512).astype(np.float32)
    assert len(Embeddings().pack([a.reshape(1, 1, 512)])) == 516
    detail = embedded(a).detail
    assert isinstance(detail, Embedding)
    kept = vector_of(detail)
    assert kept @ a / np.linalg.norm(kept) / np.linalg.norm(a) > 0.9999
    assert np.linalg.norm(kept) == pytest.approx(np.linalg.norm(a), rel=1e-3)


def test_embeddings_agree_by_the_cosine_of_their_angle() -> None:
    task = Embeddings()
    assert task.agreement(vector(1, 0), vector(5, 0)) == 1.0
    assert task.agreement(vector(1, 1), vector(1, 0)) == pytest.approx(2**-0.5, abs=1e-3)
    assert task.agreement(vector(-1, 0), vector(1, 0)) == 0.0
    assert task.agreement(vector(0, 0), vector(0, 0)) == 1.0
    assert task.agreement(vector(0, 0), vector(1, 0)) == 0.0
    with pytest.raises(ValueError, match="embeddings: 2 values against 3"):
        task.agreement(vector(1, 1), vector(1, 1, 1))


def test_any_outputs_come_back_in_their_shapes() -> None:
    given: list[NDArray[Any]] = [
        RNG.normal(size=(3, 4)).astype(np.float32) * 1e6,
        np.array(7, np.float32),
        np.zeros((2, 2), np.int64),
        np.zeros((0, 4), np.float32),
    ]
    guess = told(*given)
    assert isinstance(guess.detail, Values)
    assert guess.detail.shapes == ((3, 4), (), (2, 2), (0, 4))
    for back, a in zip(arrays_of(guess.detail), given, strict=True):
        np.testing.assert_allclose(back, a, rtol=1e-3, atol=10)


def test_outputs_agree_by_relative_error_each_for_itself() -> None:
    task, a = Tensors(), np.array([3.0, 4.0], np.float32)
    assert task.agreement(told(a), told(a)) == 1.0
    assert task.agreement(told(a * 1.1), told(a)) == pytest.approx(0.9, abs=1e-3)
    assert task.agreement(told(-a), told(a)) == 0.0
    tiny = a * 1e-6  # next to large outputs, small ones count as much
    assert task.agreement(told(a, tiny * 0), told(a, tiny)) == pytest.approx(0.5)
    assert task.agreement(told(a, a[:1]), told(a, a)) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="1 outputs against 2"):
        task.agreement(told(a), told(a, a))


def test_what_is_too_much_to_send_back_is_refused() -> None:
    with pytest.raises(ValueError, match=r"250,000 values take .* bytes, an answer may have 60,000"):
        Tensors().pack([RNG.normal(size=(500, 500)).astype(np.float32)])
    with pytest.raises(ValueError, match="one of 2 to 60000 values is expected"):
        Embeddings().pack([np.zeros(ROOM_BYTES + 1, np.float32)])
    for task in (Tensors(), Embeddings()):
        with pytest.raises(ValueError, match="not finite"):
            task.pack([np.array([1.0, np.nan], np.float32)])


def heads(*shape: int, scale: float = 1.0, count: int = 1) -> bytes:
    return struct.pack(f"<BB{len(shape)}If", count, len(shape), *shape, scale)


@pytest.mark.parametrize(
    "packed",
    [
        (),
        (1.0, 2.0),
        b"",
        b"\1",
        heads(4),
        heads(4, count=0),
        heads(4, count=255),
        heads(4, scale=-1.0) + zlib.compress(bytes(8)),
        heads(4, scale=float("inf")) + zlib.compress(bytes(8)),
        heads(4) + zlib.compress(bytes(6)),
        heads(4) + zlib.compress(np.full(4, np.nan, "<f2").tobytes()),
        heads(1 << 31, 1 << 31) + zlib.compress(bytes(8)),
        heads(MOST_VALUES + 1) + zlib.compress(bytes(8)),
    ],
)
def test_what_holds_no_values_is_refused(packed: tuple[float, ...] | bytes) -> None:
    with pytest.raises(ValueError, match=r"^values: "):
        Tensors().guess(packed, temperature=1.0, accuracy=0.5)


@pytest.mark.parametrize("packed", [(), b"", b"\0\0\0\0", struct.pack("<f", np.nan) + b"\1\2", b"\0" * 70_000])
def test_what_is_no_embedding_is_refused(packed: tuple[float, ...] | bytes) -> None:
    with pytest.raises(ValueError, match=r"^embedding: "):
        Embeddings().guess(packed, temperature=1.0, accuracy=0.5)


@settings(deadline=None)
@given(st.one_of(st.binary(max_size=60), st.binary(max_size=30).map(lambda raw: heads(3) + zlib.compress(raw))))
def test_whatever_crosses_is_an_answer_or_is_refused(packed: bytes) -> None:
    for task in (Tensors(), Embeddings()):
        try:
            guess = task.guess(packed, temperature=1.0, accuracy=0.5)
        except ValueError:
            continue
        assert 0 <= task.agreement(guess, guess) <= 1
