"""What can be looked at inside a running agent, beyond its answers. It is looked at from other threads, and never touched."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from isthmus.device.catalogue import Catalogue
from isthmus.device.session import Session
from isthmus.device.stage_times import StageTimes
from isthmus.proto.vocabulary import LinkState


@dataclass(frozen=True)
class Insight:
    """A session, and what it decides by."""

    session: Session
    times: StageTimes
    catalogue: Catalogue

    @property
    def link_up(self) -> bool:
        """Whether there is a server that takes frames."""
        return self.session.state is LinkState.UP

    def stages_s(self) -> Iterator[tuple[int, float, float]]:
        """How long each stage of the head is believed to take now: its number from 1, width, seconds."""
        for stage in range(self.catalogue.stages):
            for index, width in enumerate(self.catalogue.widths):
                yield stage + 1, width, self.times.expected_s(stage, index)
