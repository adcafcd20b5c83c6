"""The trainings that ship nothing: what is sent, or what is minimised, differs from `Trainer` in one thing each.

They are measured against it by `isthmus models ablate`, and those that need no teacher can be trained by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from isthmus.models.ablation.vector_quantiser import Codebooks
from isthmus.models.bundle import Bundle
from isthmus.models.data.labelled import TrainingSet
from isthmus.models.progress import Report
from isthmus.models.training import losses
from isthmus.models.training.backbones import SplitNetwork
from isthmus.models.training.recipes import Recipe
from isthmus.models.training.resumable import Stateful
from isthmus.models.training.trainer import Forward, Trainer


class UnquantisedTrainer(Trainer):
    """The features reach the tail as they are."""

    def _sent(self, features: Tensor, progress: float) -> Tensor:
        return features


class VectorTrainer(Trainer):
    """Features are replaced by entries of codebooks, which learn beside the network (SoundStream, Zeghidour 2021)."""

    def __init__(self, recipe: Recipe, training: TrainingSet, *, seed: int, begin: Bundle | None = None) -> None:
        super().__init__(recipe, training, seed=seed, begin=begin)
        self.codebooks = Codebooks(recipe.arch.bottleneck_channels, self.generator).to(self.device)

    @property
    def state(self) -> dict[str, Stateful]:
        """The parts of `Trainer`, and the codebooks."""
        return {**super().state, "codebooks": self.codebooks}

    def run(self, checkpoint: Path, report: Report) -> SplitNetwork:
        """Train as `Trainer.run` does; the codebooks are on the CPU afterwards too."""
        network = super().run(checkpoint, report)
        self.codebooks.cpu()
        return network

    def _sent(self, features: Tensor, progress: float) -> Tensor:
        return self.codebooks.dropped_out(features)

    def _price(self, found: Forward) -> Tensor:
        """The features' distance to their entries: indices cost the same, whatever the features are."""
        return F.mse_loss(found.features, found.sent.detach())


class ChannelDropoutTrainer(Trainer):
    """Only a random number of the leading channels crosses, for a share of the samples (nested dropout, Rippel 2014)."""

    dropped_share = 0.5

    def _sent(self, features: Tensor, progress: float) -> Tensor:
        return leading_channels(super()._sent(features, progress), self.dropped_share, self.generator)


class FrozenHeadTrainer(Trainer):
    """The averaged head stands still from `freeze_from` of the run on, and the tail alone is tuned to it (BottleFit)."""

    freeze_from = 0.75
    frozen = False

    def step(self, x: Tensor, labels: Tensor, progress: float) -> float:
        """Take one step as `Trainer.step` does, with the head frozen once it is time."""
        if progress >= self.freeze_from:
            self._freeze()
        return super().step(x, labels, progress)

    def _freeze(self) -> None:
        if not self.frozen:
            self.network.load_state_dict(self.averaged.state_dict())
            self.network.head.requires_grad_(False)
            self.frozen = True
        self.network.head.eval()


class TaughtTrainer(Trainer):
    """A teacher adds its answers to the loss: a trained network whose tail has blocks of the same shapes."""

    def __init__(
        self,
        recipe: Recipe,
        training: TrainingSet,
        *,
        seed: int,
        teacher: SplitNetwork,
        begin: Bundle | None = None,
    ) -> None:
        super().__init__(recipe, training, seed=seed, begin=begin)
        self.teacher = teacher.to(self.device)

    def _answer_terms(self, x: Tensor, labels: Tensor, found: Forward, progress: float) -> list[Tensor]:
        answer = self.teacher.tail.answer(self._teacher_maps(x)[-1]).float()
        right = self._right(found.logits, labels)
        return [right + self.recipe.distill_weight * losses.distillation(found.logits, answer)]

    @torch.no_grad()
    def _teacher_maps(self, x: Tensor) -> list[Tensor]:
        features, _ = self.teacher.head(x, self.teacher.arch.widths[-1])
        return self.teacher.tail.maps(features)


class MatchingTrainer(TaughtTrainer, FrozenHeadTrainer):
    """Half of the run matches the maps of a teacher's tail, the other half tunes the tail (GHND, Matsubara 2022)."""

    match_until = 0.5
    freeze_from = 0.5

    def __init__(
        self,
        recipe: Recipe,
        training: TrainingSet,
        *,
        seed: int,
        teacher: SplitNetwork,
        begin: Bundle | None = None,
    ) -> None:
        super().__init__(recipe, training, seed=seed, teacher=teacher, begin=begin)
        self.distill_from = max(self.distill_from, self.match_until)

    def _answer_terms(self, x: Tensor, labels: Tensor, found: Forward, progress: float) -> list[Tensor]:
        if progress < self.match_until:
            return [map_distance(found.maps, self._teacher_maps(x))]
        return super()._answer_terms(x, labels, found, progress)


def map_distance(maps: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Squared distance of a tail's maps to a teacher's, each as a share of the teacher's power (GHND, Matsubara 2022)."""
    shares = [F.mse_loss(a.float(), b.float()) / b.float().square().mean() for a, b in zip(maps, teacher, strict=True)]
    return torch.stack(shares).mean()


def leading_channels(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """The samples (N, C, H, W), a random `share` of them with zeros after a random number, 1 to C, of leading channels."""
    n, channels = x.shape[:2]
    kept = torch.randint(1, channels + 1, (n, 1), generator=generator)
    kept[torch.rand(n, generator=generator) >= share] = channels
    return x * (torch.arange(channels) < kept)[:, :, None, None].to(x)
