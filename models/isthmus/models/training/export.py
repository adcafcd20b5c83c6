"""Torch to a bundle: LiteRT head with one signature per stage and width, ONNX tail with a dynamic batch, the manifest.

Both halves are run and compared with torch before anything is written under the bundle's name; a bundle is made in a
temporary folder and renamed, so that none is ever half-written.
"""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import litert_torch
import msgspec
import numpy as np
import onnx
import onnxruntime
import torch
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from torch import Tensor, nn

from isthmus.models import bundle
from isthmus.models.bundle import Bottleneck, Manifest, Stage
from isthmus.models.bundling import card, writer
from isthmus.models.bundling.evaluate import CONFIDENCE_EDGES, Evaluation, measured, save
from isthmus.models.picture_ladder import Input, TailPart
from isthmus.models.training.backbones import Network, TailModule
from isthmus.models.training.layers import width_key
from isthmus.proto.errors import BundleError

PARITY = 1e-3
"""Largest difference allowed between torch and the exported head, in logits and in unit-variance features."""
TAIL_PARITY = 0.05
"""The same for the tail's logits, whose weights were rounded to float16."""
BEHIND = "behind.tflite"
SMALL = 1024
"""Tensors of fewer values stay float32."""


@dataclass(frozen=True)
class Behind:
    """The last part of a tail that ends in a map: what a model that was there before makes of it, for LiteRT."""

    model: bytes
    flops: int
    task: str


def signature(stage: int, width: float) -> str:
    """The name of a stage's signature: stage 0 at width 0.25 is 'w025_stage1'."""
    return f"{width_key(width)}_stage{stage + 1}"


class _FirstStage(nn.Module):
    """A stage that takes the picture."""

    def __init__(self, stage: nn.Module) -> None:
        super().__init__()
        self.stage = stage

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        out: dict[str, Tensor] = self.stage(image)
        return out


class _LaterStage(nn.Module):
    """A stage that takes the stage before's hidden tensor."""

    def __init__(self, stage: nn.Module) -> None:
        super().__init__()
        self.stage = stage

    def forward(self, hidden: Tensor) -> dict[str, Tensor]:
        out: dict[str, Tensor] = self.stage(hidden)
        return out


class _NhwcTail(nn.Module):
    """The tail as the server calls it: features (B, H, W, C) -> logits (B, K)."""

    def __init__(self, tail: TailModule) -> None:
        super().__init__()
        self.tail = tail

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.tail(features.permute(0, 3, 1, 2))
        return logits


def export_head(network: Network, path: Path) -> None:
    """Write the head: every stage at every width, batch norms folded, static shapes, NHWC."""
    arch, converter = network.arch, None
    for width in arch.widths:
        x = torch.zeros(1, arch.input_size, arch.input_size, 3)
        for i in range(len(arch.stages)):
            plain = network.head.plain_stage(i, width)
            wrapped = (_LaterStage(plain) if i else _FirstStage(plain)).eval()
            kwargs = {"hidden" if i else "image": x}
            begin = converter.signature if converter is not None else litert_torch.signature
            converter = begin(signature(i, width), wrapped, sample_kwargs=kwargs)
            with torch.no_grad():
                x = plain(x).get("hidden", x)
    assert converter is not None
    converter.convert().export(str(path))


def export_tail(network: Network, path: Path) -> None:
    """Write the tail as ONNX with a batch of any size."""
    arch = network.arch
    size = arch.bottleneck_size
    sample = torch.zeros(2, size, size, arch.bottleneck_channels)
    torch.onnx.export(
        _NhwcTail(network.tail).eval(),
        (sample,),
        path,
        input_names=["features"],
        output_names=["logits"],
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=256)},),
        external_data=False,
        verbose=False,
    )
    store_in_half(path)


def store_in_half(path: Path) -> None:
    """Keep the tail's weights as float16 on disk: half the megabytes; the engine widens them once, when it loads."""
    model = onnx.load(path)
    widened = []
    for tensor in model.graph.initializer:
        value = onnx.numpy_helper.to_array(tensor)
        if value.dtype == np.float32 and value.size >= SMALL:
            name, half = tensor.name, f"{tensor.name}_half"
            tensor.CopyFrom(onnx.numpy_helper.from_array(value.astype(np.float16), half))
            widened.append(onnx.helper.make_node("Cast", [half], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*widened, *model.graph.node]
    for node in nodes:
        del node.metadata_props[:]  # torch's stack traces: the paths of whoever exported
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, path)


