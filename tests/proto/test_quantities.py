"""Durations, sizes and rates as people write them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.proto import quantities


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("100ms", "s", 0.1),
        (" 5 m ", "s", 300.0),
        (".5s", "s", 0.5),
        ("250us", "s", 0.00025),
        ("250µs", "s", 0.00025),
        ("1d", "s", 86_400.0),
        ("20kB", "bytes", 20_000.0),
        ("64 mb", "bytes", 64e6),
        ("1KiB", "bytes", 1024.0),
        ("5Mbit/s", "mbps", 5.0),
        ("16kbit/s", "mbps", 0.016),
    ],
)
def test_what_people_write_is_read(text: str, unit: str, value: float) -> None:
    assert quantities.parse(text, unit, bare=False) == value


@pytest.mark.parametrize(
    ("text", "unit", "why"),
    [
        ("100", "s", "'100' has no unit; write 100ms or 100s"),
        ("5x", "s", "'x' is no unit of a duration; known: us, ms, s, m, min, h, d"),
        ("soon", "s", "'soon' is not a duration; write 100ms or 5s"),
        ("-1s", "s", "'-1s' is not a duration"),
        ("1e3s", "s", "'1e3s' is not a duration"),
        ("", "bytes", "'' is not a size; write 100B or 5kB"),
        ("5ms", "mbps", "'ms' is no unit of a rate"),
    ],
)
def test_the_way_to_write_it_is_told(text: str, unit: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        quantities.parse(text, unit, bare=False)


@given(st.sampled_from(sorted(quantities.UNITS)), st.floats(0.001, 1e6))
def test_a_number_alone_is_one_of_the_unit_where_that_is_said(unit: str, value: float) -> None:
    assert quantities.parse(f"{value:.6f}", unit, bare=True) == pytest.approx(value, abs=1e-6)


def test_a_name_tells_its_unit() -> None:
    found = [quantities.unit_of(key) for key in ("deadline_s", "record_total_bytes", "max_mbps", "fps", "threads")]
    assert found == ["s", "bytes", "mbps", None, None]
