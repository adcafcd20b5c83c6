"""A bottleneck injected into a detector: where it goes, how it begins, what training sees of the codec, and what it learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed; distilling needs it")

import torch

from isthmus.models import flatbuffer
from isthmus.models.bundling.spectral_fit import trained
from isthmus.models.distillation.views import Album
from isthmus.models.injection.losses import answer_distance
from isthmus.models.injection.network import Injected
from isthmus.models.injection.rounding import Rounding
from isthmus.models.injection.settings import InjectionSettings
from isthmus.models.injection.teacher import DetectorTeacher, encoder_flops
from isthmus.models.injection.trainer import InjectionTrainer
from isthmus.models.injection.views import view
from isthmus.models.splitting.uncut import input_of
from isthmus.proto.codec import Codec
from isthmus.proto.errors import DataError, ModelError
from small_detectors import CLASSES, SIZE, small_detector
from small_teachers import fill, silent

SETTINGS = InjectionSettings(
    epochs=3,
    views=64,
    batch=8,
    small=1.0,
    small_share=1.0,
    steps=(0.2, 0.3, 0.5),
    inside=8,
    aimed_bytes=60,
    tuned_rate=1e-3,
)


def teacher(tmp_path: Path, *, share: float = 0.95, at: int | None = None) -> DetectorTeacher:
    path = tmp_path / "eyes.tflite"
    graph = flatbuffer.read(path if path.is_file() else small_detector(path))
    return DetectorTeacher.of(graph, input_of(graph, "0..1"), head_share=share, at=at)


def trainer(tmp_path: Path, settings: InjectionSettings = SETTINGS) -> InjectionTrainer:
    if not (tmp_path / "pictures").is_dir():
        fill(tmp_path / "pictures", 40, side=80)
    album = Album(tmp_path / "pictures", SIZE, tmp_path / "cache", silent)
    return InjectionTrainer(teacher(tmp_path), album, np.arange(40)[np.arange(40) % 10 > 0], settings, seed=1)


def test_the_cut_is_the_last_that_the_head_can_afford(tmp_path: Path) -> None:
    found = teacher(tmp_path)
    assert found.crossing.shape == (1, 16, 16, 8)
    assert found.cut.head_flops + encoder_flops(found.crossing) <= 0.95 * found.graph.flops
    assert teacher(tmp_path, at=0).crossing.shape == (1, 32, 32, 8)
    with pytest.raises(
        ModelError, match=r"after operator 1 no single map crosses that can be made smaller; near are 0, 2"
    ):
        teacher(tmp_path, at=1)
    with pytest.raises(ModelError, match=r"within 5% of the FLOPs; give the head more \(--head-share\)"):
        teacher(tmp_path, share=0.05)


def test_the_answers_are_what_the_last_convolutions_give(tmp_path: Path) -> None:
    found = teacher(tmp_path)
    assert [(answer.tensor.shape[3], answer.kind) for answer in found.answers] == [
        (1, "sigmoid"),
        (4, "places"),
        (CLASSES, "softmax"),
    ]
    (hint,) = found.hints
    assert hint.shape == (1, 4, 4, 8)  # the map that all three are made from
    bare = flatbuffer.read(small_detector(tmp_path / "bare.tflite", squashed=False))
    with pytest.raises(ModelError, match=r"bare\.tflite: none of its 3 last convolutions is followed by a sigmoid"):
        DetectorTeacher.of(bare, input_of(bare, "0..1"), head_share=0.95)


def test_a_bottleneck_begins_as_a_transform_of_blocks(tmp_path: Path) -> None:
    """Of maps whose blocks have few components nothing is lost, but for a mean that differs within a block."""
    network = Injected(teacher(tmp_path), 8)
    rng = np.random.default_rng(0)
    few = rng.normal(size=(3, 8, 2, 2)).astype(np.float32)
    maps = np.einsum("nhwk,kcab->nchawb", rng.normal(size=(6, 4, 4, 3)), few).reshape(6, 8, 8, 8).astype(np.float32)
    maps -= maps.mean((0, 2, 3), keepdims=True)
    network.begin(maps)
    with torch.no_grad():
        x = torch.from_numpy(maps)
        rebuilt = network.decoder(network.encoder(x))
    assert float((rebuilt - x).square().mean()) < 0.05 * float(x.var())


def test_what_training_rounds_is_what_the_codec_decodes() -> None:
    rng, rounding = np.random.default_rng(1), Rounding(6, (8, 8), 1.0)
    smooth = torch.nn.functional.interpolate(
        torch.from_numpy(rng.normal(size=(20, 6, 2, 2)).astype(np.float32)), (8, 8), mode="bilinear"
    )
    rounding.begin(smooth)
    crossed, kilobytes = rounding(smooth, torch.full((20, 1, 1, 1), 0.3))
    maps = smooth.permute(0, 2, 3, 1).contiguous().numpy()
    codec = Codec(trained(maps, (0.3,)))
    decoded = np.stack([codec.decode(codec.encode(each, 0)) for each in maps])
    within = np.abs(decoded - crossed.permute(0, 2, 3, 1).numpy())  # but for ties, and values at the floor
    assert np.quantile(within, 0.9) < 1e-3
    assert kilobytes.shape == (20,)
    assert float(rounding(smooth[:, :, :4], torch.full((20, 1, 1, 1), 0.3))[1].mean()) > 0  # of any size


def test_rounding_lets_gradients_pass() -> None:
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    crossed, _ = Rounding(3, (4, 4), 1.0)(x, torch.full((2, 1, 1, 1), 5.0))
    crossed.sum().backward()
    assert x.grad is not None
    assert float(x.grad.abs().min()) > 0.5  # whatever the rounding did


def test_answers_are_as_far_apart_as_their_scores_and_places(tmp_path: Path) -> None:
    answers, generator = teacher(tmp_path).answers, torch.Generator().manual_seed(0)
    aims = [torch.randn((2, a.tensor.shape[3], 4, 4), generator=generator) for a in answers]
    assert float(answer_distance(answers, aims, aims)) == pytest.approx(0, abs=1e-6)
    for i in range(3):
        other = [aim + 0.5 * (k == i) * torch.randn(aim.shape, generator=generator) for k, aim in enumerate(aims)]
        assert float(answer_distance(answers, other, aims)) > 0.01
    sunk = [aims[0] - 2, *aims[1:]]
    assert float(answer_distance(answers, sunk, aims)) > 0.1  # scores that sink are no better than wrong ones
    nothing = [torch.full_like(aims[0], -30.0), *aims[1:]]
    moved = [nothing[0], aims[1] + 3, aims[2]]
    assert float(answer_distance(answers, moved, nothing)) < 1e-3  # where nothing is, no place is asked for


def test_a_view_is_drawn_from_its_seed_and_filled(tmp_path: Path) -> None:
    fill(tmp_path / "pictures", 6, side=80)
    album = Album(tmp_path / "pictures", SIZE, tmp_path / "cache", silent)
    for size in (64, 416):
        one, same, other = (view(album, np.arange(6), size, np.random.default_rng(n)) for n in (3, 3, 4))
        assert one.shape == (size, size, 3)
        assert np.array_equal(one, same)
        assert not np.array_equal(one, other)


def test_learning_brings_the_answers_nearer_and_the_price_follows_the_bytes(tmp_path: Path) -> None:
    said: list[str] = []
    run = trainer(tmp_path, replace(SETTINGS, epochs=6, aimed_bytes=1))
    run.run(tmp_path / "state.pt", said.append)
    epochs = [line for line in said if line.startswith("epoch")]
    answers = [float(line.split("answer ")[1].split(",")[0]) for line in epochs]
    prices = [float(line.split("price ")[1].split(",")[0]) for line in epochs]
    assert answers[-1] < 0.8 * answers[0]
    assert prices == sorted(prices)  # one byte is never reached


def test_a_run_that_was_cut_off_goes_on_and_another_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state.pt"
    trainer(tmp_path, replace(SETTINGS, epochs=1)).run(state, silent)
    said: list[str] = []
    second = trainer(tmp_path, replace(SETTINGS, epochs=2))
    second.run(state, said.append)
    assert said[0] == "resumed after epoch 1 of 2"
    assert second.epochs_done == 2
    with pytest.raises(DataError, match=r"state\.pt: a checkpoint of another run \(inside differ"):
        trainer(tmp_path, replace(SETTINGS, inside=16)).run(state, silent)
