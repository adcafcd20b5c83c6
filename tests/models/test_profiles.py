"""Profiles: no number without a source, times and joules as their rules say, and fits that can be made again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from isthmus.models import bundle, profiles, rates, work
from isthmus.proto.compat import tomllib
from isthmus.proto.errors import ConfigError, DataError

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from published_models import costs

DEVICES = [name for name in profiles.names() if profiles.load(name).kind == "device"]


def numbers_without_a_source(table: Any, where: str = "") -> list[str]:
    """Every table of a file that holds a number and does not say where it comes from."""
    if isinstance(table, list):
        return [found for i, row in enumerate(table) for found in numbers_without_a_source(row, f"{where}[{i}]")]
    if not isinstance(table, dict):
        return []
    found = [f for key, value in table.items() for f in numbers_without_a_source(value, f"{where}.{key}")]
    holds = any(isinstance(v, int | float) and not isinstance(v, bool) for k, v in table.items() if k != "schema")
    return found + [where] * (holds and not {"source", "confidence"} <= set(table))


def edited(tmp_path: Path, *changes: tuple[str, str]) -> str:
    """Pi 4's profile, changed."""
    text = profiles.path_of("pi4").read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    (tmp_path / "mine.toml").write_text(text)
    return str(tmp_path / "mine.toml")


def test_what_is_shipped() -> None:
    assert set(profiles.names()) == {
        *("edge-server", "edge-server-gpu", "jetson-nano", "jetson-nano-gpu", "orin-nano", "orin-nano-gpu"),
        *("pi-zero-2w", "pi3b-plus", "pi4", "pi5"),
    }


@pytest.mark.parametrize("path", sorted(profiles.BOARDS.glob("*.toml")), ids=lambda p: p.stem)
def test_no_number_without_a_source(path: Path) -> None:
    table = tomllib.loads(path.read_text())
    assert not numbers_without_a_source(table)
    assert all(table["sources"].values())


@pytest.mark.parametrize("gone", ['source = "ncnn", ', 'confidence = "published", '])
def test_a_number_without_a_source_is_refused(tmp_path: Path, gone: str) -> None:
    with pytest.raises(ConfigError, match=r"mine\.toml: .*missing required field `(source|confidence)`"):
        profiles.load(edited(tmp_path, (gone, "")))


