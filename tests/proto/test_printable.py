"""What a peer says stays on its line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.proto.printable import SHOWN_CHARACTERS, printable


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("cam0", "cam0"),
        ("Außentür 2", "Außentür 2"),
        ("x\n2026-01-01 W isthmus: forged", "x\\n2026-01-01 W isthmus: forged"),
        ("\r\x1b[2J\x07", "\\r\\x1b[2J\\x07"),
        ("\u2028\u202e\ud800", "\\u2028\\u202e\\ud800"),  # a line separator, an override of direction, half a pair
    ],
)
def test_what_does_not_print_is_escaped(said: str, shown: str) -> None:
    assert printable(said) == shown


def test_what_is_long_is_cut() -> None:
    assert printable("a" * 60_000) == "a" * (SHOWN_CHARACTERS - 1) + "…"
    assert printable("a" * SHOWN_CHARACTERS) == "a" * SHOWN_CHARACTERS


@given(st.text(st.characters(), max_size=400), st.integers(1, 300))
def test_one_short_line_whatever_was_said(said: str, limit: int) -> None:
    shown = printable(said, limit)
    assert len(shown) <= limit
    assert shown.isprintable()
    assert printable(shown, limit) == shown
