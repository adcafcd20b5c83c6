"""Labelled pictures for training and evaluation: where they are found, how they are read, how they are varied.

Only `normalised` needs torch, so that a bundle can be measured where there is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from isthmus.models import scenes
from isthmus.models.pictures import data_root
from isthmus.proto.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

DOWNLOADS = Path.home() / ".cache" / "isthmus"
CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2470, 0.2435, 0.2616)
CIFAR10_LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class Pictures:
    """`images` (N, S, S, 3) uint8 RGB and `labels` (N,) int64."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class TrainingSet:
    """Pictures, their normalisation, and how far a picture may be varied without changing its label."""

    pictures: Pictures
    mean: tuple[float, ...]
    std: tuple[float, ...]
    shift_pixels: int
    flip: bool

    def mirrored(self, epoch: int, seed: int) -> NDArray[np.bool_]:
        """Whether each picture is mirrored in `epoch`: (N,).

        A coin for the first epoch and the other side in the next: both come equally often, which one draw an epoch
        does not give (Jordan, 94% on CIFAR-10 in 3.29 seconds, 2024).
        """
        coins = np.random.default_rng(seed).integers(0, 2, len(self.pictures))
        return np.asarray(self.flip & ((coins + epoch) % 2 == 1), bool)


def _read_grid(path: Path) -> NDArray[np.uint8]:
    """1,000 pictures from one lossless grid of 25 x 40: (1000, 32, 32, 3) RGB."""
    grid = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if grid is None:
        raise DataError(f"{path}: missing or not a picture")
    tiles = grid[:, :, ::-1].reshape(-1, 32, 25, 32, 3).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(tiles.reshape(-1, 32, 32, 3))


def cifar10(split: str) -> Pictures:
    """The `train` (50,000) or `test` (10,000) pictures of CIFAR-10; any first n x 1,000 are balanced.

    Reads `cifar10/` under `data_root()`, or else torchvision's own copy, which it downloads once. Raises DataError that
    says how to come by them when there is neither.
    """
    try:
        folder = data_root() / "cifar10"
    except DataError as error:
        return _torchvision_cifar10(split, missing=str(error))
    labels_path = folder / f"{split}_labels.npy"
    if not labels_path.is_file():
        return _torchvision_cifar10(split, missing=f"{labels_path}: not there")
    labels = in_range(np.load(labels_path).astype(np.int64), len(CIFAR10_LABELS), labels_path)
    images = np.concatenate([_read_grid(folder / f"{split}_{i:02d}.webp") for i in range(len(labels) // 1000)])
    return Pictures(images, labels)


def _torchvision_cifar10(split: str, *, missing: str) -> Pictures:
    """The same pictures by way of torchvision, the classes taking turns."""
    try:
        from torchvision.datasets import CIFAR10
    except ImportError as error:
        raise DataError(
            f"{missing}; `pip install torchvision` lets CIFAR-10 be downloaded, or see docs/training.md"
        ) from error
    try:
        found = CIFAR10(str(DOWNLOADS), train=split == "train", download=True)
    except (OSError, RuntimeError) as error:  # no network, or a file that is not what it should be
        raise DataError(f"{DOWNLOADS}: CIFAR-10 could not be downloaded ({error}); see docs/training.md") from error
    labels = np.array(found.targets, np.int64)
    turn = np.empty_like(labels)
    for label in np.unique(labels):
        turn[labels == label] = np.arange(np.count_nonzero(labels == label))
    order = np.lexsort((labels, turn))
    return Pictures(np.ascontiguousarray(found.data[order]), labels[order])


def in_range(labels: NDArray[np.int64], classes: int, whose: Path | str) -> NDArray[np.int64]:
    """`labels` (N,) as they are. DataError that begins with `whose` and names the first that is no class."""
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        raise DataError(
            f"{whose}: label {labels[wrong[0]]} of picture {wrong[0]} is none of the classes 0 to {classes - 1}"
        )
    return labels


RENDERED_AT_ONCE = 1000


def rendered_scenes(n: int, seed: int) -> Pictures:
    """`n` scenes of the renderer, over all cores; each thousand has a seed of its own, so cores do not matter."""
    seeds = [seed * 10_000 + part for part in range(-(-n // RENDERED_AT_ONCE))]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        images, labels = zip(*pool.map(_rendered, seeds), strict=True)
    return Pictures(np.concatenate(images)[:n], np.concatenate(labels)[:n])


def _rendered(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    return scenes.samples(RENDERED_AT_ONCE, seed)


def normalised(images: NDArray[np.uint8], mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """uint8 (N, S, S, 3) -> float (N, 3, S, S), channels last in memory."""
    import torch

    x = torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(255)  # (N, 3, S, S), strides of NHWC
    return x.sub_(torch.tensor(mean).reshape(1, 3, 1, 1)).div_(torch.tensor(std).reshape(1, 3, 1, 1))


SAMPLED = 2000


def sample(training: TrainingSet) -> Tensor:
    """(N, 3, S, S), normalised: about SAMPLED pictures from all over the set."""
    images = training.pictures.images
    some = np.ascontiguousarray(images[:: max(1, len(images) // SAMPLED)])
    return normalised(some, training.mean, training.std)


def shifted(
    images: NDArray[np.uint8], pixels: int, mirrored: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Each of N pictures moved by up to `pixels` (edges reflected), and mirrored where (N,) `mirrored` says so."""
    n, size = images.shape[:2]
    padded = np.pad(images, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)), mode="reflect")
    rows = rng.integers(0, 2 * pixels + 1, (n, 1)) + np.arange(size)  # (N, S)
    columns = rng.integers(0, 2 * pixels + 1, (n, 1)) + np.arange(size)
    columns[mirrored] = columns[mirrored, ::-1]
    moved: NDArray[np.uint8] = padded[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return moved


def batches(n: int, size: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Indices of one epoch in random order, full batches only."""
    order = rng.permutation(n)
    for start in range(0, n - size + 1, size):
        yield order[start : start + size]


@dataclass(frozen=True)
class Validation:
    """Pictures to evaluate on; `calibrating` (N,) marks those that temperatures and tables may be fitted on."""

    pictures: Pictures
    calibrating: NDArray[np.bool_]
    mean: tuple[float, ...]
    std: tuple[float, ...]
