"""Slimmable Encoders' own logs replayed (Raspberry Pi 4 over Bluetooth, COCO mAP): their policy, ours and the clairvoyant.

Each frame meets the link rate that the log met; encoder and decoder take their logged means. A policy sees earlier frames
only. "10th percentile" is the bar: correct costs, and a rate that nine in ten of the last 50 frames had. Effective mAP
counts a frame's mode where the answer was back by the deadline, and nothing where it was not.

A log's row names the mode that was chosen *after* its frame, for the next one (its encoder time is that of the row
before): the frame's own mode, and so its bytes and the link's rate, come from the row before.

    python benchmarks/slimmable_replay.py LOGS [--format json]

LOGS holds `output_distance_*_deadline_*.jsonl` and `rpi4_cpus4.csv` of the authors' repository.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from isthmus.device.catalogue import Catalogue, Known
from isthmus.device.link_estimator import LinkEstimator
from isthmus.device.scheduler import ExpectedUtility, Offload, Situation
from isthmus.device.stage_times import StageTimes
from isthmus.proto.errors import DataError, IsthmusError
from isthmus.proto.vocabulary import Guess, Load, OperatingPoint, ServerTimings, StageResult

ENCODER_S = {1: 0.1006, 2: 0.1742, 3: 0.2474, 4: 0.3226}
DECODER_S = 0.061
MESSAGE_S = 0.009
"""A very small message: the transfer times of their static logs, extended to no bytes (48.2 ms at 6.9 kB, 166.8 at 27.6)."""
WARMING_ROWS = 5
MODES_FILE, FAMILY = "rpi4_cpus4.csv", "assine2022b"


class Mode(NamedTuple):
    """An ensemble of `members`, their features at `bits` bits a value."""

    members: int
    bits: int
    size_bytes: float
    mean_ap: float


Modes = dict[tuple[int, int], Mode]


@dataclass(frozen=True)
class Log:
    """One run of theirs, from the first frame after its warm-up. Arrays (N,)."""

    distance_m: int
    deadline_s: float
    rate_Bps: np.ndarray
    used: tuple[tuple[int, int], ...]
    """The mode that each frame was sent in."""
    logged: np.ndarray
    """What each row says that its frame was worth; one row more, since the first frame's own mode is not known."""


def read_modes(path: Path) -> Modes:
    """The modes of the slimmable ensemble. Raises DataError naming file and line."""
    modes: Modes = {}
    try:
        rows = list(csv.DictReader(path.read_text().splitlines()))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; LOGS must hold it beside the logs") from error
    for n, row in enumerate(rows, start=2):
        try:
            family, _, digits = row["model"].partition("_")
            if family == FAMILY:
                members, bits = int(digits[0]), int(digits[1])
                modes[members, bits] = Mode(members, bits, float(row["KB"]), float(row["mAP"]))  # KB holds bytes
        except (KeyError, ValueError, IndexError, TypeError) as error:
            raise DataError(f"{path}: line {n}: not a mode ({error!r})") from error
    return modes


def read_log(path: Path, modes: Modes) -> Log:
    """One log. Raises DataError naming file and line."""
    name = re.fullmatch(r"output_distance_(\d+)_deadline_(\d+)\.jsonl", path.name)
    assert name is not None
    rows = []
    for n, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            row = json.loads(line)
            mode = modes[divmod(int(row["mode"]), 10)]
            rows.append((mode, float(row["e2e"]), float(row["transfer_time"]) / 1000))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: line {n}: not a row of a log ({error!r})") from error
    first = WARMING_ROWS + 1
    if len(rows) <= first:
        raise DataError(f"{path}: {len(rows)} rows, expected more than {first}")
    modes_, e2e_ms, transfer_s = zip(*rows, strict=True)
    own = modes_[first - 1 : -1]
    deadline_ms = int(name[2])
    return Log(
        distance_m=int(name[1]),
        deadline_s=deadline_ms / 1000,
        rate_Bps=np.array([m.size_bytes / max(t, 1e-6) for m, t in zip(own, transfer_s[first:], strict=True)]),
        used=tuple((m.members, m.bits) for m in own),
        logged=np.array(
            [m.mean_ap if t <= deadline_ms else 0.0 for m, t in zip(modes_, e2e_ms, strict=True)][WARMING_ROWS:]
        ),
    )


