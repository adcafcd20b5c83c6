"""Devices that ask, the search for how many are carried, and a virtual server whose capacity is known."""

from __future__ import annotations

import asyncio
import random

import pytest

from isthmus.emulation.load import search
from isthmus.emulation.load.asking import WAY_S, Asker, Asking, OnWire
from isthmus.emulation.load.virtual import QUANTILES, VirtualServer, answered
from isthmus.models import bundle as bundles
from isthmus.proto.messages import Busy, Heartbeat, Layer, Result
from isthmus.proto.vocabulary import ServerTimings

ASKING = Asking(fps=10.0, deadline_s=0.15)
EACH_S = 0.020


@pytest.fixture(scope="module")
def frame() -> OnWire:
    return OnWire.of(bundles.load("signs"))


def asker(frame: OnWire) -> Asker:
    return Asker(1, frame, ASKING, begin_s=0.0, counts_s=1.0, seed=1)


def result(frame_id: int) -> Result:
    return Result(frame_id, 2, (0.0, 1.0), ServerTimings())


def test_a_device_asks_at_its_rate_and_beats(frame: OnWire) -> None:
    device, layers, beats = asker(frame), 0, 0
    while (now := device.due_at) < 11.0:
        for message in device.step(now):
            layers += isinstance(message, Layer) and message.last
            beats += isinstance(message, Heartbeat)
            assert not isinstance(message, Layer) or message.budget_s == pytest.approx(ASKING.deadline_s - WAY_S)
    assert layers == pytest.approx(110, abs=3)
    assert device.asked == pytest.approx(100, abs=3), "the first second is for settling"
    assert beats == pytest.approx(22, abs=1)


def test_in_time_is_by_the_deadline_from_the_capture(frame: OnWire) -> None:
    device, sent = asker(frame), dict[int, float]()
    while (now := device.due_at) < 2.0:
        sent |= {message.frame_id: now for message in device.step(now) if isinstance(message, Layer)}
    counted = [frame_id for frame_id, at in sent.items() if at >= 1.0]
    device.hear(result(counted[0]), sent[counted[0]] + 0.149)
    device.hear(result(counted[1]), sent[counted[1]] + 0.151)
    device.hear(result(counted[0]), sent[counted[0]] + 0.149)  # a second time
    assert device.in_time == 1
    assert device.took_s == pytest.approx([0.149, 0.151])


def test_told_to_wait_it_asks_for_nothing_and_still_counts_its_frames(frame: OnWire) -> None:
    device = asker(frame)
    while device.due_at < 2.0:
        device.step(device.due_at)
    before = device.asked
    device.hear(Busy(1, 1.0), 2.0)
    messages = []
    while device.due_at < 3.0:
        messages += device.step(device.due_at)
    assert not [message for message in messages if isinstance(message, Layer)]
    assert device.asked - before == pytest.approx(10, abs=2)


@pytest.mark.parametrize("carried", [0, 1, 2, 7, 40, 333, 1000])
@pytest.mark.parametrize("start", [1, 50])
def test_the_search_finds_what_is_carried(carried: int, start: int) -> None:
    asked = []

    async def measure(devices: int) -> float:
        asked.append(devices)
        return 0.95 if devices <= carried else 0.5

    found = asyncio.run(search.most(measure, start=start, limit=1000))
    assert found <= carried
    assert found == pytest.approx(carried, rel=search.PRECISION, abs=1)
    assert len(asked) < 30


def test_a_noisy_measurement_ends_the_search_all_the_same() -> None:
    noise = random.Random(1)

    async def measure(devices: int) -> float:
        return 0.9 + (60 - devices) / 300 + noise.uniform(-0.02, 0.02)

    assert asyncio.run(search.most(measure, limit=1000)) == pytest.approx(60, abs=12)


@pytest.mark.parametrize("engines", [1, 2, 4])
def test_a_virtual_server_carries_what_its_tail_can_do(engines: int) -> None:
    """One frame each 20 ms is 50 a second and engine: five devices at ten a second, and nine tenths of a tenth more."""
    server, bundle = VirtualServer((EACH_S,), engines=engines), bundles.load("signs")

    async def measure(devices: int) -> float:
        return answered(server, bundle, ASKING, devices, seed=1).share

    assert 4.5 * engines <= asyncio.run(search.most(measure, start=5)) <= 5.6 * engines


def test_a_loop_that_costs_more_than_the_tail_is_the_limit() -> None:
    bundle = bundles.load("signs")
    for loop_s, least, most in ((0.0, 0.99, 1.0), (0.02, 0.0, 0.7)):
        found = answered(VirtualServer((0.001,) * 8, loop_s=loop_s), bundle, ASKING, 10, seed=1)
        assert least <= found.share <= most


def carried(server: VirtualServer) -> int:
    bundle = bundles.load("signs")

    async def measure(devices: int) -> float:
        return answered(server, bundle, ASKING, devices, seed=1).share

    return asyncio.run(search.most(measure, start=5))


def test_a_tail_that_is_idle_while_a_batch_is_handed_over_carries_less() -> None:
    """A tail of 20 ms to which 20 ms more go by each time: half as many."""
    assert carried(VirtualServer((EACH_S,), hop_s=EACH_S)) in (2, 3)


def test_a_tail_that_is_slower_at_work_carries_less_and_less_still_where_it_wavers() -> None:
    best, even = (
        carried(VirtualServer((EACH_S,))),
        carried(VirtualServer((EACH_S / 2,), stretch=(2.0,) * len(QUANTILES))),
    )
    wavering = carried(VirtualServer((EACH_S / 2,), stretch=(1.0, 1.0, 4.0, 8.0)))  # as long on average
    assert best == even
    assert wavering < even


def test_the_loop_takes_its_turn_for_answers_too() -> None:
    """Frames cost the loop 20 ms each and the tail nothing: fifty a second, whichever part of it is for the answer."""
    server = VirtualServer((0.0001,) * 8, loop_s=EACH_S)
    assert 4 <= carried(server) <= 6
