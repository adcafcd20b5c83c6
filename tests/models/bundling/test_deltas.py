"""What is kept of a step is what answers can spare."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from isthmus.models.bundling.deltas import KEEPS, with_deltas
from isthmus.proto.codec import Codec
from moving import clip, temporal

FITTING, JUDGING = [clip(8, seed=20)], [clip(8, seed=21)]
PLAIN = dataclasses.replace(temporal(), deltas=None)


def off(clips: Sequence[Sequence[np.ndarray]]) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(clips[0], JUDGING[0], strict=True))


def test_the_most_that_answers_can_spare_is_kept() -> None:
    """Here an answer is lost where features are too far from the clip's: whole frames are half a step off at most."""
    said: list[str] = []
    found = with_deltas(PLAIN, FITTING, JUDGING, lambda _, sent: float(off(sent) > 0.7), report=said.append).deltas
    assert found is not None
    assert found.keep[1] == (0.5, 0.7)  # steps of 3 and of 1
    assert any("1 of 2 layers, 0.8 kept: 1.0000 lost" in line for line in said)


def test_whole_frames_are_what_is_compared_with() -> None:
    config = with_deltas(PLAIN, FITTING, JUDGING, lambda whole, sent: 0.0, report=lambda _: None)
    assert config.deltas is not None
    assert config.deltas.keep == ((KEEPS[-1],) * 2,) * 2
    codec, wholes = Codec(config), list[float]()

    def lost(whole: Sequence[Sequence[np.ndarray]], sent: Sequence[Sequence[np.ndarray]]) -> float:
        wholes.append(float(whole[0][-1].sum()))
        np.testing.assert_array_equal(sent[0][0], whole[0][0])  # nothing to refer to
        return 1.0

    least = with_deltas(PLAIN, FITTING, JUDGING, lost, report=lambda _: None).deltas
    assert least is not None
    assert least.keep == ((KEEPS[0],) * 2,) * 2
    assert wholes[0] == pytest.approx(float(codec.decode(codec.encode(JUDGING[0][-1], 0)[:1]).sum()))
