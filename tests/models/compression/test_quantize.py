"""int8 heads: the search finds what a space hides, and a quantised head is a head like any other."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("ai_edge_quantizer", reason="ai-edge-quantizer is not installed; quantising needs it")
pytest.importorskip("sklearn", reason="scikit-learn is not installed; the search needs it")

from isthmus.models import bundle, scenes
from isthmus.models.compression.quantize import (
    Agreement,
    HeadQuantiser,
    How,
    Options,
    Trial,
    best,
    every_option,
    quantise,
    search,
)
from isthmus.models.litert import opened
from isthmus.proto.errors import DataError


def landscape(options: Options) -> Trial:
    """Calibration counts most, then granularity, then what stays float; one best way."""
    worth = {8: 0.0, 32: 0.2, 128: 0.3}[options.calibrating] + 0.2 * (options.granularity == "channel")
    worth += 0.1 * (options.kept_float == "projection") + 0.05 * (options.algorithm == "mse")
    return Trial(options, worth, 100)


@pytest.mark.parametrize("how", ["boosted", "random"])
def test_a_search_tries_nothing_twice_and_is_repeatable(how: How) -> None:
    tried = search(landscape, every_option(), how=how, trials=20, seed=3)
    assert len({t.options for t in tried}) == 20
    assert tried == search(landscape, every_option(), how=how, trials=20, seed=3)


def test_a_search_ends_with_its_space() -> None:
    space = every_option()[:5]
    assert len(search(landscape, space, how="boosted", trials=50, seed=1)) == 5


def test_boosted_trees_find_the_best_sooner_than_chance() -> None:
    def found(how: How) -> float:
        runs = [search(landscape, every_option(), how=how, trials=14, seed=seed) for seed in range(5)]
        return float(np.mean([best(run).agreement for run in runs]))

    assert found("boosted") > found("random")


def test_of_equals_the_smallest_is_best() -> None:
    options = every_option()
    assert best([Trial(options[0], 0.9, 200), Trial(options[1], 0.9, 100), Trial(options[2], 0.8, 1)]).size_bytes == 100


def test_a_quantised_head_is_smaller_has_the_same_signatures_and_answers_alike() -> None:
    signs = bundle.load("signs")
    images, _ = scenes.samples(24, 7)
    head = HeadQuantiser(signs, images[:8]).head(Options("channel", "min-max", 8, "nothing"))
    assert len(head) < 0.5 * signs.head_path.stat().st_size
    assert opened(head).get_signature_list() == opened(signs.head_path).get_signature_list()
    score = Agreement(signs, images[8:])
    assert score(head) > 0.7
    assert score(signs.head_path.read_bytes()) == 1.0


def test_too_few_pictures_are_refused() -> None:
    with pytest.raises(DataError, match=r"signs: 3 pictures to quantise with; the search takes 528"):
        quantise(
            bundle.load("signs"),
            np.zeros((3, 128, 128, 3), np.uint8),
            None,  # type: ignore[arg-type]
            None,  # type: ignore[arg-type]
            how="random",
            trials=1,
            seed=1,
            report=print,
        )
