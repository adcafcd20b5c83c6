"""Whether a half is alive and ready, in the words that a probe is given."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from isthmus.proto.monitoring.labels import OTHER, Names
from isthmus.proto.monitoring.vitals import STILL_S, Vitals


def test_it_begins_alive_and_not_ready() -> None:
    vitals = Vitals()
    assert vitals.why_dead(1e6) is None, "loading may take its time"
    assert vitals.why_not_ready(1e6) == "starting"


def test_ready_until_it_is_not() -> None:
    vitals = Vitals()
    vitals.beat(10.0)
    vitals.ready()
    assert vitals.why_not_ready(10.5) is None
    vitals.not_ready("draining")
    assert vitals.why_not_ready(10.5) == "draining"
    assert vitals.why_dead(10.5) is None, "who drains must not be killed for it"


def test_a_loop_that_stands_still_is_dead_and_not_ready() -> None:
    vitals = Vitals()
    vitals.ready()
    vitals.beat(10.0)
    assert vitals.why_dead(10.0 + STILL_S - 0.1) is None
    assert vitals.why_dead(22.0) == vitals.why_not_ready(22.0) == "the event loop has not run for 12 s"
    vitals.beat(23.0)
    assert vitals.why_not_ready(23.0) is None


@given(st.lists(st.text(max_size=5), max_size=40), st.integers(1, 5))
def test_labels_are_few_whatever_the_names(names: list[str], most: int) -> None:
    labels = Names(most)
    given_out = {labels.label(name) for name in names}
    assert len(given_out - {OTHER}) <= most
    assert all(label.isprintable() and label for label in given_out)
    assert [labels.label(name) for name in names] == [labels.label(name) for name in names], "a name keeps its label"
