"""What a student is trained from, and how: shared by the trainer of its exit and that of the whole student."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isthmus.models.data import labelled
from isthmus.models.distillation.student import PictureDecoder, Student, StudentHead, architecture
from isthmus.models.distillation.views import Answers
from isthmus.models.splitting.cuts import IMAGE
from isthmus.models.training.tflite_teacher import Stored, Teacher, real
from isthmus.models.training.torch_graph import TorchPart

BEGUN_WITH = 300
"""The number of pictures, about, whose principal components a student begins with."""


@dataclass(frozen=True)
class DistillationSettings:
    """The settings of a student and its training."""

    widths: tuple[float, ...] = (0.5, 0.75, 1.0)
    epochs: int = 20
    batch: int = 16
    views: int = 8
    """The number of views of each picture that the teacher answers; later epochs begin again."""
    turn_rate: float = 0.01
    """Peak relative change of a convolution's weights a step."""
    peak_rate: float = 2e-3
    """Peak learning rate of everything else."""
    straight_rate: float = 1e-4
    """Peak learning rate of the straight paths, which begin as a transform that is good already."""
    steps: tuple[float, ...] = (0.4, 0.55, 0.75, 1.0)
    """The quantiser's ladder, in the unit of a picture's 0..1; finest first."""
    picture_weight: float = 1.0
    """The weight of the rebuilt picture's squared distance: what of it the answers do not need may go."""
    hint_weight: float = 1.0
    answer_weight: float = 1.0
    tuned: bool = True
    """The server's copy of the model learns to read rebuilt pictures; else the model's own file runs behind the decoder."""
    model_rate: float = 1e-4
    """Peak learning rate of that copy."""
    exit_epochs: int = 10
    """The number of passes in which the exit learns the answers."""
    exit_batch: int = 32
    exit_rate: float = 1e-3
    rate_weight: float = 0.8
    """The price of a thousand bytes, in nats of the answer."""
    decoder_channels: int = 128
    decoder_finer_channels: int = 32
    decoder_blocks: int = 1
    bottleneck_channels: int = 48
    head_share: float = 0.1
    """The share of the teacher's FLOPs that the head may take at width 1.0."""


@dataclass(frozen=True)
class DistillationSetup:
    """A teacher, its answers to the pictures, and which of these are trained on."""

    teacher: Teacher
    answers: Answers
    training_index: NDArray[np.int64]
    settings: DistillationSettings

    @property
    def identity(self) -> dict[str, object]:
        """What a checkpoint must have been trained on and for, to go on with; the number of epochs may change."""
        settings = {name: value for name, value in asdict(self.settings).items() if name != "epochs"}
        return {"model": self.teacher.fingerprint, "seed": self.answers.seed} | {
            "pictures": (self.answers.album.fingerprint, len(self.training_index)),
            **settings,
        }

    def student(self) -> Student:
        """A fresh student of the settings' size, begun as a transform.

        Raises ModelError when the model has an operator without a gradient, or no head is small enough.
        """
        teacher, settings = self.teacher, self.settings
        arch = architecture(teacher.size, teacher.classes, settings.widths, settings.bottleneck_channels)
        model = TorchPart(teacher.part("targets", IMAGE, teacher.targets))
        decoder = PictureDecoder(
            arch,
            teacher.input,
            settings.decoder_channels,
            settings.decoder_finer_channels,
            settings.decoder_blocks,
        )
        head = StudentHead(arch, model, settings.head_share * teacher.graph.flops)
        student = Student(head, decoder, model, tuned=settings.tuned)
        student.begin(self.some_images, teacher.input)
        return student

    @property
    def some_images(self) -> NDArray[np.uint8]:
        """View 0 of some of the pictures: (N, S, S, 3)."""
        some = np.sort(self.training_index)[:: max(1, len(self.training_index) // BEGUN_WITH)]
        return np.stack([self.answers.image(int(i), 0) for i in some])

    def pictures(self, images: NDArray[np.uint8]) -> Tensor:
        """(N, S, S, 3) as the teacher and the student take them: (N, 3, S, S)."""
        picture = self.teacher.input
        return labelled.normalised(images, picture.mean, picture.std)

    def target(self, name: str, stored: Stored) -> Tensor:
        """The teacher's values as real numbers: (N, H, W, C) for a map, (N, K) for logits."""
        values = torch.from_numpy(real(stored, self.teacher.targets[name]))
        return values.flatten(1) if name == "logits" else values