class Score(NamedTuple):
    """A column of the table."""

    miss_percent: float
    effective_map: float


def scored(worth: Sequence[float] | np.ndarray) -> Score:
    """From what each frame was worth, 0 when it was missed."""
    values = np.asarray(worth, float)
    return Score(round(100 * float(np.mean(values == 0)), 1), round(float(values.mean()), 1))


def as_logged(log: Log, modes: Modes) -> Score:
    """What they published."""
    return scored(log.logged)


def their_choices(log: Log, modes: Modes) -> Score:
    """Their choices frame by frame, at the replay's constant encoder and decoder times."""
    return scored([worth(modes[used], rate, log.deadline_s) for used, rate in zip(log.used, log.rate_Bps, strict=True)])


def clairvoyant(log: Log, modes: Modes) -> Score:
    """The best mode of every frame, its rate known before."""
    return scored([max(worth(m, rate, log.deadline_s) for m in modes.values()) for rate in log.rate_Bps])


def tenth_percentile(log: Log, modes: Modes, window: int = 50) -> Score:
    """The best mode that the slowest tenth of the last rates would still have carried in time; correct costs."""
    rates: deque[float] = deque(maxlen=window)
    gained = []
    for rate in log.rate_Bps:
        low = float(np.quantile(rates, 0.1)) if rates else float("inf")
        chosen = max(modes.values(), key=lambda m: (worth(m, low, log.deadline_s), -duration_s(m, low)))
        gained.append(worth(chosen, rate, log.deadline_s))
        rates.append(rate)
    return scored(gained)


def duration_s(mode: Mode, rate_Bps: float) -> float:
    """From picture to answer."""
    return ENCODER_S[mode.members] + mode.size_bytes / rate_Bps + DECODER_S


def worth(mode: Mode, rate_Bps: float, deadline_s: float) -> float:
    """Its mAP if it is in time."""
    return mode.mean_ap if duration_s(mode, rate_Bps) <= deadline_s else 0.0


def catalogue(modes: Modes, *, embedded: bool) -> Catalogue:
    """Their operating points as the scheduler knows a bundle's: widths are members, and there is no early exit.

    Each number of bits is a step of its own, finest first; or, `embedded`, all are prefixes of one stream of bit-planes.
    mAP in per cent stands for accuracy in per cent.
    """
    members, bits = sorted({m for m, _ in modes}), sorted({b for _, b in modes})

    def known(m: int, step: int, layers: int, bits_: int) -> Known:
        mode = modes[m, bits_]
        accuracy = mode.mean_ap / 100
        return Known(OperatingPoint(float(m), None, step, layers), accuracy, 1.0, ((accuracy,),), mode.size_bytes)

    def points(m: int) -> tuple[tuple[Known, ...], ...]:
        if embedded:
            return (tuple(known(m, 0, n, b) for n, b in enumerate(bits, start=1)),)
        return tuple((known(m, step, 1, b),) for step, b in enumerate(reversed(bits)))

    return Catalogue(
        widths=tuple(map(float, members)),
        confidence_edges=(),
        stage_flops=((1,) * len(members),),
        exits=tuple((Known(OperatingPoint(float(m), 0), 0.0, 1.0, ((0.0,),)),) for m in members),
        offloads=tuple(points(m) for m in members),
    )


