"""What several rivals ask of head and link: point estimates taken at their word, as the literature's controllers do.

Every rival sees the same `Outlook` as the shipped scheduler; here the queue and the uncertainty are left out.
"""

from __future__ import annotations

from collections.abc import Iterator

from isthmus.device.catalogue import Catalogue, Known
from isthmus.device.link_estimator import Outlook
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


def sendable(catalogue: Catalogue, result: StageResult) -> Iterator[tuple[Known, int, Offload]]:
    """What could be sent of these features: the operating point, its predicted bytes, the decision."""
    width = catalogue.width_index(result.width)
    for step, sizes in enumerate(result.layer_bytes or ()):
        sent = 0
        for layers, size in enumerate(sizes, start=1):
            sent += size
            yield catalogue.offloads[width][step][layers - 1], sent, Offload(step, layers)
