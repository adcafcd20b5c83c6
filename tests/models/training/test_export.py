"""From torch to files: what is written computes what was trained, says how it was made, and replaces nothing half-made."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed; the training rooms need it")
pytest.importorskip("litert_torch", reason="litert-torch is not installed; exporting a head needs it")
pytest.importorskip("onnxscript", reason="onnxscript is not installed; exporting a tail needs it")

import onnx
import onnxruntime
import torch

from isthmus.models import bundle as bundles
from isthmus.models.bundle import Bundle
from isthmus.models.bundling.evaluate import Evaluation, evaluate, fitted_codec
from isthmus.models.bundling.shipped import Shipped
from isthmus.models.data import labelled
from isthmus.models.data.labelled import Validation
from isthmus.models.training import export
from isthmus.models.training.backbones import Architecture, Conv, SplitNetwork
from isthmus.models.training.run import Trained
from isthmus.proto.errors import BundleError

pytestmark = pytest.mark.filterwarnings("ignore")  # the converters' own
ARCH = Architecture(
    input_size=16,
    classes=3,
    widths=(0.5, 1.0),
    stages=((Conv(16, stride=2),), (Conv(16, stride=2), Conv(16, residual=True))),
    exit_channels=(16, 16),
    bottleneck_channels=4,
    tail=(Conv(16), Conv(16, residual=True)),
)
MEAN, STD, STEPS = (0.5, 0.45, 0.4), (0.25, 0.2, 0.3), (0.5, 1.0)


def pictures(n: int) -> labelled.Pictures:
    rng = np.random.default_rng(0)
    return labelled.Pictures(rng.integers(0, 256, (n, 16, 16, 3), np.uint8), np.arange(n) % 3)


def images(n: int) -> torch.Tensor:
    return labelled.normalised(pictures(n).images, MEAN, STD)


@pytest.fixture(scope="module")
def network() -> SplitNetwork:
    """Random weights, and batch norms whose statistics are those of pictures: nothing is trivially 0 or 1."""
    torch.set_num_threads(1)
    torch.manual_seed(3)
    network = SplitNetwork(ARCH).train()
    with torch.no_grad():
        for width in ARCH.widths:
            network.tail(network.head(images(32), width)[0])
    return network.eval()


@pytest.fixture(scope="module")
def evaluation(network: SplitNetwork) -> Evaluation:
    validation = Validation(pictures(24), np.arange(24) % 2 == 0, MEAN, STD)
    trained = Trained(network, MEAN, STD)
    codec = fitted_codec(trained, ARCH.widths, STEPS, pictures(24).images)
    return evaluate(trained, ARCH.widths, codec, validation, lambda _: None)


def write(target: Path, network: SplitNetwork, evaluation: Evaluation) -> Bundle:
    return export.write_bundle(
        target,
        network,
        evaluation,
        name="tiny",
        labels=("a", "b", "c"),
        mean=MEAN,
        std=STD,
        images=images(3),
        made_by="isthmus models train tiny",
        remark="A remark.",
    )


@pytest.fixture(scope="module")
def made(network: SplitNetwork, evaluation: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write(tmp_path_factory.mktemp("exported") / "tiny", network, evaluation)


def test_the_files_compute_what_torch_computes_at_every_width(made: Bundle, network: SplitNetwork) -> None:
    shipped, trained, shown = Shipped(made), Trained(network, MEAN, STD), pictures(6).images
    for width in ARCH.widths:
        features, exits = shipped.head(shown, width)
        expected, at_exits = trained.head(shown, width)
        np.testing.assert_allclose(features, expected, atol=export.PARITY)
        for found, logits in zip(exits, at_exits, strict=True):
            np.testing.assert_allclose(found, logits, atol=export.PARITY)
        np.testing.assert_allclose(shipped.tail(features), trained.tail(expected), atol=export.TAIL_PARITY)


def test_the_manifest_names_every_stage_its_work_and_how_it_was_made(made: Bundle, network: SplitNetwork) -> None:
    m = made.manifest
    assert [[stage.signature for stage in row] for row in m.stages] == [
        ["w050_stage1", "w100_stage1"],
        ["w050_stage2", "w100_stage2"],
    ]
    assert [row[1].flops for row in m.stages] == [2 * macs for macs in network.head.macs(1.0)]
    assert m.tail_flops == 2 * network.tail.macs(4)
    assert (m.labels, m.input.mean, m.input.std) == (("a", "b", "c"), MEAN, STD)
    assert m.made_by.startswith("isthmus models train tiny (isthmus ")
    assert f"torch {torch.__version__})" in m.made_by


def test_every_file_matches_its_hash_and_the_card_says_how_close_the_export_is(made: Bundle) -> None:
    for name, expected in made.manifest.files.items():
        assert hashlib.sha256((made.folder / name).read_bytes()).hexdigest() == expected
    assert set(made.manifest.files) == {"head.tflite", "tail.onnx", "outcomes.npz"}
    card = (made.folder / "MODEL_CARD.md").read_text()
    assert "The exported head differs from torch by at most" in card
    assert "A remark." in card
    assert bundles.load(str(made.folder)).sha256 == made.sha256


def test_the_tail_takes_a_batch_of_any_size_and_holds_no_traces_of_who_exported_it(made: Bundle) -> None:
    session = onnxruntime.InferenceSession(made.tail_path, providers=["CPUExecutionProvider"])
    features = np.random.default_rng(1).standard_normal((7, 4, 4, 4)).astype(np.float32)
    (whole,) = session.run(["logits"], {"features": features})
    for i in (0, 6):
        (alone,) = session.run(["logits"], {"features": features[i : i + 1]})
        np.testing.assert_allclose(alone[0], whole[i], atol=1e-4)
    model = onnx.load(made.tail_path)
    assert not any(node.metadata_props for node in model.graph.node)
    stored = {t.data_type for t in model.graph.initializer if np.prod(t.dims) >= export.SMALL}
    assert stored == {onnx.TensorProto.FLOAT16}


def test_an_export_that_differs_from_torch_is_refused_and_the_old_bundle_stays(
    made: Bundle, network: SplitNetwork, evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {p.name: p.read_bytes() for p in made.folder.iterdir()}
    monkeypatch.setattr(export, "PARITY", -1.0)
    with pytest.raises(BundleError, match=r"tiny: exports differ from torch by .* \(head\), .* \(tail\)"):
        write(made.folder, network, evaluation)
    assert {p.name: p.read_bytes() for p in made.folder.iterdir()} == before
    assert [p.name for p in made.folder.parent.iterdir()] == ["tiny"]


def test_a_head_that_is_not_the_network_s_is_noticed(made: Bundle, network: SplitNetwork, tmp_path: Path) -> None:
    torch.manual_seed(4)
    other = SplitNetwork(ARCH).eval()
    assert export.check_parity(network, made.folder, images(2))[0] <= export.PARITY
    with pytest.raises(BundleError, match="tiny: exports differ from torch"):
        export.check_parity(other, made.folder, images(2))