@torch.no_grad()
def check_parity(network: Network, folder: Path, images: Tensor) -> tuple[float, float]:
    """The largest differences of head and tail between torch and the exports over `images` (N, 3, S, S), every width.

    Raises BundleError when one exceeds PARITY or TAIL_PARITY.
    """
    head = Interpreter(str(folder / "head.tflite"), num_threads=1)
    tail = onnxruntime.InferenceSession(folder / "tail.onnx", providers=["CPUExecutionProvider"])
    worst = worst_tail = 0.0
    for width in network.arch.widths:
        features, exits = network.head(images, width)
        logits = network.tail(features)
        for i in range(len(images)):
            out = {"hidden": images[i : i + 1].permute(0, 2, 3, 1).contiguous().numpy()}
            for stage in range(len(network.arch.stages)):
                runner = head.get_signature_runner(signature(stage, width))
                out = runner(**{"hidden" if stage else "image": out["hidden"]})
                worst = max(worst, _gap(out["logits"], exits[stage][i : i + 1]))
            worst = max(worst, _gap(out["features"], features[i : i + 1].permute(0, 2, 3, 1)))
            (answer,) = tail.run(["logits"], {"features": out["features"]})
            worst_tail = max(worst_tail, _gap(answer, logits[i : i + 1]))
    if worst > PARITY or worst_tail > TAIL_PARITY:
        raise BundleError(f"{folder.name}: exports differ from torch by {worst:.2g} (head), {worst_tail:.2g} (tail)")
    return worst, worst_tail


def _gap(found: NDArray[np.float32], expected: Tensor) -> float:
    return float(np.abs(found - expected.numpy()).max())


def write_bundle(
    target: Path,
    network: Network,
    evaluation: Evaluation,
    *,
    name: str,
    labels: tuple[str, ...],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    images: Tensor,
    made_by: str,
    reference: Literal["labels", "uncut"] = "labels",
    behind: Behind | None = None,
    remark: str = "",
) -> bundle.Bundle:
    """Export, compare with torch on `images` (N, 3, S, S), and put the bundle at `target`, replacing an older one.

    `reference` is what accuracies are measured against; `behind` takes what `network.tail` gives, and makes the answer of
    it; `remark` goes into the model card.
    """
    network.head.eval()
    network.tail.eval()
    gap = (0.0, 0.0)

    def fill(folder: Path) -> None:
        nonlocal gap
        export_head(network, folder / "head.tflite")
        export_tail(network, folder / "tail.onnx")
        if behind is not None:
            (folder / BEHIND).write_bytes(behind.model)
        gap = check_parity(network, folder, images)
        save(folder, evaluation.outcomes)

    made = f"{made_by} (isthmus {importlib.metadata.version('isthmus')}, torch {torch.__version__})"
    manifest = msgspec.structs.replace(
        _manifest(network, evaluation, name, labels, mean, std, made), reference=reference
    )
    if behind is not None:
        manifest = msgspec.structs.replace(
            manifest,
            task=behind.task,
            tail=(TailPart("tail.onnx", "onnx"), TailPart(BEHIND, "litert")),
            tail_flops=manifest.tail_flops + behind.flops,
        )
    written = writer.write(target, manifest, fill)
    parity = (
        f"The exported head differs from torch by at most {gap[0]:.1g}, "
        f"the tail (float16 on disk) by {gap[1]:.1g} in what it gives."
    )
    card.write(written, evaluation, remark=" ".join(filter(None, (parity, remark))))
    return written


def _manifest(
    network: Network,
    evaluation: Evaluation,
    name: str,
    labels: tuple[str, ...],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    made_by: str,
) -> Manifest:
    arch = network.arch
    macs = {w: network.head.macs(w) for w in arch.widths}
    bottleneck = Bottleneck.of(evaluation.codec)
    manifest = Manifest(
        schema=bottleneck.schema,
        name=name,
        task="classification",
        labels=labels,
        input=Input(arch.input_size, (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])),
        widths=arch.widths,
        stages=tuple(
            tuple(Stage(w, signature(i, w), 2 * macs[w][i]) for w in arch.widths) for i in range(len(arch.stages))
        ),
        bottleneck=bottleneck,
        tail_flops=2 * network.tail.macs(arch.bottleneck_size),
        confidence_edges=CONFIDENCE_EDGES,
        points=(),
        files={},
        made_by=made_by,
    )
    return measured(manifest, evaluation)
