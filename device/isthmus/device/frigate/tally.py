"""What became of Frigate's requests, for the log. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from isthmus.proto.record import FrameRecord
from isthmus.proto.vocabulary import AnswerSource

BY = {
    AnswerSource.SERVER: "by the server",
    AnswerSource.EXIT: "by the device",
    AnswerSource.NONE: "with nothing in time",
    AnswerSource.REPEAT: "as the picture before",
    AnswerSource.FILTER: "as nothing of interest",
    AnswerSource.TRACK: "from what is tracked",
}


class Tally:
    """Counts from when it is made."""

    def __init__(self) -> None:
        self.refused = 0
        """Requests that were no pictures."""
        self._by: Counter[AnswerSource] = Counter()
        self._slowest_s = 0.0

    def add(self, record: FrameRecord) -> None:
        """Count an answer."""
        self._by[record.source] += 1
        self._slowest_s = max(self._slowest_s, record.latency_s)

    def lines(self) -> Iterator[str]:
        """What there is to say; nothing where nobody asked."""
        if answered := sum(self._by.values()):
            shares = ", ".join(f"{self._by[source]} {words}" for source, words in BY.items() if self._by[source])
            yield f"{answered} pictures answered: {shares}; the slowest after {self._slowest_s * 1e3:.0f} ms"
        if self.refused:
            yield f"{self.refused} requests were no pictures, and were answered with no boxes"
