"""Where CIFAR-10 comes from: the data folder, or torchvision, or a clear word on how to come by it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from isthmus.models.data import labelled
from isthmus.proto.errors import DataError
from real_data import data as shared


def torchvision(monkeypatch: pytest.MonkeyPatch, cifar10: Any) -> None:
    """Stand in for torchvision, whose download needs a network."""
    module = ModuleType("torchvision.datasets")
    module.__dict__["CIFAR10"] = cifar10
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", module)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder without CIFAR-10."""
    monkeypatch.setenv("ISTHMUS_DATA", str(tmp_path))
    return tmp_path


def test_the_data_folder_comes_first() -> None:
    shared("cifar10")
    test = labelled.cifar10("test")
    assert test.images.shape == (10_000, 32, 32, 3)
    assert np.bincount(test.labels[:1000]).tolist() == [100] * 10


def test_a_label_that_is_no_class_is_named_with_its_file(elsewhere: Path) -> None:
    (elsewhere / "cifar10").mkdir()
    np.save(elsewhere / "cifar10" / "train_labels.npy", np.array([0, 9, 12], np.uint8))
    with pytest.raises(DataError, match=r"train_labels\.npy: label 12 of picture 2 is none of the classes 0 to 9"):
        labelled.cifar10("train")


def test_torchvision_s_copy_is_taken_instead_with_the_classes_in_turns(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 3))
    pictures = np.broadcast_to(labels[:, None, None, None], (30, 32, 32, 3)).astype(np.uint8)
    asked: list[dict[str, Any]] = []

    def cifar10(root: str, **how: Any) -> SimpleNamespace:
        asked.append(how)
        return SimpleNamespace(data=pictures, targets=labels.tolist())

    torchvision(monkeypatch, cifar10)
    found = labelled.cifar10("train")
    assert asked == [{"train": True, "download": True}]
    assert found.labels.tolist() == [*range(10)] * 3
    assert found.images[:, 0, 0, 0].tolist() == found.labels.tolist(), "each picture keeps its label"


def test_without_either_it_says_what_to_do(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(DataError, match=r"test_labels\.npy: not there; `pip install torchvision`"):
        labelled.cifar10("test")
    monkeypatch.setenv("ISTHMUS_DATA", str(elsewhere / "nowhere"))
    with pytest.raises(DataError, match=r"nowhere: no such folder.*`pip install torchvision`"):
        labelled.cifar10("test")


def test_a_download_that_fails_is_named(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(root: str, **how: Any) -> None:
        raise OSError("no route to host")

    torchvision(monkeypatch, offline)
    with pytest.raises(DataError, match="CIFAR-10 could not be downloaded"):
        labelled.cifar10("test")
