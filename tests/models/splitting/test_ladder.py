"""Pictures beside features: both are steps of one ladder, and the picture can be sent before the head has run."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import tomli_w

from graphs import classifier
from isthmus.cli.main import application
from isthmus.device.catalogue import Catalogue
from isthmus.device.executor import Executor, measure_coding
from isthmus.device.scheduler import GO_ON, STOP, ExpectedUtility, Offload, Situation
from isthmus.device.stage_times import StageTimes
from isthmus.edge_server.engines import Tail
from isthmus.emulation import policies
from isthmus.emulation.clairvoyant import runs
from isthmus.emulation.virtual import scenario
from isthmus.emulation.virtual.setting import OpenedScenario
from isthmus.emulation.virtual.world import World
from isthmus.models import flatbuffer, scenes, seal
from isthmus.models.bundle import Bundle, load
from isthmus.models.splitting import ladder, split
from isthmus.models.splitting.cuts import cuts
from isthmus.models.splitting.ladder import Coder, Sight
from isthmus.models.splitting.uncut import Uncut, input_of
from isthmus.proto.compat import tomllib
from isthmus.proto.errors import BundleError, ConfigError
from isthmus.proto.frame_codec import FrameCodec
from isthmus.proto.machine import run_virtual
from isthmus.proto.vocabulary import Guess, StageResult
from situations import link

PICTURES = [np.ascontiguousarray(cv2.resize(image, (80, 60)).astype(np.uint8)) for image in scenes.samples(24, 5)[0]]
CODER = Coder("jpeg", (Sight((95, 30)),))
HEAD_S, CODING_S = 0.05, 0.002


def silent(_: str) -> None:
    pass


def shown(path: Path) -> Uncut:
    graph = flatbuffer.read(path)
    return Uncut.of(graph, input_of(graph, "0..1"), None, PICTURES)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("mixed")
    uncut = shown(classifier(folder / "model.tflite", size=48))
    cut = next(cut for cut in cuts(uncut.graph) if not cut.obstacle)
    found = split.measured(uncut, cut)
    steps = len(found.coding.codec.steps)
    measured = ladder.measured(uncut, PICTURES, CODER, uncut.guesses(), silent, first_step=steps)
    split.write(folder / "bundle", split.with_pictures(found, measured), labels=["a", "b", "c", "d"])
    return load(str(folder / "bundle"))


def test_the_picture_is_there_before_the_head_and_the_features_after_it(made: Bundle) -> None:
    device, steps = Executor(made), len(made.manifest.bottleneck.steps)
    device.hold(0, PICTURES[0])
    first = device.job(0, 0, 1.0)()
    assert first.layer_bytes is not None
    assert [len(sizes) for sizes in first.layer_bytes] == [0] * steps + [1, 1]
    before = device.encode(0, steps, 0)
    second = device.job(0, 1, 1.0)()
    assert second.layer_bytes is not None
    assert min(len(sizes) for sizes in second.layer_bytes[:steps]) > 1
    assert second.layer_bytes[steps:] == first.layer_bytes[steps:]
    assert device.encode(0, steps, 0) == before
    assert device.encode(0, 0, 0) != before
    assert measure_coding(device, made) > 0


def test_the_uncut_model_answers_what_crossed_beside_the_tail(made: Bundle) -> None:
    device, codec, steps = Executor(made), FrameCodec(made.codec), len(made.manifest.bottleneck.steps)
    frames = []
    for number, pixels in enumerate(PICTURES[:4]):
        device.hold(number, pixels)
        for stage in range(2):
            device.job(number, stage, 1.0)()
        step, layers = (0, 3) if number % 2 else (steps, 1)
        frames.append(codec.decode([device.encode(number, step, n) for n in range(layers)]))
    answers = Tail(made, 1).run(frames)
    uncut = [shown(made.folder.parent / "model.tflite").guesses()[i] for i in range(4)]
    for packed, guess in zip(answers, uncut, strict=True):
        assert packed is not None
        assert made.manifest.answers.guess(packed, temperature=1.0, accuracy=1.0).label == guess.label


def test_steps_of_both_kinds_are_in_the_catalogue(made: Bundle) -> None:
    known, steps = Catalogue.from_manifest(made.manifest), len(made.manifest.bottleneck.steps)
    assert [known.is_picture(step) for step in range(steps + 2)] == [False] * steps + [True, True]
    assert (known.sent_after(0), known.sent_after(steps)) == (1, 0)
    assert [len(row) for row in known.offloads[0]] == [3] * steps + [1, 1]
    assert "| jpeg 95 | 1 |" in (made.folder / "MODEL_CARD.md").read_text()
    assert made.manifest.step_name(steps + 1) == "jpeg 30"


def situation(budget_s: float, head_s: float = HEAD_S, rate_Bps: float = 1e6) -> Situation:
    times = StageTimes([[1e-4], [head_s]], CODING_S)
    return Situation(budget_s, link(rate_Bps), times, 1.0)


def test_a_head_that_is_too_slow_is_left_out_where_the_link_carries_the_picture(made: Bundle) -> None:
    known, steps = Catalogue.from_manifest(made.manifest), len(made.manifest.bottleneck.steps)
    policy = ExpectedUtility(known)
    sizes = ((),) * steps + ((4000,), (900,))
    first = StageResult(0, 0, 1.0, None, 1e-4, sizes)
    choice = policy.after_exit(first, situation(0.5, head_s=0.6))
    assert isinstance(choice, Offload)
    assert known.is_picture(choice.step)
    assert policy.after_exit(first, situation(CODING_S / 2)) == STOP
    no_link = Situation(0.5, None, StageTimes([[1e-4], [HEAD_S]], CODING_S), 1.0)
    assert policy.after_exit(first, no_link) == STOP


def test_features_are_waited_for_where_the_picture_would_not_get_through(made: Bundle) -> None:
    known, steps = Catalogue.from_manifest(made.manifest), len(made.manifest.bottleneck.steps)
    first = StageResult(0, 0, 1.0, Guess(0, 0.0), 1e-4, ((),) * steps + ((40_000,), (20_000,)))
    assert ExpectedUtility(known).after_exit(first, situation(0.5, rate_Bps=10_000)) == GO_ON


@pytest.mark.parametrize("trace", ["demo", "umts"])
def test_nobody_beats_the_clairvoyant_with_both_at_hand(made: Bundle, trace: str) -> None:
    table = {"bundle": str(made.folder), "trace": trace, "duration_s": 6.0, "deadline_s": 0.2, "scale": 0.02}
    opened = {who: OpenedScenario.of(scenario.of({**table, "policy": who})) for who in policies.available(made)}
    assert "always-jpeg" in opened
    bound = sum(bool(r.right) for run in runs.runs(opened["expected-utility"]) for r in run.records)
    right = {}
    for who, setting in opened.items():
        world = World(setting)
        run_virtual(world, until_s=world.ends_s)
        right[who] = sum(bool(r.right) for records in world.records for r in records)
    assert max(right.values()) <= bound
    assert right["expected-utility"] >= 0.9 * max(right.values())


def test_a_split_and_a_larger_model_are_made_by_the_verb(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, pixels in enumerate(PICTURES):
        cv2.imwrite(str(folder / f"{number:02d}.png"), pixels)
    model, larger = (
        classifier(tmp_path / "model.tflite", size=16),
        classifier(tmp_path / "larger.tflite", size=48, seed=1),
    )
    words = ["models", "split", str(model), "--pictures", str(folder), "--pixels", "0..1", "--at", "0"]
    more = ["--larger", str(larger), "--qualities", "80,10", "--fallback", str(model), "--out", str(tmp_path / "made")]
    application(["models"])([*words, *more], standalone_mode=False)
    manifest = load(str(tmp_path / "made")).manifest
    assert manifest.picture is not None
    assert (manifest.picture.input.size, manifest.picture.qualities) == (48, (80, 10))
    assert [stage[0].signature for stage in manifest.stages] == ["fallback", "", "head"]
    assert manifest.picture_stage == 1
    assert manifest.points[-2].accuracy == 1.0  # of the larger model's own answers


def test_features_need_a_last_stage_that_gives_them(made: Bundle, tmp_path: Path) -> None:
    shutil.copytree(made.folder, tmp_path / "copy", ignore=shutil.ignore_patterns(seal.SEAL))
    table = tomllib.loads((tmp_path / "copy" / seal.FILE).read_text())
    table["stages"].reverse()
    (tmp_path / "copy" / seal.FILE).write_text(tomli_w.dumps(table))
    with pytest.raises(BundleError, match=r"stages\[1\]: needs a signature, which gives the features"):
        load(str(tmp_path / "copy"))


@pytest.mark.parametrize(
    ("with_device", "why"), [(False, "the device has no answer of its own"), (True, "have no places")]
)
def test_a_part_is_refused_where_nothing_says_which_or_where(tmp_path: Path, *, with_device: bool, why: str) -> None:
    model = shown(classifier(tmp_path / "model.tflite"))
    coder, device = Coder("webp", (Sight((50,)), Sight((50,), 12, region=True))), model if with_device else None
    with pytest.raises(ConfigError, match=f"--region: .*{why}"):
        ladder.measured(model, PICTURES, coder, model.guesses(), silent, device=device)
