"""Torch to a bundle: LiteRT head with one signature per stage and width, ONNX tail with a dynamic batch, the manifest.

Both halves are run and compared with torch before anything is written under the bundle's name; a bundle is made in a
temporary folder and renamed, so that none is ever half-written.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import shutil
import tempfile
from pathlib import Path

import litert_torch
import numpy as np
import onnx
import onnxruntime
import tomli_w
import torch
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from torch import Tensor, nn

from isthmus.models import bundle, card
from isthmus.models.backbones import SplitNetwork
from isthmus.models.evaluate import CONFIDENCE_EDGES, Evaluation
from isthmus.models.layers import width_key
from isthmus.models.recipes import Recipe
from isthmus.proto.codec import CodecConfig
from isthmus.proto.errors import BundleError

PARITY = 1e-3
"""Largest difference allowed between torch and the exported head, in logits and in unit-variance features."""
TAIL_PARITY = 0.05
"""The same for the tail's logits, whose weights were rounded to float16."""
SMALL = 1024
"""Tensors of fewer values stay float32."""


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

    def __init__(self, tail: nn.Module) -> None:
        super().__init__()
        self.tail = tail

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.tail(features.permute(0, 3, 1, 2))
        return logits


def export_head(network: SplitNetwork, path: Path) -> None:
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


def export_tail(network: SplitNetwork, path: Path) -> None:
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
    _store_in_half(path)


def _store_in_half(path: Path) -> None:
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
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, path)


@torch.no_grad()
def check_parity(network: SplitNetwork, folder: Path, images: Tensor) -> tuple[float, float]:
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
    network: SplitNetwork,
    recipe: Recipe,
    evaluation: Evaluation,
    *,
    name: str,
    labels: tuple[str, ...],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    images: Tensor,
    made_by: str,
) -> bundle.Bundle:
    """Export, compare with torch on `images` (N, 3, S, S), and put the bundle at `target`, replacing an older one."""
    network = network.eval()
    with tempfile.TemporaryDirectory(dir=_made(target.parent)) as scratch:
        folder = Path(scratch) / name
        folder.mkdir()
        export_head(network, folder / "head.tflite")
        export_tail(network, folder / "tail.onnx")
        gap = check_parity(network, folder, images)
        np.savez_compressed(folder / "outcomes.npz", **{f: getattr(evaluation.outcomes, f) for f in _OUTCOME_FIELDS})
        made = f"{made_by} (isthmus {importlib.metadata.version('isthmus')}, torch {torch.__version__})"
        manifest = _manifest(network, recipe, evaluation, name, labels, mean, std, made)
        manifest["files"] = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}
        (folder / "bundle.toml").write_text(tomli_w.dumps(manifest))
        card.write(bundle.load(str(folder)), evaluation, parity=gap)
        shutil.rmtree(target, ignore_errors=True)
        folder.rename(target)
    return bundle.load(str(target))


_OUTCOME_FIELDS = tuple(bundle.Outcomes.__dataclass_fields__)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _manifest(
    network: SplitNetwork,
    recipe: Recipe,
    evaluation: Evaluation,
    name: str,
    labels: tuple[str, ...],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    made_by: str,
) -> dict[str, object]:
    arch = recipe.arch
    macs = {w: network.head.macs(w) for w in arch.widths}
    temperature = {(p.width, p.exit): p.temperature for p in evaluation.points}
    stages = [
        [
            {
                "width": w,
                "signature": signature(i, w),
                "flops": 2 * macs[w][i],
                "temperature": temperature[w, i],
            }
            for w in arch.widths
        ]
        for i in range(len(arch.stages))
    ]
    return {
        "schema": bundle.SCHEMA,
        "name": name,
        "task": "classification",
        "made_by": made_by,
        "labels": list(labels),
        "widths": list(arch.widths),
        "confidence_edges": list(CONFIDENCE_EDGES),
        "tail_flops": 2 * network.tail.macs(arch.bottleneck_size),
        "input": {"size": arch.input_size, "mean": list(mean), "std": list(std)},
        "bottleneck": _bottleneck(evaluation.codec),
        "stages": stages,
        "points": [{k: v for k, v in _plain(p).items() if v is not None} for p in evaluation.points],
    }


def _plain(point: bundle.Point) -> dict[str, object]:
    fields = {name: getattr(point, name) for name in point.__struct_fields__}
    fields["accuracy_given"] = [list(row) for row in point.accuracy_given]
    return fields


def _bottleneck(codec: CodecConfig) -> dict[str, object]:
    return {
        "height": codec.height,
        "width": codec.width,
        "channels": codec.channels,
        "zero_point": list(codec.zero_point),
        "steps": list(codec.steps),
        "tables": [["".join(f"{length:x}" for length in table) for table in row] for row in codec.tables],
        "size_fit": [[list(coefficients) for coefficients in row] for row in codec.size_fit],
    }
