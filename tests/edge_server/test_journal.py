"""What peers cause is written, but not as often as they like."""

from __future__ import annotations

import pytest

from isthmus.edge_server.journal import BURST_LINES, LINES_PER_S, Journal


def test_a_flood_is_counted_and_hides_no_other_kind(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    journal = Journal()
    for n in range(1000):
        journal.write("refused", f"stream {n}: refused", now=100.0)
    journal.write("left", "stream 7: left", now=100.0)
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [f"stream {n}: refused" for n in range(BURST_LINES)] + ["stream 7: left"]
    caplog.clear()
    journal.write("refused", "stream 1000: refused", now=100.0 + 1 / LINES_PER_S)
    assert caplog.messages == [f"stream 1000: refused ({1000 - BURST_LINES} more like it were not written)"]
    caplog.clear()
    for minute in range(10):
        journal.write("refused", "later", now=200.0 + 60 * minute)
    assert caplog.messages == ["later"] * 10
