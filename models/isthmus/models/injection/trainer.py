"""The training of an injected bottleneck: its maps and answers follow those of the detector as it was. No labels.

The first epochs see small pictures, with which a step is several times as quick; the others whole ones, since what stands at an
edge looks different to a detector, and in a small picture nearly all does. After each epoch held-out pictures are coded for
real, and the price of a byte follows the size that is aimed at.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isthmus.models.bundling.spectral_fit import trained
from isthmus.models.distillation.views import Album
from isthmus.models.injection.losses import answer_distance, map_distance
from isthmus.models.injection.network import Injected
from isthmus.models.injection.rounding import Rounding
from isthmus.models.injection.settings import InjectionSettings
from isthmus.models.injection.teacher import DetectorTeacher
from isthmus.models.injection.views import view
from isthmus.models.pictures import Intake
from isthmus.models.progress import Report
from isthmus.models.training import bottleneck
from isthmus.models.training.processors import mixed_precision
from isthmus.models.training.resumable import ResumableRun, Stateful, averaging, follow, prepare
from isthmus.proto.codec import Codec
from isthmus.proto.errors import ModelError

REPORT_EVERY = 16
AVERAGING = 0.99
MEASURED = 48
"""Held-out pictures that are coded for real after each epoch."""
BEGUN_WITH = 64
"""Views whose principal components the bottleneck begins with."""
LARGEST_GRADIENT = 5.0
GRAIN = 64
"""Small pictures are of a multiple of so many pixels: maps and blocks come out even."""
POOL = 4
"""Small views come again after so many epochs; what the detector says of them is kept in memory until then."""
FASTEST_PRICE = 1.5
"""By at most so much the price changes from one epoch to the next."""


Taught = tuple[Tensor, Tensor, tuple[Tensor, ...]]
"""What the layers that do not learn give for some views, the map at the cut, and hints and answers behind it."""


class InjectionTrainer(ResumableRun[Injected]):
    """One run: the network, its running average, and the optimiser."""

    def __init__(
        self,
        teacher: DetectorTeacher,
        album: Album,
        training_index: NDArray[np.int64],
        settings: InjectionSettings,
        *,
        seed: int,
    ) -> None:
        """Raises ModelError when a layer has no gradient."""
        identity = {"model": teacher.fingerprint, "cut": teacher.cut.after, "seed": seed} | {
            "pictures": (album.fingerprint, len(training_index)),
            **settings.identity(),
        }
        super().__init__(seed=seed, epochs=settings.epochs, identity=identity)
        self.teacher, self.album, self.settings = teacher, album, settings
        self.training_index = training_index
        aside = np.setdiff1d(np.arange(len(album)), training_index)
        self._held_out = aside[:: max(1, len(aside) // MEASURED)][:MEASURED]
        self.network = Injected(teacher, settings.inside).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.original = _Original(self.network)
        self.rounding = Rounding(self.network.kept, self.network.cells, settings.price).to(self.device)
        self.size = teacher.input.size
        self.small = self._small()
        self._kept: dict[int, list[Tensor]] = {}
        self._begin()
        self.averaged = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.optimiser, self._peaks = self._optimiser()
        self.averaging = averaging(AVERAGING, self.epochs * settings.views // settings.batch)

    @property
    def state(self) -> dict[str, Stateful]:
        """The network, its average, what crosses, and the optimisers."""
        return {"network": self.network, "averaged": self.averaged, "rounding": self.rounding} | {
            f"optimiser{i}": optimiser for i, optimiser in enumerate(self.optimiser)
        }

    def _optimiser(self) -> tuple[tuple[torch.optim.Optimizer, ...], tuple[float, ...]]:
        net, settings = self.network, self.settings
        transforms = [*net.encoder.transform.parameters(), *net.decoder.transform.parameters()]
        new = [p for m in (net.encoder, net.decoder) for p in m.parameters() if all(p is not q for q in transforms)]
        own = [*net.tuned.parameters(), *net.behind.parameters()]
        peaks = (settings.new_rate, settings.transform_rate, settings.tuned_rate)
        return tuple(torch.optim.Adam(p, lr=r) for p, r in zip((new, transforms, own), peaks, strict=True)), peaks

    def _small(self) -> int:
        """The side of small pictures; the detector's own where it takes no other."""
        side = round(self.settings.small * self.size / GRAIN) * GRAIN
        if not 0 < side < self.size:
            return self.size
        try:
            x = torch.zeros(1, 3, side, side, device=self.device)
            with torch.no_grad():
                self.original(self.network.early(x.contiguous(memory_format=torch.channels_last)))
        except RuntimeError:
            return self.size
        return side

    @torch.no_grad()
    def _begin(self) -> None:
        rng = np.random.default_rng(self.seed)
        images = np.stack([view(self.album, self.training_index, self.small, rng) for _ in range(BEGUN_WITH)])
        maps, features = [], []
        for part in np.array_split(images, max(1, len(images) // self.settings.batch)):
            maps.append(self.network.tuned(self.network.early(self.pictures(part)))[0].float().cpu())
        self.network.begin(torch.cat(maps).contiguous().numpy())
        for each in maps:
            features.append(self.network.encoder(each.to(self.device)))
        self.rounding.begin(torch.cat(features))

    def pictures(self, images: NDArray[np.uint8]) -> Tensor:
        """(N, S, S, 3), of any size, as the detector takes them: (N, 3, S, S)."""
        size = images.shape[1]
        intake = Intake(msgspec.structs.replace(self.teacher.input, size=size, width=size))
        x = torch.from_numpy(np.concatenate([intake(image) for image in images])).permute(0, 3, 1, 2)
        return x.to(self.device).contiguous(memory_format=torch.channels_last)

    def epoch(self, report: Report) -> str:
        """So many views; the mean losses and what held-out pictures take, as text."""
        self.network.train()
        totals: dict[str, list[float]] = {}
        done = self.epochs_done / self.epochs
        size = self.small if done < self.settings.small_share else self.size
        lessons = list(self._lessons(size))
        for i, (views, known) in enumerate(lessons):
            progress = done + i / (len(lessons) * self.epochs)
            for name, value in self.step(self._taught(views, size, known), progress).items():
                totals.setdefault(name, []).append(value)
            if i % REPORT_EVERY == REPORT_EVERY - 1:
                report(f"  step {i + 1} of {len(lessons)}: {_means(totals)}")
        size_bytes = self._measured_bytes()
        return f"{_means(totals)}; {size_bytes:.0f} bytes at step {self._aimed}, price {float(self.rounding.price):.2f}"

    @property
    def _aimed(self) -> float:
        return self.settings.steps[self.settings.aimed_step]

    def _lessons(self, size: int) -> Iterator[tuple[NDArray[np.int64], bool]]:
        """Batches of views by number: small ones, which come again, in a drawn order; or new ones, a quarter as many."""
        batch, views = self.settings.batch, self.settings.views
        small = size == self.small and self.small < self.size
        if small:
            order = self.rng.permutation(views) + views * (self.epochs_done % POOL)
        else:
            order = np.arange(views // 4) + views * (POOL + self.epochs_done)
        for i in range(max(1, len(order) // batch)):
            yield order[i * batch : (i + 1) * batch], small

    @torch.no_grad()
    def _taught(self, views: NDArray[np.int64], size: int, known: bool) -> Taught:
        """What the detector gives for views, which are kept if they will be seen again."""
        missing = [int(n) for n in views if int(n) not in self._kept]
        if missing:
            rngs = (np.random.default_rng((self.seed, n)) for n in missing)
            images = np.stack([view(self.album, self.training_index, size, rng) for rng in rngs])
            early = self.network.early(self.pictures(images))
            found = (early, *self.original(early)[1])
            for i, n in enumerate(missing):
                self._kept[n] = [t[i].to(torch.float16) for t in found]
        each = [self._kept[int(n)] if known else self._kept.pop(int(n)) for n in views]
        early, *followed = (
            torch.stack(of).float().contiguous(memory_format=torch.channels_last) for of in zip(*each, strict=True)
        )
        return early, self.original.cut(early), tuple(followed)

    def step(self, taught: Taught, progress: float) -> dict[str, float]:
        """One optimiser step; the losses by name."""
        prepare(self.optimiser, self._peaks, progress)
        with mixed_precision(self.device):
            parts = self._losses(taught, noisy=progress < self.settings.noise_share)
        if not all(bool(loss.isfinite()) for loss in parts.values()):
            raise ModelError(
                f"{self.teacher.graph.path}: the training ran away at step {progress:.1%}; lower the rates"
            )
        weights = {
            "map": self.settings.map_weight,
            "hint": self.settings.hint_weight,
            "answer": self.settings.answer_weight,
        }
        weights["kilobytes"] = float(self.rounding.price)
        torch.autograd.backward(torch.stack([weights[name] * loss for name, loss in parts.items()]).sum())
        learning = [p for o in self.optimiser for g in o.param_groups for p in g["params"]]
        torch.nn.utils.clip_grad_norm_(learning, LARGEST_GRADIENT)
        for optimiser in self.optimiser:
            optimiser.step()
        follow(self.averaged, self.network, self.averaging)
        return {name: float(loss.detach()) for name, loss in parts.items()}

    def _losses(self, taught: Taught, *, noisy: bool) -> dict[str, Tensor]:
        early, aim, aims = taught
        features = self.network.features(early).float()
        low, high = self.settings.steps[0] * 0.9, self.settings.steps[-1] * 1.1
        step = bottleneck.random_steps(len(early), low, high, self.generator).to(features)
        crossed, kilobytes = self.rounding(features, step, self.generator if noisy else None)
        rebuilt, found = self.network.followed(crossed.contiguous(memory_format=torch.channels_last))
        hints = len(self.teacher.hints)
        far = [map_distance(a.float(), b.float()) for a, b in zip(found[:hints], aims[:hints], strict=True)]
        answers = [[each.float() for each in of[hints:]] for of in (found, aims)]
        return {
            "map": map_distance(rebuilt.float(), aim.float()),
            "hint": torch.stack(far).mean() if far else rebuilt.new_zeros(()),
            "answer": answer_distance(self.teacher.answers, *answers),
            "kilobytes": kilobytes.mean(),
        }

    @torch.no_grad()
    def _measured_bytes(self) -> float:
        """What held-out pictures take at the aimed step, coded for real; the price follows."""
        intake = Intake(self.teacher.input)
        features = []
        for index in self._held_out:
            x = torch.from_numpy(intake(self.album[int(index)])).permute(0, 3, 1, 2).to(self.device)
            early = self.averaged.early(x.contiguous(memory_format=torch.channels_last))
            features.append(self.averaged.features(early).float())
        together = torch.cat(features)
        step = torch.full((len(together), 1, 1, 1), self._aimed).to(together)
        kilobytes = float(self.rounding(together, step)[1].mean())
        maps = together.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        codec = Codec(trained(maps, (self._aimed,)))
        size = float(np.mean([sum(map(len, codec.encode(each, 0))) for each in maps]))
        self.rounding.bytes_per_bit.mul_(size / max(1e-6, 1000 * kilobytes))
        change = (size / self.settings.aimed_bytes) ** 0.7
        self.rounding.price.mul_(float(np.clip(change, 1 / FASTEST_PRICE, FASTEST_PRICE)))
        return size


class _Original:
    """The detector as it was, behind the layers that do not learn."""

    def __init__(self, network: Injected) -> None:
        self._tuned, self._behind = (copy.deepcopy(m).requires_grad_(False) for m in (network.tuned, network.behind))

    def cut(self, early: Tensor) -> Tensor:
        """The map at the cut."""
        found: Tensor = self._tuned(early)[0]
        return found

    def __call__(self, early: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The map at the cut, and hints and answers."""
        cut = self.cut(early)
        followed: tuple[Tensor, ...] = self._behind(cut)
        return cut, followed


def _means(totals: dict[str, list[float]]) -> str:
    return ", ".join(f"{name} {sum(values) / len(values):.3f}" for name, values in totals.items())
