"""Clips replayed as streams, in worlds with and without a tracker."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from clips import AGEING, CLIPS, FRAMES, made
from isthmus.device.tracking.tracks import Place
from isthmus.emulation import policies, run_summary
from isthmus.emulation.sequences import table as sequences
from isthmus.emulation.sequences.ageing import AGES, counted
from isthmus.emulation.sequences.clips import ByName, Clips
from isthmus.emulation.sequences.rows import Rows, found
from isthmus.emulation.simulate import simulate
from isthmus.emulation.virtual.scenario import Scenario
from isthmus.models.bundle import Bundle
from isthmus.proto.errors import ConfigError, DataError
from isthmus.proto.record import FrameRecord
from isthmus.proto.vocabulary import Box

HERE = (0.1, 0.1, 0.2, 0.2)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return made(tmp_path_factory.mktemp("zoo"))


def played(bundle: Bundle, policy: str = "expected-utility", **changes: Any) -> list[FrameRecord]:
    values = {
        "bundle": str(bundle.folder),
        "clips": True,
        "policy": policy,
        "trace": "lte-drive",
        "fps": 30.0,
        "deadline_s": 0.1,
        "duration_s": 8.0,
    }
    (run,) = simulate(msgspec.convert(values | changes, Scenario))
    return run.records


def test_frames_come_clip_after_clip_in_their_order(bundle: Bundle) -> None:
    feed = Clips.of(bundle).replay(1).feed(1, 0, fps=30, duration_s=6, deadline_s=0.1)
    shown = [divmod(feed.sample(i), FRAMES) for i in range(FRAMES * CLIPS)]
    assert [number for _, number in shown] == list(range(FRAMES)) * CLIPS
    assert sorted({clip for clip, _ in shown}) == list(range(CLIPS))


def test_a_slower_pace_leaves_frames_out(bundle: Bundle) -> None:
    feed = Clips.of(bundle).replay(1).feed(1, 0, fps=10, duration_s=6, deadline_s=0.1)
    assert [feed.sample(i) % FRAMES for i in range(20)] == list(range(0, FRAMES, 3))


def test_every_frame_is_answered_once_by_its_deadline_and_says_which_it_is(bundle: Bundle) -> None:
    records = sorted(played(bundle), key=lambda r: r.frame_id)
    assert [r.frame_id for r in records] == list(range(240))
    assert all(r.on_time for r in records)
    names = ByName(sequences.load(bundle))
    for r in records:
        assert r.picture is not None
        assert r.right == found(r.boxes or (), names.truth(r.picture))


def test_the_same_scenario_gives_the_same_runs(bundle: Bundle) -> None:
    assert played(bundle) == played(bundle)


def test_frames_take_what_their_deltas_took_and_are_whole_where_a_clip_begins(tmp_path: Path) -> None:
    bundle = made(tmp_path)
    assert Clips.of(bundle).replay(1).delta_sizes(FRAMES - 1, 0, 3) == (), "none were measured"
    table = sequences.load(bundle)
    deltas = np.full((*table.layer_bytes.shape[:2], 1, *table.layer_bytes.shape[2:]), 30, np.uint32)
    deltas[table.number < 3] = 0
    sequences.save(bundle, replace(table, lags=np.array([3], np.uint16), delta_bytes=deltas))
    replay = Clips.of(bundle).replay(1)
    assert {size for row in replay.delta_sizes(FRAMES - 1, 0, 2) for size in row} == {30}
    for sample, lag in ((FRAMES, 3), (FRAMES + 2, 3), (FRAMES - 1, 4)):
        assert replay.delta_sizes(sample, 0, lag) == ()


def test_a_slow_device_answers_from_what_is_tracked(bundle: Bundle) -> None:
    """So much slower, its narrowest head takes longer than a deadline."""
    slow: dict[str, Any] = {
        "profile": "pi-zero-2w",
        "deadline_s": 0.033,
        "events": [{"what": "load", "at_s": 0.0, "factor": 12.0}],
    }
    ours, alone = played(bundle, **slow), played(bundle, "local-only", **slow)
    assert Counter(r.source.value for r in ours)["track"] > 200
    assert run_summary.summary(ours).accuracy > 0.4 > (run_summary.summary(alone).accuracy or 0.0)  # type: ignore[operator]
    assert all(r.age_s > 0 for r in ours if r.source.value == "track")
    assert 0.0 < (run_summary.summary(ours).ap50 or 0.0) <= 1.0


@pytest.mark.parametrize("name", policies.ON_CLIPS)
def test_every_rival_plays_on_clips(bundle: Bundle, name: str) -> None:
    records = played(bundle, name, duration_s=2.0)
    assert len(records) == 60
    tracked = {r.source.value for r in records} & {"track"}
    assert not tracked or name in ("expected-utility", "tracker-only", "approxdet")


def test_nobody_beats_the_clairvoyant(bundle: Bundle) -> None:
    bound = run_summary.summary(played(bundle, "clairvoyant")).accuracy
    for name in ("expected-utility", "tracker-only", "always-webp"):
        assert run_summary.summary(played(bundle, name)).accuracy <= bound  # type: ignore[operator]


def test_without_a_table_of_ageing_nothing_is_tracked(tmp_path: Path) -> None:
    records = played(made(tmp_path, ageing=None))
    assert "track" not in {r.source.value for r in records}


def test_rivals_that_track_play_on_clips_only(bundle: Bundle) -> None:
    with pytest.raises(ConfigError, match="tracker-only, approxdet play on clips"):
        policies.contestant("tracker-only", bundle)
    with pytest.raises(ConfigError, match="which play on clips"):
        policies.contestant("always-jpeg", bundle, clips=True)


def test_places_are_followed_as_they_were_when_measured(bundle: Bundle) -> None:
    rows = Rows(sequences.load(bundle))
    place = Place(0.2, 0.1, 0.3, 0.2)
    (moved,) = rows.followed((0, 5), [place])
    assert moved is not None
    assert moved == pytest.approx((0.2, 0.15, 0.3, 0.25), abs=2e-3)
    assert rows.followed((0, 5), [Place(0.8, 0.8, 0.9, 0.9)]) == (None,), "where nothing was found"
    assert rows.followed((FRAMES - 2, FRAMES + 1), [place]) == (None,), "across a cut"
    assert rows.followed((5, 0), [place]) == (None,), "back to the beginning"
    assert rows.followed((0, 40), [place]) == (None,), "farther than was measured"


def test_a_frame_is_right_when_what_is_there_was_found() -> None:
    thing = Box(1, 1.0, *HERE)
    assert found((Box(1, 0.3, *HERE),), (thing,))
    assert not found((Box(2, 0.3, *HERE), Box(1, 0.2, *HERE)), (thing,)), "the surest box has another class"
    assert not found((Box(1, 0.3, 0.1, 0.16, 0.2, 0.26),), (thing,)), "beside it"
    assert found((), ())
    assert found((Box(1, 0.2, *HERE),), ())
    assert not found((Box(1, 0.3, *HERE),), ())
    assert not found((), (thing,))
    other = Box(0, 1.0, 0.5, 0.5, 0.6, 0.6)
    assert found((Box(0, 0.9, 0.5, 0.5, 0.6, 0.6), Box(1, 0.3, *HERE)), (thing, other))


def test_ageing_is_counted(bundle: Bundle) -> None:
    ageing = counted(sequences.load(bundle), bundle.manifest)
    assert ageing.ages_s == pytest.approx([age / 30 for age in AGES], abs=1e-5)
    assert len(ageing.exit) == len(ageing.server) == len(bundle.manifest.widths)
    assert ageing.exit[-1][0] > ageing.exit[0][0] + 0.1
    assert all(row[0] == pytest.approx(row[-1], abs=0.02) for row in ageing.exit), "nothing is lost on the way"


def test_a_table_of_other_networks_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="isthmus models clips"):
        sequences.load(bundle, tmp_path / "none.npz")
    path = sequences.save(bundle, sequences.load(bundle), tmp_path / "copy.npz")
    with np.load(path) as table:
        fields = dict(table)
    np.savez_compressed(path, **(fields | {"networks_sha256": np.array("0" * 64)}))
    with pytest.raises(DataError, match="other networks"):
        sequences.load(bundle, path)
    path.write_bytes(b"no table")
    with pytest.raises(DataError, match="not a table of clips"):
        sequences.load(bundle, path)
    assert bundle.manifest.ageing == AGEING
