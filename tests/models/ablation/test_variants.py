"""Variants that a training can do by itself: what they change, how a run is named by them, and which go together."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed; the training rooms need it")

from isthmus.models.ablation.trainers import VectorTrainer
from isthmus.models.ablation.variants import open_run
from isthmus.models.training.recipes import RECIPES
from isthmus.models.training.trainer import Trainer
from isthmus.proto.errors import ConfigError


def test_a_recipe_takes_variants_one_after_the_other() -> None:
    opened = open_run("cifar10", variants=["maxpool", "whitened"])
    assert (opened.name, opened.recipe.arch.pooling, opened.recipe.whitened) == (
        "cifar10-maxpool-whitened",
        "max",
        True,
    )
    assert opened.arguments == "cifar10 --variant maxpool --variant whitened"
    assert opened.trainer is Trainer


def test_a_variant_may_bring_its_own_trainer_beside_others_that_change_the_recipe() -> None:
    opened = open_run("cifar10", variants=["vector", "whitened"])
    assert opened.trainer is VectorTrainer
    assert opened.recipe.whitened
    assert open_run("cifar10").trainer is Trainer
    assert open_run("cifar10").recipe == RECIPES["cifar10"]


def test_own_pictures_come_with_variants_too(tmp_path: Path) -> None:
    for name in ("bus", "bicycle"):
        (tmp_path / "street" / name).mkdir(parents=True)
        for i in range(6):
            assert cv2.imwrite(str(tmp_path / "street" / name / f"{i}.png"), np.full((40, 50, 3), 40 * i, np.uint8))
    opened = open_run("cifar10", tmp_path / "street", ["vector"])
    assert (opened.name, opened.arguments) == ("street-vector", "cifar10 --variant vector --pictures street")


def test_what_no_training_can_do_by_itself_is_refused() -> None:
    with pytest.raises(ConfigError, match="guide: no variant that a training can do by itself; there are base, "):
        open_run("cifar10", variants=["guide"])
    with pytest.raises(ConfigError, match="frozen-head: changes the training itself, as vector does; give one of them"):
        open_run("cifar10", variants=["vector", "maxpool", "frozen-head"])
