"""The rivals together: who there is, what they play on, and in what they differ on the shipped bundle's own tables."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from isthmus.device.link_estimator import LinkEstimator, Outlook
from isthmus.device.scheduler import STOP, Offload, Situation
from isthmus.device.stage_times import StageTimes
from isthmus.emulation import policies
from isthmus.models import bundle, inputs, seal
from isthmus.models.bundling import picture_rival
from isthmus.proto.errors import ConfigError, DataError
from isthmus.proto.vocabulary import Guess, OperatingPoint, StageResult

SIGNS = bundle.load("signs")
SURE, UNSURE = Guess(0, 0.99), Guess(0, 0.4)


def situation(*, goodput_Bps: float | None = 1e6, budget_s: float = 0.15) -> Situation:
    """A link that has shown `goodput_Bps` and 20 ms; None is a lost one. The head takes 4 to 16 ms."""
    times = StageTimes([[0.002, 0.004, 0.006, 0.008]] * 2)
    return Situation(budget_s, None if goodput_Bps is None else outlook(goodput_Bps), times, 1 / 15)


def outlook(goodput_Bps: float) -> Outlook:
    link = LinkEstimator()
    for n in range(200):
        link.on_sent(n, 0, 500, now := n * 2.0)
        link.on_ack(n, 0, now + 0.02 + 500 / goodput_Bps)
        link.on_beat_sent(n, now + 1.5)
        link.on_beat(n, now + 1.52 + 30 / goodput_Bps)
    return link.outlook(now + 1.6)


def mean_sizes(name: str) -> tuple[tuple[int, ...], ...]:
    content = policies.contestant(name, SIGNS).content
    return tuple(tuple(int(b) for b in row) for row in content.outcomes.layer_bytes.mean(axis=(0, 1)))


def chosen(name: str, where: Situation, guess: Guess = UNSURE) -> object:
    """What the rival does after the last exit, its width chosen before."""
    contestant = policies.contestant(name, SIGNS)
    policy = contestant.new_policy()
    width = contestant.content.catalogue.widths[policy.width(where)]
    return policy.after_exit(StageResult(0, 1, width, guess, 0.008, mean_sizes(name)), where)


def test_an_unknown_policy_is_refused_with_the_names() -> None:
    with pytest.raises(
        ConfigError,
        match=r"'psychic' is not one of expected-utility, .*slimmable, trace-clair.*; or name",
    ):
        policies.contestant("psychic", SIGNS)


@pytest.mark.parametrize("name", policies.available(SIGNS))
def test_every_contestant_knows_what_each_of_its_points_answered(name: str) -> None:
    contestant = policies.contestant(name, SIGNS)
    catalogue, outcomes = contestant.content.catalogue, contestant.content.outcomes
    columns = {point: i for i, point in enumerate(contestant.content.points)}
    points = [k.point for width in catalogue.exits for k in width]
    points += [k.point for width in catalogue.offloads for row in width for k in row]
    assert sorted(columns, key=repr) == sorted(points, key=repr)
    n, widths, steps = len(outcomes.truth), len(catalogue.widths), len(catalogue.offloads[0])
    assert outcomes.label.shape == outcomes.confidence.shape == (n, len(points))
    assert outcomes.layer_bytes.shape == (n, widths, steps, len(catalogue.offloads[0][0]))
    for known in (k for width in catalogue.offloads for row in width for k in row):
        right = outcomes.label[:, columns[known.point]] == outcomes.truth  # of those that judge; accuracies are of all
        assert right.mean() == pytest.approx(known.accuracy, abs=0.01)


def test_pictures_cost_more_the_better_they_are() -> None:
    for name in ("always-jpeg", "always-webp"):
        sizes = [row[0] for row in mean_sizes(name)]
        assert sizes == sorted(sizes, reverse=True)


def test_a_bundle_without_a_table_of_inputs_lacks_those_rivals_only(tmp_path: Path) -> None:
    folder = tmp_path / "signs"
    shutil.copytree(SIGNS.folder, folder, ignore=shutil.ignore_patterns("inputs.npz"))
    bare = bundle.load(str(folder))
    assert set(policies.NAMES) - set(policies.available(bare)) == {"always-jpeg", "always-webp"}
    with pytest.raises(DataError, match=r"inputs\.npz: not there; run `isthmus models inputs signs`"):
        policies.contestant("always-jpeg", bare)
    (folder / "inputs.npz").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"inputs\.npz: not a table of inputs"):
        inputs.load(bare)


def test_a_table_of_another_bundle_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "signs"
    shutil.copytree(SIGNS.folder, folder, ignore=shutil.ignore_patterns(seal.SEAL))
    path = folder / "bundle.toml"
    path.write_text(path.read_text().replace("made_by = ", "made_by = 'another' # "))
    with pytest.raises(DataError, match="measured with another bundle"):
        inputs.load(bundle.load(str(folder)))


def test_coding_counts_only_what_differs_between_files() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (4, 32, 32, 3)).astype(np.uint8)
    for format_ in inputs.FORMATS:
        fine, fine_bytes = picture_rival.coded(images, format_, 90)
        coarse, coarse_bytes = picture_rival.coded(images, format_, 10)
        assert (coarse_bytes < fine_bytes).all()
        error = [float(np.abs(x.astype(float) - images).mean()) for x in (fine, coarse)]
        assert error[0] < error[1]


def test_sure_frames_stay_with_spinn_and_go_with_slimmable() -> None:
    here = situation()
    assert chosen("spinn", here, SURE) == STOP
    assert isinstance(chosen("spinn", here), Offload)
    assert isinstance(chosen("slimmable", here, SURE), Offload)


def test_a_dead_link_leaves_every_rival_its_exits() -> None:
    here = situation(goodput_Bps=None)
    for name in policies.available(SIGNS):
        assert chosen(name, here) == STOP, name


def test_on_a_narrow_link_those_that_count_stop_and_those_that_always_send_send_little() -> None:
    here = situation(goodput_Bps=100.0)
    assert chosen("throughput-argmax", here) == chosen("spinn", here) == STOP
    assert chosen("slimmable", here) == Offload(3, 1)
    assert chosen("always-webp", here) == Offload(4, 1)
    assert chosen("static-split", here) == chosen("static-split", situation())


def test_points_are_named_by_quality() -> None:
    content = policies.contestant("always-jpeg", SIGNS).content
    assert OperatingPoint(1.0, None, len(inputs.QUALITIES) - 1, 1) in content.points
