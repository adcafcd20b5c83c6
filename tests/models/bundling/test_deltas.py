"""What is kept of a step is what answers can spare."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from isthmus.models.bundling.deltas import KEEPS, with_deltas
from isthmus.proto.codec import Codec
from isthmus.proto.frame_codec import FrameCodec
from moving import clip, temporal

FITTING, JUDGING = [clip(8, seed=20)], [clip(8, seed=21)]
PLAIN = dataclasses.replace(temporal(), deltas=None)


def test_the_most_that_answers_can_spare_is_kept() -> None:
    """Here an answer is worth less by how far features are from the clip's: whole frames are half a step off at most."""
    said: list[str] = []

    def worth(clips: Sequence[Sequence[np.ndarray]]) -> float:
        off = max(np.abs(a - b).max() for a, b in zip(clips[0], JUDGING[0], strict=True))
        return 1.0 if off <= 0.7 else 0.9

    found = with_deltas(PLAIN, FITTING, JUDGING, worth, report=said.append).deltas
    assert found is not None
    assert found.keep[1][0] == 1.0  # a step of 3, where whole frames are worth no more
    assert found.keep[1][1] == 0.7
    assert any("1 of 2 layers, 0.8 kept: worth 0.9000" in line for line in said)


def test_whole_frames_are_what_is_compared_with(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def worth(clips: Sequence[Sequence[np.ndarray]]) -> float:
        asked.append(float(clips[0][-1].sum()))
        return 0.5

    config = with_deltas(PLAIN, FITTING, JUDGING, worth, report=lambda _: None)
    assert config.deltas is not None
    assert config.deltas.keep == ((KEEPS[-1],) * 2,) * 2
    assert len(asked) == (1 + len(KEEPS)) * 4
    codec = Codec(config)
    assert asked[0] == pytest.approx(float(codec.decode(codec.encode(JUDGING[0][-1], 0)[:1]).sum()))
    FrameCodec(config)
