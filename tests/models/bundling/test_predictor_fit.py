"""Predictors: what classes tell is found, what noise tells is not, and the device reads them as they were fitted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from isthmus.device.catalogue import Catalogue
from isthmus.device.deciding.expectation import Expectation
from isthmus.models import bundle as bundles
from isthmus.models.bundle import Outcomes
from isthmus.models.bundling import predictor_fit, recount
from isthmus.models.data.corpora import halves
from isthmus.proto.errors import BundleError
from isthmus.proto.vocabulary import Guess

SIGNS = bundles.load("signs")
TABLE = SIGNS.outcomes()


def test_a_regression_finds_the_weights_that_made_its_samples() -> None:
    rng = np.random.default_rng(1)
    x = np.hstack([np.ones((20_000, 1)), rng.normal(size=(20_000, 2))])
    made = np.array([0.5, -1.0, 2.0])
    y = (rng.random(20_000) < 1 / (1 + np.exp(-x @ made))).astype(float)
    assert predictor_fit.regressed(x, y, np.full(3, 1e-3)) == pytest.approx(made, abs=0.1)
    drawn = predictor_fit.regressed(x, y, np.array([1e-3, 1e-3, 1e9]))
    assert abs(drawn[2]) < 1e-3


def test_the_shipped_predictor_is_what_its_own_outcome_table_gives() -> None:
    assert predictor_fit.fitted(SIGNS.manifest, TABLE) == SIGNS.manifest.predictors


def test_on_pictures_that_fitted_nothing_it_is_calibrated_and_tells_more_than_the_bins() -> None:
    known = Catalogue.from_manifest(SIGNS.manifest)
    smart, plain = Expectation(known), Expectation(replace(known, predictors=()))
    columns = {p.key: i for i, p in enumerate(SIGNS.manifest.points)}
    width = len(known.widths) - 1
    before, last = (columns[known.exits[width][stage].point] for stage in (0, 1))
    held_in = TABLE.calibrating
    assert held_in is not None
    judged = np.flatnonzero(~held_in)
    right = TABLE.label[judged, last] == TABLE.truth[judged]

    def said(expectation: Expectation) -> np.ndarray:
        return np.array(
            [
                expectation.chances(
                    width,
                    1,
                    Guess(int(TABLE.label[n, last]), float(TABLE.confidence[n, last])),
                    Guess(int(TABLE.label[n, before]), float(TABLE.confidence[n, before])),
                ).exit
                for n in judged
            ]
        )

    def loss(p: np.ndarray) -> float:
        return float(-np.log(np.where(right, p, 1 - p)).mean())

    with_classes = said(smart)
    assert loss(with_classes) < 0.75 * loss(said(plain))
    assert with_classes.mean() == pytest.approx(right.mean(), abs=0.02)


def test_there_is_none_where_it_could_say_nothing() -> None:
    held_in = TABLE.calibrating
    assert held_in is not None
    few = np.flatnonzero(held_in)[:100]
    lacking: list[Outcomes] = [
        replace(TABLE, calibrating=None),
        replace(TABLE, calibrating=np.isin(np.arange(len(held_in)), few)),
        replace(TABLE, score=np.zeros(TABLE.label.shape, np.float16)),
    ]
    for table in lacking:
        assert predictor_fit.fitted(SIGNS.manifest, table) == ()
    silent = tuple(tuple(msgspec.structs.replace(s, exit=()) for s in row) for row in SIGNS.manifest.stages[:1])
    without = msgspec.structs.replace(SIGNS.manifest, stages=silent + SIGNS.manifest.stages[1:])
    assert predictor_fit.fitted(without, TABLE) == ()


def test_what_is_right_by_chance_is_left_to_the_bins() -> None:
    """Right and wrong drawn without regard to anything: no class tells anything."""
    rng = np.random.default_rng(2)
    truth = np.where(rng.random(TABLE.label.shape[0]) < 0.9, TABLE.label[:, -1], 255).astype(np.uint8)
    same = np.broadcast_to(TABLE.label[:, -1:], TABLE.label.shape)
    assert predictor_fit.fitted(SIGNS.manifest, replace(TABLE, truth=truth, label=same)) == ()


def numbers(value: object) -> list[float]:
    """All of them in nested tables, in their order."""
    match value:
        case dict():
            return [number for key in sorted(value) for number in numbers(value[key])]
        case list() | tuple():
            return [number for each in value for number in numbers(each)]
        case int() | float():
            return [float(value)]
        case _:
            return []


def test_an_older_bundle_is_given_a_predictor_and_its_networks_stay(tmp_path: Path) -> None:
    made = recount.recounted(SIGNS, tmp_path / "again", halves(len(TABLE.truth)))
    networks = [name for name in SIGNS.manifest.files if name.endswith((".tflite", ".onnx"))]
    assert networks
    assert [made.manifest.files[name] for name in networks] == [SIGNS.manifest.files[name] for name in networks]
    told = [msgspec.to_builtins(msgspec.structs.replace(each.manifest, files={})) for each in (made, SIGNS)]
    found, kept = (numbers(each) for each in told)
    assert found == pytest.approx(kept, abs=0.01)  # sums of another order, by the number of threads
    assert bundles.load(str(tmp_path / "again")).manifest.predictors


def test_a_bundle_whose_tables_were_counted_on_others_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="signs: its tables were not counted on the usual half"):
        recount.recounted(SIGNS, tmp_path / "again", ~halves(len(TABLE.truth)))
    assert not (tmp_path / "again").exists()