class Device:
    """The shipped scheduler and link estimator on one frame after the other, as their client runs: none in flight between."""

    def __init__(self, modes: Modes, *, embedded: bool) -> None:
        self._modes, self._bits = modes, sorted({b for _, b in modes})
        self._catalogue = catalogue(modes, embedded=embedded)
        self._embedded = embedded
        self._policy = ExpectedUtility(self._catalogue)
        self._times = StageTimes([[ENCODER_S[int(w)] for w in self._catalogue.widths]])
        self._link = LinkEstimator()
        self._link.on_load(Load(tail_s=DECODER_S))
        self._now, self._frame = 0.0, 0

    def answer(self, rate_Bps: float, deadline_s: float) -> float:
        """The mAP of the next frame's answer; 0 when it is not back in time."""
        self._beat()
        began_s, frame, self._frame = self._now, self._frame, self._frame + 1
        w = self._policy.width(self._situation(deadline_s)) or 0
        members = int(self._catalogue.widths[w])
        self._now += ENCODER_S[members]
        self._times.observe(0, w, ENCODER_S[members])
        sizes = tuple(self._layers(row) for row in self._catalogue.offloads[w])
        result = StageResult(frame, 0, float(members), Guess(0, 0.0), ENCODER_S[members], sizes)
        decision = self._policy.after_exit(result, self._situation(began_s + deadline_s - self._now))
        if not isinstance(decision, Offload):
            return 0.0
        arrived = self._send(frame, sizes[decision.step][: decision.layers], rate_Bps, began_s + deadline_s)
        if not arrived:
            return 0.0
        bits = self._bits[arrived - 1] if self._embedded else self._bits[-1 - decision.step]
        return self._modes[members, bits].mean_ap

    @staticmethod
    def _layers(row: tuple[Known, ...]) -> tuple[int, ...]:
        """Payload bytes of each layer of one step."""
        ends = [0.0, *(known.mean_bytes for known in row)]
        return tuple(int(b - a) for a, b in pairwise(ends))

    def _situation(self, budget_s: float) -> Situation:
        return Situation(budget_s, self._link.outlook(self._now), self._times)

    def _beat(self) -> None:
        """A heartbeat on the idle link, as the session sends them."""
        self._link.on_beat_sent(self._frame, self._now)
        self._now += MESSAGE_S
        self._link.on_beat(self._frame, self._now)

    def _send(self, frame: int, sizes: tuple[int, ...], rate_Bps: float, deadline_s: float) -> int:
        """Layers that the decoder had in time to be back by the deadline; the server starts on what has arrived."""
        for layer, size in enumerate(sizes):
            self._link.on_sent(frame, layer, size, self._now)
        arrived = 0
        for layer, size in enumerate(sizes):
            self._now += size / rate_Bps
            self._link.on_ack(frame, layer, self._now)
            arrived += self._now + DECODER_S <= deadline_s
        self._now += DECODER_S
        self._link.on_result(frame, arrived, ServerTimings(tail_s=DECODER_S), self._now)
        return arrived


def ours(log: Log, modes: Modes) -> Score:
    """The shipped scheduler with their operating points."""
    device = Device(modes, embedded=False)
    return scored([device.answer(rate, log.deadline_s) for rate in log.rate_Bps])


def ours_embedded(log: Log, modes: Modes) -> Score:
    """The shipped scheduler, each ensemble's bits sent as bit-planes of one stream."""
    device = Device(modes, embedded=True)
    return scored([device.answer(rate, log.deadline_s) for rate in log.rate_Bps])


COLUMNS: dict[str, Callable[[Log, Modes], Score]] = {
    "published": as_logged,
    "their choices": their_choices,
    "10th percentile": tenth_percentile,
    "isthmus": ours,
    "isthmus, bit-planes": ours_embedded,
    "clairvoyant": clairvoyant,
}


def replay(folder: Path) -> list[dict[str, object]]:
    """A row for each log in `folder`, by deadline and distance. Raises DataError when there is none."""
    modes = read_modes(folder / MODES_FILE)
    logs = [read_log(path, modes) for path in folder.glob("output_distance_*_deadline_*.jsonl")]
    if not logs:
        raise DataError(f"{folder}: no output_distance_*_deadline_*.jsonl; name the folder of the logs")
    return [
        {
            "distance_m": log.distance_m,
            "deadline_ms": round(log.deadline_s * 1000),
            "frames": len(log.rate_Bps),
            **{name: column(log, modes)._asdict() for name, column in COLUMNS.items()},
        }
        for log in sorted(logs, key=lambda log: (log.deadline_s, log.distance_m))
    ]


def table(rows: list[dict[str, object]]) -> str:
    lines = ["distance, deadline ms | " + " | ".join(COLUMNS) + "      (miss % / effective mAP)"]
    for row in rows:
        cells = []
        for name in COLUMNS:
            score = row[name]
            assert isinstance(score, dict)
            cells.append(f"{score['miss_percent']:.1f} / {score['effective_map']:.1f}".center(len(name)))
        head = f"{row['distance_m']} m, {row['deadline_ms']}"
        lines.append(f"{head:21} | " + " | ".join(cells))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logs", type=Path)
    parser.add_argument("--format", choices=("text", "json"), default="text")
    arguments = parser.parse_args()
    try:
        rows = replay(arguments.logs)
    except IsthmusError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    print(json.dumps({"rows": rows}) if arguments.format == "json" else table(rows))


if __name__ == "__main__":
    main()
