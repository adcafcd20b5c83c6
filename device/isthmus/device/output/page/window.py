"""What the page shows of the last minute, and of the run until now. Pure: time is an argument, there is no clock."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from isthmus.proto.fates import Tally
from isthmus.proto.record import FrameRecord
from isthmus.proto.vocabulary import AnswerSource, LinkState, Skipped

LAST_S = 60.0
MOST = 6000
"""Answers that are remembered: a minute at 100 a second."""
POINTS = 6
"""Operating points that are named; there are seldom more in use at a time."""


class LastMinute:
    """The answers of the last minute and the fates of all."""

    def __init__(self, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._rows: deque[tuple[FrameRecord, LinkState]] = deque(maxlen=MOST)
        self._tally = Tally()
        self.count = 0
        """Answers until now: a viewer asks for those after the last that it knows."""

    def add(self, row: FrameRecord, link: LinkState) -> None:
        """Take up one answer."""
        self._rows.append((row, link))
        self._tally.add(row.source, row.reason, Skipped(row.skipped_stale, row.skipped_rate))
        self.count += 1
        while self._rows and self._rows[0][0].answered_s < row.answered_s - LAST_S:
            self._rows.popleft()

    def since(self, count: int) -> list[list[Any]]:
        """The answers after the first `count`, those of the last minute: time, latency, source, on time, uplink, link."""
        new = min(len(self._rows), self.count - count)
        return [_mark(row, link) for row, link in list(self._rows)[len(self._rows) - new :]] if new > 0 else []

    def figures(self, now: float) -> dict[str, Any]:
        """The last minute in figures, and the fates of the whole run."""
        rows = [row for row, _ in self._rows if row.answered_s >= now - LAST_S]
        latencies = [row.latency_s for row in rows]
        quantiles = np.quantile(latencies, [0.5, 0.95, 0.99]).tolist() if latencies else [None] * 3
        answered = [row.on_time and row.source is not AnswerSource.NONE for row in rows]
        span_s = max(1.0, min(LAST_S, now - rows[0].answered_s)) if rows else LAST_S
        network = [row.network_s for row in rows if row.source is AnswerSource.SERVER]
        return {
            "deadline_s": self._deadline_s,
            "frames": len(rows),
            "rate": len(rows) / span_s,
            "on_time": sum(answered) / len(answered) if answered else None,
            "latency_p50_s": quantiles[0],
            "latency_p95_s": quantiles[1],
            "latency_p99_s": quantiles[2],
            "network_p50_s": float(np.median(network)) if network else None,
            "bytes_up_per_s": sum(row.bytes_up for row in rows) / span_s,
            "bytes_per_frame": sum(row.bytes_up for row in rows) / len(rows) if rows else None,
            "by_source": _counted(row.source.value for row in rows),
            "by_reason": _counted(row.reason.value for row in rows),
            "points": Counter(map(point, rows)).most_common(POINTS),
            "captured": self._tally.captured,
            "fates": self._tally.by_reason,
        }


def shown(row: FrameRecord, link: LinkState) -> dict[str, Any]:
    """One answer for the page: what the halves gave, why, and where its time went."""
    parts = {
        "wait": row.wait_s,
        "head": row.head_s,
        "encode": row.encode_s,
        "network": row.network_s,
        "server": row.server_receive_s + row.server_queue_s + row.server_tail_s + row.server_send_s,
    }
    return {
        "frame": row.frame_id,
        "picture": row.picture,
        "unix_s": row.captured_unix_s,
        "source": row.source.value,
        "reason": row.reason.value,
        "confidence": row.confidence,
        "point": point(row),
        "latency_s": row.latency_s,
        "budget_s": row.deadline_s - row.captured_s,
        "on_time": row.on_time,
        "bytes_up": row.bytes_up,
        "age_s": row.age_s,
        "parts": parts,
        "link": link.value,
        "goodput_Bps": row.goodput_Bps,
    }


def point(row: FrameRecord) -> str:
    """The operating point that an answer is of, in words."""
    if row.source is AnswerSource.REPEAT:
        return "repeated, nothing computed"
    if row.source is AnswerSource.FILTER:
        return "the filter alone"
    if row.source is AnswerSource.TRACK:
        return "tracked"
    if row.width is None:
        return "none"
    if row.exit is not None:
        return f"width {row.width:g}, exit {row.exit + 1}"
    layers = f"{row.layers} layer{'s' * (row.layers != 1)}"
    return f"width {row.width:g}, {layers}" + (f", step {row.step}" if row.step is not None else "")


def _counted(values: Iterable[str]) -> Mapping[str, int]:
    return dict(Counter(values).most_common())


def _mark(row: FrameRecord, link: LinkState) -> list[Any]:
    return [
        round(row.answered_s, 3),
        round(row.latency_s, 4),
        row.source.value,
        row.on_time,
        None if row.goodput_Bps is None else round(row.goodput_Bps),
        link.value,
    ]
