"""The share of sent frames that come back in time is kept, however wrong what is promised of the link is."""

from __future__ import annotations

import random

import pytest

from isthmus.device.deciding.kept_share import BEGIN, PATIENCE, STEP, KeptShare


def sent(kept: KeptShare, wrong: float, frames: int, seed: int = 1) -> list[bool]:
    """What became of those that were sent: of a frame with the promise p, p to the power of `wrong` come back."""
    rng, came = random.Random(seed), list[bool]()
    for _ in range(frames):
        promised = rng.random() ** 0.3  # as on a link that is mostly good
        if promised < kept.least:
            kept.learn(None, came=False)
            continue
        came.append(rng.random() < promised**wrong)
        kept.learn(promised, came=came[-1])
    return came


@pytest.mark.parametrize("wrong", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("share", [0.7, 0.9])
def test_the_share_is_kept_whatever_was_promised(wrong: float, share: float) -> None:
    came = sent(KeptShare(share), wrong, 20_000)
    free = sent(KeptShare(), wrong, 20_000)
    assert len(came) > 1000
    assert sum(came) / len(came) >= min(share, sum(free) / len(free)) - 0.02
    if sum(free) / len(free) < share:
        assert sum(came) / len(came) <= share + 0.02, "no more is held back than the share asks for"


def test_without_a_share_everything_may_be_sent() -> None:
    kept = KeptShare()
    for _ in range(100):
        kept.learn(0.1, came=False)
    assert kept.least == 0.0


def test_a_link_that_was_given_up_is_tried_again() -> None:
    kept = KeptShare(0.9)
    while kept.least < 1.0:
        kept.learn(0.9, came=False)
    for _ in range(PATIENCE):
        assert kept.least == 1.0
        kept.learn(None, came=False)
    assert kept.least == 1.0 - STEP


def test_a_frame_now_and_then_that_is_not_worth_sending_changes_nothing() -> None:
    kept = KeptShare(0.9)
    for _ in range(200):
        for _ in range(PATIENCE - 2):
            kept.learn(None, came=False)
        kept.learn(0.95, came=True)
    assert kept.least < BEGIN
