"""A detector in torch to a bundle: LiteRT head with one signature a width, ONNX tail with a batch of any size, the manifest.

Both halves are run and compared with torch before anything is written under the bundle's name.
"""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

import litert_torch
import numpy as np
import onnxruntime
import torch
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from torch import Tensor, nn

from isthmus.models.bundle import SCHEMA, Bottleneck, Bundle, Manifest, Stage
from isthmus.models.bundling import writer
from isthmus.models.bundling.evaluate import Evaluation, save
from isthmus.models.detection.network import Detector, PlainHead, Tail, fused
from isthmus.models.detection.trainer import MEAN, STD, normalised
from isthmus.models.picture_ladder import Input
from isthmus.models.training.export import store_in_half
from isthmus.models.training.layers import width_key
from isthmus.proto.errors import BundleError
from isthmus.proto.tasks.boxes import Boxes

EXIT = "boxes"
"""The name of both halves' maps."""
PARITY, TAIL_PARITY = 2e-3, 0.05
"""Largest differences allowed between torch and the exports; the tail's weights were rounded to float16."""
BATCH = 16


class _NhwcTail(nn.Module):
    """The tail as the server calls it: features (B, h, w, C) -> map (B, h, w, K + 4), both branches fused."""

    def __init__(self, tail: Tail) -> None:
        super().__init__()
        self.tail = tail

    def forward(self, features: Tensor) -> Tensor:
        return fused(*self.tail(features.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)


@dataclass(frozen=True)
class Trained:
    """A detector in torch that answers as `measuring.Halves` asks, in float32."""

    network: Detector

    @torch.no_grad()
    def head(self, images: NDArray[np.uint8], width: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """See `measuring.Halves`."""
        pairs = [self.network.head(normalised(images[i : i + BATCH]), width) for i in range(0, len(images), BATCH)]
        features, exits = (
            torch.cat(part).permute(0, 2, 3, 1).contiguous().numpy() for part in zip(*pairs, strict=True)
        )
        return features, exits

    @torch.no_grad()
    def tail(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `measuring.Halves`."""
        whole, x = _NhwcTail(self.network.tail), torch.from_numpy(features)
        return torch.cat([whole(x[i : i + BATCH]) for i in range(0, len(x), BATCH)]).numpy()


def export_head(network: Detector, path: Path) -> None:
    """Write the head: a signature a width, batch norms folded, static shapes, NHWC."""
    arch, converter = network.arch, None
    for width in arch.widths:
        kwargs = {"image": torch.zeros(1, arch.height, arch.width, 3)}
        begin = converter.signature if converter is not None else litert_torch.signature
        converter = begin(width_key(width), PlainHead(network.head, width).eval(), sample_kwargs=kwargs)
    assert converter is not None
    converter.convert().export(str(path))


def export_tail(network: Detector, path: Path) -> None:
    """Write the tail as ONNX with a batch of any size."""
    arch = network.arch
    torch.onnx.export(
        _NhwcTail(network.tail).eval(),
        (torch.zeros(2, *arch.cells, arch.bottleneck),),
        path,
        input_names=["features"],
        output_names=[EXIT],
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=256)},),
        external_data=False,
        verbose=False,
    )
    store_in_half(path)


def check_parity(network: Detector, folder: Path, images: NDArray[np.uint8]) -> tuple[float, float]:
    """The largest differences of head and tail between torch and the exports over some pictures, every width.

    Raises BundleError when one exceeds PARITY or TAIL_PARITY.
    """
    head = Interpreter(str(folder / "head.tflite"), num_threads=1)
    tail = onnxruntime.InferenceSession(folder / "tail.onnx", providers=["CPUExecutionProvider"])
    trained, worst, worst_tail = Trained(network), 0.0, 0.0
    x = normalised(images).permute(0, 2, 3, 1).contiguous().numpy()
    for width in network.arch.widths:
        features, exits = trained.head(images, width)
        runner = head.get_signature_runner(width_key(width))
        for i in range(len(images)):
            out = runner(image=x[i : i + 1])
            worst = max(worst, _gap(out["features"], features[i]), _gap(out[EXIT], exits[i]))
        (answer,) = tail.run([EXIT], {"features": features})
        worst_tail = max(worst_tail, _gap(answer, trained.tail(features)))
    if worst > PARITY or worst_tail > TAIL_PARITY:
        raise BundleError(f"{folder.name}: exports differ from torch by {worst:.2g} (head), {worst_tail:.2g} (tail)")
    return worst, worst_tail


def _gap(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.abs(found - expected).max())


def write_bundle(
    target: Path,
    network: Detector,
    evaluation: Evaluation,
    edges: tuple[float, ...],
    boxes: Boxes,
    *,
    name: str,
    labels: tuple[str, ...],
    images: NDArray[np.uint8],
    made_by: str,
) -> Bundle:
    """Export, compare with torch on `images` (N, H, W, 3), and put the bundle at `target`, replacing an older one.

    `edges` are those of the bins of confidence that the evaluation's points were counted in.
    """
    network.eval()

    def fill(folder: Path) -> None:
        export_head(network, folder / "head.tflite")
        export_tail(network, folder / "tail.onnx")
        check_parity(network, folder, images)
        save(folder, evaluation.outcomes)

    return writer.write(target, _manifest(network, evaluation, edges, boxes, name, labels, made_by), fill)


def _manifest(
    network: Detector,
    evaluation: Evaluation,
    edges: tuple[float, ...],
    boxes: Boxes,
    name: str,
    labels: tuple[str, ...],
    made_by: str,
) -> Manifest:
    arch = network.arch
    version = importlib.metadata.version("isthmus")
    stages = tuple(Stage(w, width_key(w), 2 * network.head.macs(arch, w), exit=(EXIT,)) for w in arch.widths)
    return Manifest(
        schema=SCHEMA,
        name=name,
        task="detection",
        labels=labels,
        input=Input(arch.height, MEAN, STD, width=arch.width),
        widths=arch.widths,
        stages=(stages,),
        bottleneck=Bottleneck.of(evaluation.codec),
        tail_flops=2 * network.tail.macs(arch),
        confidence_edges=edges,
        points=evaluation.points,
        files={},
        made_by=f"{made_by} (isthmus {version}, torch {torch.__version__})",
        boxes=boxes,
    )
