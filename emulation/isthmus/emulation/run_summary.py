"""A run in figures: what became of its frames, how good the answers were, and whether what was promised of the link was kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np

from isthmus.proto.fates import Tally
from isthmus.proto.record import FrameRecord, RunHeader
from isthmus.proto.tasks import box_score
from isthmus.proto.vocabulary import AnswerSource, Skipped


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """A run in figures. Shares are 0 to 1; None where nothing could be counted."""

    frames: int
    captured: int
    """Those, and the pictures that were let go before anything was made of them."""
    by_fate: dict[str, int]
    """What became of all that were captured."""
    labelled_frames: int
    """Those with a known truth: the only ones that accuracy counts."""
    answered_by_deadline: float | None
    """The share of frames with an answer by the deadline."""
    accuracy: float | None
    """The share right and on time."""
    accuracy_local_only: float | None
    """What the device alone would have got right."""
    ap50: float | None
    """Average precision at an overlap of a half of the boxes that were in time, where what is in the frames is known."""
    by_source: dict[str, int]
    by_reason: dict[str, int]
    by_width: dict[str, int]
    bytes_up: int
    bytes_per_frame: float | None
    energy_per_frame_J: float | None
    """The mean over the frames whose energy is known."""
    promises: int
    """Frames that were sent with a probability of being answered in time."""
    promised: float | None
    """The mean of these probabilities."""
    kept: float | None
    """The share of these frames that the server answered in time."""
    calibration_error: float | None
    """How far promised and kept are apart, a tenth of probability at a time, in the mean over these frames."""
    latency_p50_s: float | None
    latency_p95_s: float | None
    latency_p99_s: float | None


def summary(records: Sequence[FrameRecord]) -> Summary:
    """The figures of a run; order does not matter."""
    tally = Tally()
    for record in records:
        tally.add(record.source, record.reason, Skipped(record.skipped_stale, record.skipped_rate))
    bytes_up = sum(record.bytes_up for record in records)
    latencies = [record.latency_s for record in records]
    energies = [record.energy_J for record in records if record.energy_J is not None]
    tenths = reliability(records)
    promises = sum(tenth.frames for tenth in tenths)
    p50, p95, p99 = np.quantile(latencies, [0.5, 0.95, 0.99]).tolist() if latencies else (None, None, None)
    return Summary(
        frames=len(records),
        captured=tally.captured,
        by_fate=tally.by_fate,
        labelled_frames=sum(record.right is not None for record in records),
        answered_by_deadline=_share(record.on_time and record.source is not AnswerSource.NONE for record in records),
        accuracy=_share(record.right for record in records),
        accuracy_local_only=_share(record.local_right for record in records),
        ap50=_ap50([record for record in records if record.things is not None]),
        by_source=dict(sorted(Counter(record.source.value for record in records).items())),
        by_reason=dict(sorted(Counter(record.reason.value for record in records).items())),
        by_width=dict(sorted(Counter(f"{record.width:g}" for record in records if record.width is not None).items())),
        bytes_up=bytes_up,
        bytes_per_frame=bytes_up / len(records) if records else None,
        energy_per_frame_J=sum(energies) / len(energies) if energies else None,
        promises=promises,
        promised=_mean(tenths, [tenth.promised for tenth in tenths]),
        kept=_mean(tenths, [tenth.kept for tenth in tenths]),
        calibration_error=_mean(tenths, [abs(tenth.promised - tenth.kept) for tenth in tenths]),
        latency_p50_s=p50,
        latency_p95_s=p95,
        latency_p99_s=p99,
    )


def battery_h(header: RunHeader, energy_per_frame_J: float | None) -> float | None:
    """The hours that a run's battery lasts at its mean power, idling included; None where that is unknown."""
    if header.battery is None or energy_per_frame_J is None or not header.fps:
        return None
    return header.battery.lasts_h(energy_per_frame_J * header.fps)


class Tenth(msgspec.Struct, frozen=True):
    """Frames that were sent with about the same probability of being answered in time."""

    frames: int
    promised: float
    """The mean of their probabilities."""
    kept: float
    """The share of them that the server answered in time."""


def reliability(records: Iterable[FrameRecord]) -> list[Tenth]:
    """What was promised of the link beside what came of it, by tenths of probability; empty ones are left out."""
    found: dict[int, list[tuple[float, bool]]] = {}
    for record in records:
        if record.promised is not None:
            came = record.source is AnswerSource.SERVER and record.on_time
            found.setdefault(min(9, int(10 * record.promised)), []).append((record.promised, came))
    return [
        Tenth(len(those), sum(p for p, _ in those) / len(those), sum(came for _, came in those) / len(those))
        for _, those in sorted(found.items())
    ]


def _ap50(records: Sequence[FrameRecord]) -> float | None:
    if not any(record.things for record in records):
        return None
    return box_score.ap50(
        [record.things or () for record in records],
        [(record.boxes or ()) if record.on_time else () for record in records],
    )


def _mean(tenths: Sequence[Tenth], values: Sequence[float]) -> float | None:
    frames = sum(tenth.frames for tenth in tenths)
    return sum(tenth.frames * value for tenth, value in zip(tenths, values, strict=True)) / frames if frames else None


def _share(values: Iterable[bool | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
