"""Both halves of a trained injection as they are deployed, and exported: NHWC in and out, to the detector's own outputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import litert_torch
import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from isthmus.models.injection.network import Injected
from isthmus.models.injection.teacher import DetectorTeacher
from isthmus.models.litert import Signature, opened
from isthmus.models.splitting.cuts import HEAD, IMAGE
from isthmus.models.training.export import store_in_half
from isthmus.models.training.torch_graph import TorchPart
from isthmus.proto.errors import BundleError

FEATURES = "features"
HEAD_FILE, TAIL_FILE = "head.tflite", "tail.onnx"
PARITY, TAIL_PARITY = 2e-3, 0.02
"""Largest differences allowed between torch and the exports, as shares of the largest value; the tail's weights were rounded to
float16."""


class Head(nn.Module):
    """The picture (1, S, S, 3) as the detector takes it -> features (1, H_b, W_b, C_b)."""

    def __init__(self, network: Injected) -> None:
        super().__init__()
        self.frozen, self.tuned, self.encoder = network.frozen, network.tuned, network.encoder

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        x = image.permute(0, 3, 1, 2)
        x = x if self.frozen is None else self.frozen(x)[0]
        return {FEATURES: self.encoder(self.tuned(x)[0]).permute(0, 2, 3, 1)}


class Tail(nn.Module):
    """Features (B, H_b, W_b, C_b) as they were decoded -> the detector's outputs, each (B, ...)."""

    def __init__(self, teacher: DetectorTeacher, network: Injected) -> None:
        """Raises ModelError when the detector ends in an operator that is not known here."""
        super().__init__()
        self.decoder = network.decoder
        self.behind = TorchPart(teacher.part(teacher.crossing.index, teacher.graph.outputs))
        self.behind.load_state_dict(network.behind.state_dict())

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        found: tuple[Tensor, ...] = self.behind(self.decoder(features.permute(0, 3, 1, 2)))
        return tuple(x.permute(0, 2, 3, 1) if x.ndim == 4 else x for x in found)


def outputs(teacher: DetectorTeacher) -> list[str]:
    """The names of the tail's outputs, in the order of the detector's."""
    return [f"output{i}" for i in range(len(teacher.graph.outputs))]


def export_head(teacher: DetectorTeacher, network: Injected, path: Path) -> None:
    """Write the head: one signature, static shapes."""
    sample = {IMAGE: torch.zeros(1, *teacher.input.shape, 3)}
    litert_torch.signature(HEAD, Head(network).eval(), sample_kwargs=sample).convert().export(str(path))


def export_tail(teacher: DetectorTeacher, network: Injected, path: Path) -> None:
    """Write the tail as ONNX with a batch of any size."""
    torch.onnx.export(
        Tail(teacher, network).eval(),
        (torch.zeros(2, *network.cells, network.kept),),
        path,
        input_names=[FEATURES],
        output_names=outputs(teacher),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=256)},),
        external_data=False,
        verbose=False,
    )
    store_in_half(path)


class Exported:
    """The files of both halves, opened."""

    def __init__(self, folder: Path) -> None:
        self._head = Signature(opened(folder / HEAD_FILE), HEAD)
        self._tail = onnxruntime.InferenceSession(folder / TAIL_FILE, providers=["CPUExecutionProvider"])

    def head(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features (H_b, W_b, C_b) of a picture (1, S, S, 3) as the detector takes it."""
        return np.ascontiguousarray(self._head(**{IMAGE: image})[FEATURES][0], np.float32)

    def tail(self, features: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """The detector's outputs, without the batch, for features (H_b, W_b, C_b)."""
        return [np.asarray(out[0]) for out in self._tail.run(None, {FEATURES: features[None]})]


@torch.no_grad()
def check_parity(
    teacher: DetectorTeacher, network: Injected, folder: Path, images: Sequence[NDArray[np.float32]]
) -> tuple[float, float]:
    """The largest differences of head and tail between torch and the exports, each as a share of its largest value.

    Raises BundleError when one exceeds PARITY or TAIL_PARITY.
    """
    exported, head, tail = Exported(folder), Head(network).eval(), Tail(teacher, network).eval()
    worst = worst_tail = 0.0
    for image in images:
        features = head(torch.from_numpy(image))[FEATURES].numpy()
        worst = max(worst, _gap(exported.head(image), features[0]))
        answers = tail(torch.from_numpy(np.ascontiguousarray(features)))
        for mine, theirs in zip(exported.tail(np.ascontiguousarray(features[0])), answers, strict=True):
            if np.asarray(theirs).dtype.kind == "f" and not _whole(theirs.numpy()):
                worst_tail = max(worst_tail, _gap(mine, theirs[0].numpy()))
    if worst > PARITY or worst_tail > TAIL_PARITY:
        raise BundleError(f"{folder.name}: exports differ from torch by {worst:.2g} (head), {worst_tail:.2g} (tail)")
    return worst, worst_tail


def _whole(values: NDArray[np.float32]) -> bool:
    """Whether these are classes by number: where two are as likely, either may be named."""
    return bool((values == np.rint(values)).all())


def _gap(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.abs(found - expected).max() / max(1.0, np.abs(expected).max()))
