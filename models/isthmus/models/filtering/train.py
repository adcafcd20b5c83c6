"""The neural filter's training: a tiny network on one camera's pictures, its threshold, its score, its files.

The three parts of the footage (`footage.Footage.parts`) are never mixed: the first trains, the second chooses threshold
and temperature, the third is scored and nothing else.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from isthmus.models import filters
from isthmus.models.bundling import calibration, writer
from isthmus.models.data import labelled
from isthmus.models.filtering.footage import Footage
from isthmus.models.filters import NETWORK, SHARPNESS, SIGNATURE, Filter, FilterManifest, Score
from isthmus.models.litert import Signature, opened
from isthmus.models.picture_ladder import Input
from isthmus.models.progress import Report
from isthmus.models.training.layers import SlimConv
from isthmus.models.training.resumable import prepare
from isthmus.proto.errors import BundleError, DataError

SIZE = 64
"""The side of the pictures that a filter takes, in pixels."""
MEAN, STD = (0.45, 0.45, 0.45), (0.25, 0.25, 0.25)
CHANNELS = (8, 16, 32, 32)
"""The output channels of the four strided convolutions: 1.0 million multiply-accumulates together."""
PEAK_RATE, BATCH, STEPS = 3e-3, 64, 400
LOST = 0.01
"""The largest share of interesting validation frames that a threshold may lose."""
SHIFT_PIXELS, GAIN, OFFSET = 3, 0.1, 0.1
"""The most that pictures are moved in training, and the deviations of a normalised picture's gain and offset."""
PARITY = 1e-3
Scores = NDArray[np.float64]


