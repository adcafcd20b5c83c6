"""What a bundle is to existing clients: the same network that a device and a server are together."""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from isthmus.device.capture.sources.clips import Clips
from isthmus.device.executor import Executor
from isthmus.edge_server.engines import Tail
from isthmus.edge_server.inference.offers import ANSWER, PAYLOAD, PICTURE, Asked, Offer, Offers
from isthmus.edge_server.streams import Served
from isthmus.models import bundle as bundles
from isthmus.models.bundle import Bundle
from isthmus.models.scenes import Drive
from isthmus.proto.codec import Codec
from isthmus.proto.errors import BundleError, WireError
from isthmus.proto.vocabulary import Placing

SIGNS = bundles.load("signs")
PICTURES = np.stack([Drive(3).frame(i).image for i in range(0, 90, 30)])


def test_a_picture_goes_through_the_network_that_a_device_and_a_server_are() -> None:
    offer, executor, tail = Offer(SIGNS), Executor(SIGNS), Tail(SIGNS, 1)
    assert offer.read(PICTURE, PICTURES) is None, "the head must see them first"
    asked = asyncio.run(offer.see(PICTURES))
    for i, (frame, pixels) in enumerate(zip(asked.frames, PICTURES, strict=True)):
        executor.hold(i, pixels)
        for stage in range(len(SIGNS.manifest.stages)):
            executor.job(i, stage, 1.0)()
        np.testing.assert_array_equal(frame, executor.features(i))
    packed = [answer for answer in tail.run(asked.frames) if answer is not None]
    answers = [json.loads(told) for told in offer.answers(packed, asked, ANSWER)]
    logits = offer.answers(packed, asked, offer.outputs[1])
    assert logits.shape == (3, len(SIGNS.manifest.labels))
    for answer, row in zip(answers, logits, strict=True):
        assert answer["label"] == row.argmax()
        assert answer["name"] == SIGNS.manifest.labels[answer["label"]]
        assert 0 < answer["confidence"] <= 1
    offer.close()


def test_what_crosses_may_be_given_as_it_crosses() -> None:
    offer, codec = Offer(SIGNS), Codec(SIGNS.manifest.bottleneck.codec)
    features = np.random.default_rng(0).normal(size=(16, 16, 6)).astype(np.float32)
    payloads = codec.encode(features, 0)
    values = np.empty((1, len(payloads)), object)
    values[0] = payloads
    asked = offer.read(PAYLOAD, values)
    assert asked is not None
    np.testing.assert_allclose(asked.frames[0], codec.decode(payloads), atol=1e-6)
    for damaged in (payloads[0][:-3], b"", b"\xff" * 40):
        values[0, 0] = damaged
        with pytest.raises(WireError, match="payload 0: "):
            offer.read(PAYLOAD, values)


def test_features_must_be_numbers() -> None:
    offer = Offer(SIGNS)
    features = np.zeros((2, 16, 16, 6), np.float32)
    asked = offer.read(offer.inputs("signs.tail")[0], features)
    assert asked is not None
    assert len(asked.frames) == 2
    features[1, 3, 3, 3] = np.nan
    with pytest.raises(WireError, match="features: NaN or infinite"):
        offer.read(offer.inputs("signs.tail")[0], features)


def test_boxes_have_names_and_lie_in_the_picture_that_was_sent() -> None:
    """A detector's answers; and the same, were the picture in the middle of grey."""
    skywatch = bundles.load("skywatch")
    offer = Offer(skywatch)
    clip = Clips()
    pictures = [pixels for _ in range(40) if (pixels := clip.read().pixels) is not None][::8]
    clip.close()
    asked = asyncio.run(offer.see(np.stack(pictures)))
    packed = [answer for answer in Tail(skywatch, 1).run(asked.frames) if answer is not None]
    plain = [json.loads(told) for told in offer.answers(packed, asked, ANSWER)]
    found = [box for answer in plain for box in answer["boxes"]]
    assert "airplane" in {box["name"] for box in found}
    assert {box["name"] for box in found} <= set(skywatch.manifest.labels)
    framed = Asked(asked.frames, (Placing(0.25, 0.0, 0.5, 1.0),) * len(packed))
    told = [json.loads(told) for told in offer.answers(packed, framed, ANSWER)]
    for before, after in zip(found, (box for answer in told for box in answer["boxes"]), strict=True):
        assert after["top"] == pytest.approx(min(max((before["top"] - 0.25) / 0.5, 0), 1))
        assert (after["name"], after["left"]) == (before["name"], before["left"])
    assert offer.outputs == (ANSWER,), "boxes have no logits"


def test_without_its_head_only_the_tail_is_offered(tmp_path: Path) -> None:
    folder = tmp_path / "signs"
    shutil.copytree(SIGNS.folder, folder)
    (folder / "head.tflite").write_bytes(b"damaged")
    damaged = Offer(bundles.load(str(folder), half="tail"))
    with pytest.raises(BundleError, match=r"head\.tflite: sha256"):
        asyncio.run(damaged.see(PICTURES))
    (folder / "head.tflite").unlink()
    assert damaged.models == ("signs.tail",)


def test_of_one_name_what_was_offered_last_is_found_and_each_by_its_version() -> None:
    old, new = Served("signs", b"\1" * 32, SIGNS.codec), Served("signs", SIGNS.sha256, SIGNS.codec)
    offered = [old, new]
    looked: list[Served] = []

    def found(served: Served) -> Bundle:
        looked.append(served)
        return replace(SIGNS, sha256=served.sha256)

    offers = Offers(lambda: offered, found)

    async def check() -> None:
        assert "signs 010101010101, signs.tail 010101010101, signs c0" in str(offers)
        newest = await offers.find("signs")
        assert newest is await offers.find("signs.tail", SIGNS.sha256.hex()[:12])
        older = await offers.find("signs", "01" * 6)
        assert newest is not None
        assert older is not None
        assert (newest.sha256, older.sha256) == (new.sha256, old.sha256)
        assert looked == [new, old], "each is read once"
        assert await offers.find("signs", "0" * 12) is None
        assert await offers.find("cifar10") is None
        offered.remove(new)
        assert await offers.find("signs") is older
        offered.remove(old)
        assert await offers.find("signs") is None
        assert str(offers) == "none"

    asyncio.run(check())
