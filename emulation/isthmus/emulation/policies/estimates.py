"""What several rivals ask of head and link: point estimates taken at their word, as the literature's controllers do.

Every rival sees the same `Outlook` as the shipped scheduler; here the queue and the uncertainty are left out.
"""

from __future__ import annotations

from collections.abc import Iterator

from isthmus.device.catalogue import Catalogue, Known
from isthmus.device.link_estimator import MESSAGE_BYTES, Outlook
from isthmus.device.scheduler import Offload, Situation
from isthmus.proto.vocabulary import StageResult


def head_s(catalogue: Catalogue, situation: Situation, width: int) -> float:
    """Expected time of the whole head at a width."""
    return sum(situation.times.expected_s(stage, width) for stage in range(catalogue.stages))


def round_trip_s(outlook: Outlook) -> float:
    """The delay of an empty link: what an acknowledgement takes beyond the queue and the message's own transfer."""
    return max(0.0, outlook.delay_s(0) - outlook.service_s(0) - outlook.queue_s)


def back_s(outlook: Outlook, size_bytes: float) -> float:
    """Size over throughput, round trip and server, as if nothing else were on the link."""
    return outlook.service_s(size_bytes) + round_trip_s(outlook) + outlook.server_s


def carried_bytes(known: Known) -> float:
    """The mean bytes of a point with the framing of every layer but one, which the link counts itself."""
    return known.mean_bytes + MESSAGE_BYTES * (known.point.layers - 1)


def sendable(catalogue: Catalogue, result: StageResult) -> Iterator[tuple[Known, int, Offload]]:
    """What could be sent of these features: the operating point, its bytes as `carried_bytes` counts them, the decision."""
    width = catalogue.width_index(result.width)
    for step, sizes in enumerate(result.layer_bytes or ()):
        sent = -MESSAGE_BYTES
        for layers, size in enumerate(sizes, start=1):
            sent += MESSAGE_BYTES + size
            yield catalogue.offloads[width][step][layers - 1], sent, Offload(step, layers)
