"""Both slimmable designs, and every kind of layer, run on a device as they were trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; the training rooms need it")

from isthmus.models.bundling.evaluate import evaluate, fitted_codec  # noqa: E402
from isthmus.models.data import labelled  # noqa: E402
from isthmus.models.data.labelled import Validation  # noqa: E402
from isthmus.models.training import run  # noqa: E402
from isthmus.models.training.backbones import Architecture, Conv, SplitNetwork  # noqa: E402
from isthmus.models.training.recipes import Recipe  # noqa: E402
from isthmus.proto.codec import Codec  # noqa: E402
from isthmus.proto.errors import ConfigError  # noqa: E402

SLICED = Architecture(
    input_size=16,
    classes=3,
    widths=(0.5, 1.0),
    stages=((Conv(16), Conv(32, stride=2)), (Conv(32, stride=2), Conv(32, residual=True))),
    exit_channels=(16, 32),
    bottleneck_channels=4,
    tail=(Conv(16), Conv(16, residual=True)),
)
SEPARABLE = (
    (Conv(16), Conv(32, stride=2, separable=True)),
    (Conv(32, stride=2), Conv(32, residual=True, separable=True)),
)
ENSEMBLE = replace(SLICED, members=2)
ARCHITECTURES = {
    "sliced": SLICED,
    "ensemble": ENSEMBLE,
    "ensemble, side by side": replace(ENSEMBLE, joining="concatenation"),
    "separable": replace(SLICED, stages=SEPARABLE),
    "separable ensemble": replace(ENSEMBLE, stages=SEPARABLE),
    "SoftPool": replace(SLICED, pooling="soft"),
    "max pool": replace(SLICED, pooling="max"),
}
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def pictures(n: int, seed: int = 0) -> labelled.Pictures:
    rng = np.random.default_rng(seed)
    return labelled.Pictures(rng.integers(0, 256, (n, 16, 16, 3)).astype(np.uint8), (np.arange(n) % 3).astype(np.int64))


def network(arch: Architecture) -> SplitNetwork:
    """Untrained, with statistics in its batch norms that are not those it began with."""
    torch.manual_seed(0)
    net = SplitNetwork(arch)
    net.train()
    x = labelled.normalised(pictures(32).images, MEAN, STD)
    with torch.no_grad():
        for width in arch.widths:
            net.tail(net.head(x, width)[0])
    net.eval()
    return net


@pytest.mark.parametrize("arch", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_the_exported_graph_is_the_network(arch: Architecture) -> None:
    net, x = network(arch), labelled.normalised(pictures(4, seed=1).images, MEAN, STD)
    with torch.no_grad():
        for width in arch.widths:
            features, at_exits = net.head(x, width)
            out = {"hidden": x.permute(0, 2, 3, 1)}
            for stage, logits in enumerate(at_exits):
                out = net.head.plain_stage(stage, width)(out["hidden"])
                torch.testing.assert_close(out["logits"], logits, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(out["features"].permute(0, 3, 1, 2), features, atol=1e-4, rtol=1e-4)


def test_a_member_does_not_know_how_many_others_run() -> None:
    net, x = (
        network(ARCHITECTURES["ensemble, side by side"]),
        labelled.normalised(pictures(4, seed=1).images, MEAN, STD),
    )
    with torch.no_grad():
        one, both = net.head(x, 0.5)[0], net.head(x, 1.0)[0]
    torch.testing.assert_close(one[:, :2], both[:, :2])
    assert not one[:, 2:].any()
    assert both[:, 2:].any()


def test_members_added_up_have_features_of_mean_0_and_variance_1_at_every_width() -> None:
    torch.manual_seed(0)
    net, x = SplitNetwork(ENSEMBLE).train(), labelled.normalised(pictures(64).images, MEAN, STD)
    for width in ENSEMBLE.widths:
        features = net.head(x, width)[0].detach()
        assert float(features.mean()) == pytest.approx(0, abs=1e-3)
        assert float(features.var()) == pytest.approx(1, abs=1e-2)


def test_members_and_widths_come_out_even() -> None:
    with pytest.raises(ConfigError, match="members: 16 channels cannot be shared out to 3 members"):
        replace(SLICED, members=3, widths=(1 / 3, 1.0))
    with pytest.raises(ConfigError, match=r"widths: 0\.3 is no whole number of 2 members"):
        replace(SLICED, members=2, widths=(0.3, 1.0))


def test_flops_of_a_member_are_its_own() -> None:
    head = SplitNetwork(ENSEMBLE).head
    for one, both in zip(head.macs(0.5), head.macs(1.0), strict=True):
        assert both == 2 * one


@pytest.mark.filterwarnings("ignore")  # the converters' own
def test_an_ensemble_on_a_device_answers_as_in_torch(tmp_path: Path) -> None:
    pytest.importorskip("litert_torch", reason="litert-torch is not installed; exporting needs it")
    from isthmus.device.executor import Executor
    from isthmus.models.training.export import write_bundle

    arch = ENSEMBLE
    net, recipe = network(arch), Recipe(arch=arch, epochs=1, steps=(0.5, 1.0))
    halves, validation = run.Trained(net, MEAN, STD), Validation(pictures(40), np.arange(40) % 2 == 0, MEAN, STD)
    codec = fitted_codec(halves, arch.widths, recipe.steps, pictures(60, seed=2).images)
    evaluation = evaluate(halves, arch.widths, codec, validation, lambda _: None)
    shown = pictures(4, seed=3).images
    bundle = write_bundle(
        tmp_path / "tiny",
        net,
        evaluation,
        name="tiny",
        labels=("a", "b", "c"),
        mean=MEAN,
        std=STD,
        images=labelled.normalised(shown, MEAN, STD),
        made_by="a test",
    )
    executor = Executor(bundle)
    for width in arch.widths:
        features, at_exits = halves.head(shown, width)
        for i, pixels in enumerate(shown):
            executor.hold(i, pixels)
            for stage, logits in enumerate(at_exits):
                guess = executor.job(i, stage, width)().guess
                assert guess is not None
                assert guess.label == int(logits[i].argmax())
            expected = Codec(bundle.codec).encode(features[i], 0)
            assert executor.encode(i, 0, 0) == expected[0]
            executor.forget(i)