def test_a_source_that_is_not_explained_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"mine\.toml: timings\[0\]: source 'hearsay' is not explained"):
        profiles.load(edited(tmp_path, ('source = "ncnn"', 'source = "hearsay"')))


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("idle_W = 3.1", "idle_W = 3.1, idle_mW = 3.1", "idle_mW"),
        ("idle_W = 3.1", "idle_W = -3.1", r"power\.idle_W = -3.1, expected a finite number of at least 0"),
        ("idle_W = 3.1", "idle_W = nan", r"power\.idle_W = nan"),
        ("schema = 1", "schema = 2", "schema 2, this Isthmus reads schema 1"),
        ("schema = 1", "schema = [", "not valid TOML"),
        ("schema = 1", "schema = 1\nslowdown = 2.0", "slowdown: not part of a file"),
        ('workload = "resnet18"', 'workload = "resnet19"', "no workload 'resnet19'; known: .*resnet18"),
        ('confidence = "published"', 'confidence = "certain"', "certain"),
    ],
)
def test_nonsense_is_refused_by_name(tmp_path: Path, old: str, new: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        profiles.load(edited(tmp_path, (old, new)))


def test_an_unknown_profile_lists_what_there_is() -> None:
    with pytest.raises(
        ConfigError, match=r"profile: no 'pi6'; there are edge-server, .*-gpu, .*pi4, pi5, or name a file"
    ):
        profiles.load("pi6")


@pytest.mark.parametrize("name", profiles.names())
def test_a_profile_reads_back_as_it_was_written(tmp_path: Path, name: str) -> None:
    profile = profiles.load(name)
    (tmp_path / "again.toml").write_text(profiles.render(profile))
    assert profiles.load(str(tmp_path / "again.toml")) == profile


@pytest.mark.parametrize("name", profiles.names())
def test_stored_rates_are_those_of_the_fit(name: str) -> None:
    """Whoever edits a timing fits again: `isthmus bench profiles --write`."""
    profile = profiles.load(name)
    fitted, _ = rates.fit(profile, source="fit")
    assert fitted.rates == profile.rates


@pytest.mark.parametrize("name", DEVICES)
def test_networks_left_out_of_the_fit_are_predicted(name: str) -> None:
    """What the docs promise of published boards: half of them within a quarter, on all threads and on one."""
    assert all(r.left_out_median < 0.25 for r in profiles.load(name).rates)


def test_the_suite_is_what_its_layers_cost() -> None:
    suite = profiles.suite()
    assert {k: {"flops": c.flops, "traffic_bytes": c.traffic_bytes, "ops": c.ops} for k, c in suite.items()} == costs()


def test_times_follow_the_rule() -> None:
    pi = profiles.load("pi4")
    one, factor = next(r for r in pi.rates if r.threads == "one"), pi.runtime.factor if pi.runtime else 1.0
    assert pi.stage_s(1e9, 1e7, threads="one") == pytest.approx((1e9 * one.flop_s + 1e7 * one.byte_s) * factor)
    assert pi.stage_s(1e9, threads="all") < pi.stage_s(1e9, threads="one")
    assert pi.stage_s(1e9, int8=True) == pytest.approx(pi.stage_s(1e9) * 0.56)
    assert pi.dispatch is not None
    assert pi.stage_s(1e6, ops=20) - pi.stage_s(1e6) == pytest.approx(20 * pi.dispatch.op_s)
    gpu = profiles.load("orin-nano-gpu")
    assert gpu.stage_s(1e6, ops=20, threads="one") == gpu.stage_s(1e6, ops=20) > gpu.stage_s(1e6, ops=10)
    with pytest.raises(ConfigError, match="orin-nano-gpu: no int8"):
        gpu.stage_s(1e6, int8=True)


def test_throttling_slows_down_and_lists_its_states() -> None:
    pi = profiles.load("pi3b-plus")
    assert pi.throttled("soft-limit").stage_s(1e9) == pytest.approx(1.17 * pi.stage_s(1e9))
    assert pi.throttled("throttled").throttled("none") == pi
    with pytest.raises(ConfigError, match="'melting' is not a state of pi3b-plus; it has none, soft-limit, throttled"):
        pi.throttled("melting")


def test_a_servers_batches_grow_with_what_is_in_them() -> None:
    server = profiles.load("edge-server")
    times = [server.tail_s(1e8, batch) for batch in (1, 2, 4, 8)]
    assert times == sorted(times)
    assert times[0] > 0


def test_one_server_gains_by_batches_and_one_does_not() -> None:
    """With linear servers alone no emulation showed that a batcher under load gave half its capacity away."""
    gain = {
        name: 8 * profiles.load(name).tail_s(1e8, 1) / profiles.load(name).tail_s(1e8, 8)
        for name in ("edge-server", "edge-server-gpu")
    }
    assert gain["edge-server"] < 1.1
    assert gain["edge-server-gpu"] > 4


def test_energy_adds_up() -> None:
    pi = profiles.load("pi4")
    assert pi.energy(active_s=0, idle_s=2) == (0, 0)
    busy = pi.energy(active_s=0.5, idle_s=1.5, messages=2, bytes_up=1000)
    assert busy.compute_J == pytest.approx(0.5 * (6.1 - 3.1))
    wifi = profiles.radios()["wifi"]
    sent_J = 2 * wifi.message_J + 1000 * wifi.up_J_per_B
    assert busy.radio_J == pytest.approx(sent_J + 2 * wifi.tail_s * wifi.tail_W)
    assert busy.above_idle_J == busy.compute_J + busy.radio_J


def test_a_radio_lingers_no_longer_than_the_time_there_is() -> None:
    pi, lte = profiles.load("pi4"), profiles.radios()["lte"]
    often = pi.energy(active_s=0, idle_s=10, messages=100, radio="lte")
    assert often.radio_J == pytest.approx(10 * lte.tail_W)
    with pytest.raises(ConfigError, match="radio: 'pigeon' is not one of wifi, lte, 3g"):
        pi.energy(active_s=0, idle_s=1, radio="pigeon")


@given(
    arrays(float, (6, 3), elements=st.floats(0, 10).map(lambda x: round(x, 3))),
    arrays(float, 6, elements=st.floats(-10, 10).map(lambda x: round(x, 3))),
)
def test_non_negative_least_squares_meets_its_conditions(a: Any, b: Any) -> None:
    """Karush-Kuhn-Tucker: no unknown below zero, and no move along one, not below zero either, that helps."""
    x = rates.non_negative(a, b)
    assert (x >= 0).all()
    error = np.sum((a @ x - b) ** 2)
    for i in range(3):
        for move in (-1e-3, 1e-3):
            y = x.copy()
            y[i] = max(0.0, y[i] + move)
            assert np.sum((a @ y - b) ** 2) >= error - 1e-6 * (1 + error)


def test_a_fit_finds_the_rates_that_made_its_timings() -> None:
    pi = profiles.load("pi4")
    work_, _, workloads = rates.table(pi, "all", rates.DEVICE_TERMS)
    truth = np.array([1e-5, 2e-11, 3e-10])
    errors = rates.left_out(work_, work_ @ truth, workloads)
    assert max(map(abs, errors.values())) < 1e-6


def test_int8_is_judged_by_what_float_would_have_taken() -> None:
    pi = profiles.load("pi4")
    rate = {r.threads: r for r in pi.rates}
    v1 = pi.cost("mobilenet_v1")
    for found in rates.int8_factors(pi, source="fit"):
        timed = next(t.seconds for t in pi.timings if t.int8 and t.threads == found.threads)
        float_s = rate[found.threads].seconds(v1.flops, v1.traffic_bytes, v1.ops)
        assert found.factor == pytest.approx(timed / float_s, rel=0.01)


def test_one_workload_is_no_fit() -> None:
    with pytest.raises(DataError, match="only 'a' was timed"):
        rates.left_out(np.ones((2, 1)), np.ones(2), ["a", "a"])


@pytest.mark.parametrize("name", ["cifar10", "signs"])
def test_the_work_of_a_head_is_what_its_bundle_says(name: str) -> None:
    found = bundle.load(name)
    for (stage, width), counted in work.of_head(found).items():
        assert counted.flops == pytest.approx(found.stage(stage, width).flops, rel=0.01)
        assert counted.traffic_bytes > 0
    pi = profiles.load("pi4")
    times = work.stage_times(pi, found)
    assert work.stage_times(pi, found, int8=True)[1][-1] < times[1][-1]
    assert all(list(row) == sorted(row) for row in times)
