"""The catalogue: a bundle's points laid out by stage, with early exits or without."""

from __future__ import annotations

import msgspec
import pytest

from isthmus.device.catalogue import Catalogue
from isthmus.models import bundle
from isthmus.models.bundle import Manifest
from isthmus.proto.errors import BundleError
from isthmus.proto.vocabulary import OperatingPoint


@pytest.fixture(scope="module")
def signs() -> Manifest:
    return bundle.load("signs").manifest


def muted(manifest: Manifest, *stages: int) -> Manifest:
    """Without the early exits of these stages, and what is known of them."""
    kept = [i for i in range(len(manifest.stages)) if i not in stages]
    return msgspec.structs.replace(
        manifest,
        stages=tuple(
            tuple(msgspec.structs.replace(s, exit=() if i in stages else s.exit) for s in stage)
            for i, stage in enumerate(manifest.stages)
        ),
        points=tuple(
            msgspec.structs.replace(p, accuracy_given=tuple(p.accuracy_given[i] for i in kept))
            for p in manifest.points
            if p.exit not in stages
        ),
    )


def test_every_stage_of_a_shipped_bundle_ends_in_an_exit(signs: Manifest) -> None:
    known = Catalogue.from_manifest(signs)
    assert [k.point for k in known.exits[0]] == [OperatingPoint(0.25, 0), OperatingPoint(0.25, 1)]
    assert known.exits[0][1].given == signs.points[1].accuracy_given


def test_a_stage_without_an_exit_stands_by_the_one_before(signs: Manifest) -> None:
    known = Catalogue.from_manifest(muted(signs, 1))
    assert [k.point.exit for k in known.exits[2]] == [0, 0]
    assert known.exits[2][1].given[1] == known.exits[2][1].given[0]
    assert known.offloads[2][0][0].given[1] == known.offloads[2][0][0].given[0]


def test_before_any_exit_there_is_nothing(signs: Manifest) -> None:
    known = Catalogue.from_manifest(muted(signs, 0, 1))
    silent, sent = known.exits[0][1], known.offloads[0][0][0]
    assert (silent.point, silent.accuracy) == (OperatingPoint(0.25), 0.0)
    assert sent.given[1][known.bin(0.0)] == sent.accuracy


def test_a_point_that_is_missing_and_an_unknown_task_are_named(signs: Manifest) -> None:
    with pytest.raises(BundleError, match=r"signs: bundle\.toml lacks OperatingPoint\(width=0.25, exit=0"):
        Catalogue.from_manifest(msgspec.structs.replace(signs, points=signs.points[1:]))
    with pytest.raises(BundleError, match="signs: task 'astrology' unknown; this Isthmus knows classification"):
        Catalogue.from_manifest(msgspec.structs.replace(signs, task="astrology"))
