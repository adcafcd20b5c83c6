"""A table of a made clip, measured with the shipped detector's own halves."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from isthmus.emulation.sequences.measure import LAGS, Pixels, measure
from isthmus.emulation.sequences.table import Sequences
from isthmus.models import bundle as bundles
from isthmus.proto.vocabulary import Box

FRAMES = 5


class Passing:
    """A dark square that goes to the right before a grey sky; in its last two frames it stands still."""

    name = "passing"

    def frames(self, every: int = 1) -> Iterator[tuple[int, Pixels]]:
        """See `Footage`."""
        for number in range(0, FRAMES, every):
            pixels = np.full((256, 320, 3), 160, np.uint8)
            left = 40 + 20 * min(number, FRAMES - 2)
            pixels[100:130, left : left + 40] = 20
            yield number, pixels

    def truth(self, number: int, shape: tuple[int, ...]) -> tuple[Box, ...]:
        """See `Footage`."""
        return (Box(0, 1.0, 0.4, 0.2, 0.5, 0.3),)


@pytest.fixture(scope="module")
def table() -> Sequences:
    return measure(bundles.load("skywatch"), [(Passing(), 30.0), (Passing(), 30.0)], lambda line: None, pictures=False)


def test_frames_keep_their_order_clip_after_clip(table: Sequences) -> None:
    assert table.clip.tolist() == [0] * FRAMES + [1] * FRAMES
    assert table.number.tolist() == [*range(FRAMES), *range(FRAMES)]
    assert table.picture_bytes.shape == (2 * FRAMES, 0)


def test_what_a_frame_takes_against_those_before_it_in_its_clip(table: Sequences) -> None:
    widths, steps = len(bundles.load("skywatch").manifest.widths), table.layer_bytes.shape[2]
    assert table.lags.tolist() == list(LAGS)
    assert table.delta_bytes.shape == (2 * FRAMES, widths, len(LAGS), steps, 2)
    for g, lag in enumerate(LAGS):
        known = (table.delta_bytes[:, :, g] > 0).all(axis=(1, 2, 3))
        assert known.tolist() == [number >= lag for number in table.number]
    still, whole = table.delta_bytes[FRAMES - 1, :, 0], table.layer_bytes[FRAMES - 1].cumsum(axis=-1)
    assert (still < 0.1 * whole).all(), "nothing moved"


def test_each_clip_is_measured_alone(table: Sequences) -> None:
    assert (table.delta_bytes[:FRAMES] == table.delta_bytes[FRAMES:]).all()
    assert (table.layer_bytes[:FRAMES] == table.layer_bytes[FRAMES:]).all()
