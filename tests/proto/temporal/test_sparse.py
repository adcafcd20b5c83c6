"""Changes to bits and back: golden bytes, any changes at any places, and that no body does harm."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.proto.bits.huffman import SYMBOLS, code_lengths
from isthmus.proto.errors import CodecError
from isthmus.proto.temporal.sparse import ALPHABET, LIMIT, SparseCode, letters

ELEMENTS = 2000
CHANGES = st.dictionaries(
    st.integers(0, ELEMENTS - 1), st.integers(1, LIMIT) | st.integers(-LIMIT, -1), max_size=300
).map(lambda found: sorted(found.items()))


@cache
def code() -> SparseCode:
    """Small changes and middling gaps are likely; sums of powers of two, so the same everywhere."""
    weights = np.zeros(SYMBOLS)
    letter = np.arange(ALPHABET)
    weights[:ALPHABET] = 2.0 ** -(np.abs(letter // 14 - 5) + np.abs(letter % 14 - 6.5) - 0.5)
    return SparseCode(code_lengths(weights))


def coded(found: list[tuple[int, int]]) -> bytes:
    places, changes = (np.array([pair[i] for pair in found], np.intp) for i in (0, 1))
    return code().encode(*letters(places, changes))


def test_golden_bytes() -> None:
    assert coded([]).hex() == "00"
    assert coded([(0, 1)]).hex() == "01cb"
    assert coded([(3, -1), (4, 2), (40, 1), (1999, -7)]).hex() == "04ca65fc4f20a703"


@given(found=CHANGES)
def test_what_changed_comes_back(found: list[tuple[int, int]]) -> None:
    body = coded(found)
    places, changes = code().decode(body, ELEMENTS)
    assert list(zip(places.tolist(), changes.tolist(), strict=True)) == found
    symbols, _ = letters(np.array([p for p, _ in found], np.intp), np.array([c for _, c in found], np.intp))
    assert code().size_bytes(symbols) == len(body)


@given(found=CHANGES.filter(bool), cut=st.integers(1, 4))
def test_a_body_that_is_cut_off_or_too_long_is_refused(found: list[tuple[int, int]], cut: int) -> None:
    body = coded(found)
    for wrong in (body[:-cut], body + bytes(cut), b""):
        with pytest.raises(CodecError):
            code().decode(wrong, ELEMENTS)


@given(body=st.binary(max_size=200))
def test_any_bytes_are_changes_within_the_frame_or_refused(body: bytes) -> None:
    try:
        places, changes = code().decode(body, ELEMENTS)
    except CodecError:
        return
    assert len(places) == len(changes)
    assert (np.diff(places, prepend=-1) > 0).all()
    assert (places < ELEMENTS).all()
    assert (changes != 0).all()
    assert (np.abs(changes) <= LIMIT).all()


def test_more_changes_than_there_are_values_are_refused_unread() -> None:
    with pytest.raises(CodecError, match="2001 changes, a frame has 2000 values"):
        code().decode(bytes((2001 & 127 | 128, 2001 >> 7)) + bytes(5000), ELEMENTS)
    with pytest.raises(CodecError, match="no count"):
        code().decode(b"\xff" * 10, ELEMENTS)