class Network(nn.Module):
    """Pictures (N, 3, S, S) -> cells' logits (N, 1, S/16, S/16): how much something of interest lies there."""

    def __init__(self) -> None:
        super().__init__()
        convs: list[nn.Module] = []
        c_in = 3
        for channels in CHANNELS:
            convs.append(SlimConv(c_in, channels, (1.0,), stride=2, fixed_in=not convs))
            c_in = channels
        self.convs, self.cells = nn.ModuleList(convs), nn.Conv2d(c_in, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = conv(x, 1.0)
        cells: Tensor = self.cells(x)
        return cells

    def flops(self) -> int:
        """The FLOPs of one picture."""
        size, macs = SIZE, 0
        for conv in self.convs:
            assert isinstance(conv, SlimConv)
            macs += conv.macs(size, 1.0)
            size //= conv.stride
        return 2 * (macs + CHANNELS[-1] * size**2)


class _Plain(nn.Module):
    """The network as it is exported: batch norms folded, NHWC."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.convs = nn.ModuleList([conv.folded(1.0) for conv in network.convs if isinstance(conv, SlimConv)])
        self.cells = network.cells

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        x = image.permute(0, 3, 1, 2)
        for conv in self.convs:
            x = conv(x)
        return {"cells": self.cells(x).permute(0, 2, 3, 1)}


@dataclass(frozen=True)
class TrainedFilter:
    """A filter before it is put on disk."""

    network: Network
    threshold: float
    temperature: float
    score: Score
    scores: Scores
    """(N,) of the certain test frames."""
    interesting: NDArray[np.bool_]
    """(N,) whether each of them shows something."""


def train(footage: Sequence[Footage], *, seed: int, report: Report, steps: int = STEPS) -> TrainedFilter:
    """A filter of everything that `footage` saw: one camera, or several that share it.

    Raises DataError naming the part of the footage that lacks frames of one kind.
    """
    training, validation, test = (_joined(column) for column in zip(*(f.parts() for f in footage), strict=True))
    for part, what in ((training, "to learn from"), (validation, "to choose the threshold by")):
        for kind, missing in (("anything of interest", part.interesting), ("nothing", ~part.interesting)):
            if not missing.any():
                raise DataError(
                    f"{part.name}: no frame that shows {kind} in the part that there is {what}; film longer"
                )
    network = _fit(training, seed=seed, steps=steps, report=report)
    validated = scored(network, validation.images)
    threshold = chosen(validated, validation.interesting)
    logits = np.stack([np.zeros_like(validated), validated], axis=1)
    # Where every validation frame is right, the fit would make the network as sure as can be, which it has not earned.
    temperature = max(1.0, calibration.fitted_temperature(logits, validation.interesting.astype(np.int64)))
    scores = scored(network, test.images)
    score = judged([f.parts()[2] for f in footage], scores, threshold)
    return TrainedFilter(network, threshold, temperature, score, scores, test.interesting)


def _joined(parts: Sequence[Footage]) -> Footage:
    """The certain frames of all parts, one after the other."""
    images, interesting = (
        np.concatenate([getattr(p, field)[p.certain] for p in parts]) for field in ("images", "interesting")
    )
    return Footage(", ".join(p.name for p in parts), images, interesting, np.ones(len(images), bool))


def _fit(part: Footage, *, seed: int, steps: int, report: Report) -> Network:
    """Train a network on pictures of both kinds, half of each batch a kind."""
    torch.manual_seed(seed)
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    network = Network().train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=PEAK_RATE, weight_decay=1e-2)
    by_kind = [np.flatnonzero(part.interesting == kind) for kind in (False, True)]
    for step in range(steps):
        index = np.concatenate([rng.choice(kind, BATCH // 2) for kind in by_kind])  # a rare kind counts as much
        images = labelled.shifted(part.images[index], SHIFT_PIXELS, rng.random(len(index)) < 0.5, rng)
        x = _varied(labelled.normalised(images, MEAN, STD), generator)
        z = SHARPNESS * network(x).flatten(1)
        score = (torch.logsumexp(z, 1) - np.log(z.shape[1])) / SHARPNESS
        loss = F.binary_cross_entropy_with_logits(score, torch.from_numpy(part.interesting[index]).float())
        prepare([optimiser], [PEAK_RATE], step / steps)
        torch.autograd.backward(loss)
        optimiser.step()
        if step % 100 == 99:
            report(f"  step {step + 1} of {steps}: loss {float(loss.detach()):.4f}")
    return network.eval()


def _varied(x: Tensor, generator: torch.Generator) -> Tensor:
    gain, offset = torch.randn((2, len(x), 1, 1, 1), generator=generator)
    return x * torch.exp(GAIN * gain) + OFFSET * offset


@torch.no_grad()
def scored(network: Network, images: NDArray[np.uint8]) -> Scores:
    """The scores (N,) of pictures (N, S, S, 3)."""
    cells = [network(labelled.normalised(images[i : i + 256], MEAN, STD)).numpy() for i in range(0, len(images), 256)]
    return filters.score(np.concatenate(cells))


def chosen(scores: Scores, interesting: NDArray[np.bool_]) -> float:
    """The threshold that loses at most LOST of the interesting frames (N,), half way down to the next empty one.

    Below the last interesting frame that must be kept there is a gap before the first empty one; the threshold lies in
    its middle, since frames to come score a little less than those that are known.
    """
    kept = float(np.quantile(scores[interesting], LOST, method="lower"))
    below = scores[(scores < kept) & ~interesting]
    return kept if not len(below) else (kept + float(below.max())) / 2


def area_under_curve(scores: Scores, positive: NDArray[np.bool_]) -> float | None:
    """The probability that a positive scores above a negative, ties counting half; None without either."""
    n, p = int((~positive).sum()), int(positive.sum())
    if not n or not p:
        return None
    values, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    del values
    rank = (np.cumsum(counts) - (counts - 1) / 2)[inverse]  # mean rank of ties, from 1
    return float((rank[positive].sum() - p * (p + 1) / 2) / (n * p))


def judged(tests: Sequence[Footage], scores: Scores, threshold: float) -> Score:
    """What a threshold does to the certain frames of the test parts, whose `scores` (N,) come one after the other."""
    interesting = np.concatenate([t.interesting[t.certain] for t in tests])
    dismissed = scores < threshold
    visits = [
        v for t, s in zip(tests, _apart(tests, dismissed), strict=True) for v in _visits(t.interesting[t.certain], s)
    ]
    auc = area_under_curve(scores, interesting)
    return Score(
        interesting=int(interesting.sum()),
        empty=int((~interesting).sum()),
        auc=None if auc is None else round(auc, 5),
        lost=round(float(dismissed[interesting].mean()), 5) if interesting.any() else None,
        dismissed=round(float(dismissed[~interesting].mean()), 5) if (~interesting).any() else None,
        visits=len(visits),
        visits_lost=sum(visits),
    )


def _apart(tests: Sequence[Footage], values: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    return np.split(values, np.cumsum([int(t.certain.sum()) for t in tests])[:-1])


def _visits(interesting: NDArray[np.bool_], dismissed: NDArray[np.bool_]) -> list[bool]:
    """Whether all of it was dismissed, for each run of interesting frames."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], interesting, [False]]).astype(np.int8)))
    return [bool(dismissed[a:b].all()) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def write(target: Path, trained: TrainedFilter, *, name: str, made_by: str, images: NDArray[np.uint8]) -> Filter:
    """Export, compare with torch on `images`, and put the filter at `target`, in the place of an older one.

    Raises BundleError when the export differs from torch by more than PARITY.
    """

    def fill(folder: Path) -> None:
        import litert_torch  # takes longer to import than some filters to train

        plain = _Plain(trained.network).eval()
        sample = {"image": torch.zeros(1, SIZE, SIZE, 3)}
        litert_torch.signature(SIGNATURE, plain, sample_kwargs=sample).convert().export(str(folder / NETWORK))
        _check_parity(trained.network, folder / NETWORK, images)
        manifest = FilterManifest(
            schema=filters.SCHEMA,
            name=name,
            input=Input(SIZE, MEAN, STD),
            threshold=round(trained.threshold, 5),
            temperature=round(trained.temperature, 5),
            flops=trained.network.flops(),
            score=trained.score,
            sha256=hashlib.sha256((folder / NETWORK).read_bytes()).hexdigest(),
            made_by=f"{made_by} (isthmus {importlib.metadata.version('isthmus')}, torch {torch.__version__})",
        )
        writer.write_table(folder / filters.FILE, manifest)

    writer.replace(target, fill)
    return filters.load(target)


def _check_parity(network: Network, path: Path, images: NDArray[np.uint8]) -> None:
    exported = Signature(opened(path), SIGNATURE)
    for i in range(len(images)):
        x = labelled.normalised(images[i : i + 1], MEAN, STD)
        with torch.no_grad():
            expected = network(x).permute(0, 2, 3, 1).numpy()
        gap = float(np.abs(exported(image=x.permute(0, 2, 3, 1).numpy())["cells"] - expected).max())
        if gap > PARITY:
            raise BundleError(f"{path.name}: differs from torch by {gap:.2g}; report this with your torch's version")


def command(paths: Sequence[Path], seed: int) -> str:
    """The command that makes a filter again."""
    return shlex.join(["isthmus", "models", "filter", *(p.name for p in paths), "--seed", str(seed)])
