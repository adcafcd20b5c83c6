"""From a trained detector to a bundle whose files answer as torch does, and as the live halves read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed; the training rooms need it")
pytest.importorskip("litert_torch", reason="litert-torch is not installed; exporting a head needs it")
pytest.importorskip("onnxscript", reason="onnxscript is not installed; exporting a tail needs it")

import torch

from isthmus.device.executor import Executor
from isthmus.edge_server.engines import Tail
from isthmus.models.bundle import Bundle
from isthmus.models.detection import card, export, measuring
from isthmus.models.detection.network import Architecture, Detector
from isthmus.models.detection.shipped import Shipped
from isthmus.models.detection.trainer import normalised
from isthmus.proto.errors import BundleError
from isthmus.proto.frame_codec import FrameCodec
from small_skies import sky

pytestmark = pytest.mark.filterwarnings("ignore")  # the converters' own
ARCH = Architecture(
    height=64,
    width=96,
    classes=2,
    widths=(0.5, 1.0),
    channels=(8, 8, 16),
    exit_blocks=1,
    bottleneck=4,
    tail=(16, 16),
    small=8,
)


@pytest.fixture(scope="module")
def network() -> Detector:
    """Random weights, and batch norms whose statistics are those of pictures: nothing is trivially 0 or 1."""
    torch.set_num_threads(1)
    torch.manual_seed(3)
    network = Detector(ARCH).train()
    with torch.no_grad():
        for width in ARCH.widths:
            network.tail(network.head(normalised(sky().images), width)[0])
    return network.eval()


@pytest.fixture(scope="module")
def made(network: Detector, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    frames, trained = sky(), export.Trained(network)
    codec = measuring.fitted_codec(trained, ARCH.widths, (0.5, 1.0), frames.images)
    answers, layer_bytes = measuring.answered(trained, ARCH.widths, codec, frames.images, lambda _: None)
    boxes = measuring.fitted_boxes(answers, frames)
    evaluation, edges = measuring.evaluated(answers, layer_bytes, frames, boxes, codec)
    target = tmp_path_factory.mktemp("made") / "sky"
    made = export.write_bundle(
        target,
        network,
        evaluation,
        edges,
        boxes,
        name="sky",
        labels=frames.labels,
        images=frames.images[:4],
        made_by="a test",
    )
    card.write(made, "## Further\n")
    return made


def test_the_files_answer_as_torch_does(network: Detector, made: Bundle) -> None:
    images, shipped, trained = sky().images[:6], Shipped(made), export.Trained(network)
    for width in ARCH.widths:
        for found, expected in zip(shipped.head(images, width), trained.head(images, width), strict=True):
            np.testing.assert_allclose(found, expected, atol=export.PARITY)
    features = trained.head(images, 1.0)[0]
    np.testing.assert_allclose(shipped.tail(features), trained.tail(features), atol=export.TAIL_PARITY)


def test_the_live_halves_read_it(made: Bundle) -> None:
    executor, tail, codec = Executor(made), Tail(made, 1), FrameCodec(made.codec)
    executor.hold(0, sky().images[0])
    result = executor.job(0, 0, 0.5)()
    assert result.guess is not None
    assert result.guess.detail is not None
    (packed,) = tail.run([codec.decode([executor.encode(0, 1, 0)])])
    assert isinstance(packed, bytes)
    made.manifest.answers.guess(packed, temperature=1.0, accuracy=1.0)


def test_its_card_and_table_of_outcomes(made: Bundle) -> None:
    assert made.manifest.made_by.startswith("a test")
    assert made.outcomes().label.shape == (24, len(made.manifest.points))
    text = (made.folder / card.FILE).read_text()
    assert text.startswith("# sky")
    assert text.endswith("## Further\n")


def test_exports_that_are_not_what_was_trained_are_refused(network: Detector, made: Bundle) -> None:
    torch.manual_seed(4)
    other = Detector(ARCH).eval()
    with pytest.raises(BundleError, match="exports differ from torch"):
        export.check_parity(other, Path(made.folder), sky().images[:2])
