"""Runs set against each other: which policy did what, in which setting. Pure: runs in, figures out.

A *setting* is all that runs must have in common to be compared: bundle, link, device, deadline, pace. Runs of one setting,
policy and kind differ by their seeds (or devices) alone, and are counted together, frame by frame.
"""

from __future__ import annotations

import enum
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from isthmus.emulation.policies import BOUNDS, CLAIRVOYANT, TRACE_CLAIRVOYANT
from isthmus.emulation.run_summary import Summary, battery_h, summary
from isthmus.emulation.traces import Floats
from isthmus.proto.record import FrameRecord, Run, RunHeader
from isthmus.proto.vocabulary import AnswerSource

LOCAL_ONLY = "local-only"
LEAST_GAIN = 0.005
"""What a bound must gain over local-only for a share of it to mean anything: half a point."""


class Fate(enum.IntEnum):
    """What became of a frame; where its truth is unknown, the first two say only who answered in time."""

    SERVER = 0
    """Right, on time, from the server."""
    EXIT = 1
    """Right, on time, from an early exit."""
    WRONG = 2
    MISSED = 3
    """No answer by the deadline."""


class RunConditions(NamedTuple):
    """The fields of a header that runs must share to be compared.

    Where in the trace they began is none: devices of one scenario begin spread over it.
    """

    scenario: str | None
    bundle: str
    trace: str | None
    trace_swapped: bool
    trace_scale: float
    profile: str | None
    deadline_s: float
    fps: float
    trace_sha256: str | None
    bundle_sha256: str

    @classmethod
    def of(cls, header: RunHeader) -> RunConditions:
        """The setting of a run."""
        return cls(*(getattr(header, field) for field in cls._fields))._replace(trace=trace_name(header))

    def words(self, fields: Iterable[str]) -> str:
        """Some of its fields for people, those that say nothing left out."""
        said = (_WORDS[field](getattr(self, field)) for field in fields)
        return " · ".join(word for word in said if word)


_WORDS: dict[str, Callable[..., str]] = {
    "scenario": lambda name: name or "",
    "bundle": str,
    "trace": lambda name: name or "live link",
    "trace_swapped": lambda swapped: "its downlink as uplink" if swapped else "",
    "trace_scale": lambda scale: f"rates × {scale:g}" if scale != 1 else "",
    "profile": lambda name: name or "",
    "deadline_s": lambda deadline_s: f"{deadline_s * 1e3:g} ms",
    "fps": lambda fps: f"{fps:g} frames/s" if fps else "",
    "trace_sha256": lambda sha: f"trace {sha[:6]}" if sha else "",
    "bundle_sha256": lambda sha: f"bundle {sha[:6]}",
}


_SHOWN = [field for field in _WORDS if not field.endswith("sha256")]


@dataclass(frozen=True, eq=False)
class Digest:
    """A run without its records: columns of N frames, in order of capture, and its figures."""

    path: Path
    header: RunHeader
    figures: Summary
    cut_lines: int
    frame_id: NDArray[np.int64]
    time_s: Floats
    """Times of capture on the run's own axis: since the trace began, or since the first frame of a live run."""
    latency_s: Floats
    answered: NDArray[np.bool_]
    """Late or not."""
    fate: NDArray[np.uint8]
    """Each frame's fate, as `Fate` numbers them."""
    decision: NDArray[np.int64]
    """Equal for two frames that were answered in the same way."""

    @classmethod
    def of(cls, path: Path, run: Run) -> Digest:
        """The digest of a run that was read from `path`."""
        header, records = run.header, sorted(run.records, key=lambda record: record.captured_s)
        captured_s = np.array([record.captured_s for record in records])
        began_s = header.trace_began_s if header.trace or not records else captured_s[0]
        return cls(
            path,
            header,
            summary(records),
            run.cut_lines,
            np.array([record.frame_id for record in records], dtype=np.int64),
            captured_s - began_s,
            np.array([record.latency_s for record in records]),
            np.array([record.source is not AnswerSource.NONE for record in records], dtype=bool),
            np.array([_fate(record) for record in records], dtype=np.uint8),
            np.array([_decision(record) for record in records], dtype=np.int64),
        )


def _fate(record: FrameRecord) -> Fate:
    if not record.on_time or record.source is AnswerSource.NONE:
        return Fate.MISSED
    if record.right is False:
        return Fate.WRONG
    return Fate.SERVER if record.source is AnswerSource.SERVER else Fate.EXIT


def _decision(record: FrameRecord) -> int:
    parts = (record.width or 0.0) * 1000, (record.exit or 0) + 1, (record.step or 0) + 1, record.layers
    code = list(AnswerSource).index(record.source)
    for part in parts:
        code = code * 2048 + round(part)
    return code


class Player(NamedTuple):
    """A policy, and in which kind of run it played."""

    policy: str
    kind: str


@dataclass(frozen=True, eq=False)
class Entry:
    """A player in a setting: its runs, as one. Means are over frames; None where nothing could be counted."""

    runs: tuple[Digest, ...]

    @property
    def frames(self) -> int:
        """The frames of all runs."""
        return sum(run.figures.frames for run in self.runs)

    @cached_property
    def accuracy(self) -> float | None:
        """The share right and on time."""
        return _mean((run.figures.accuracy, run.figures.labelled_frames) for run in self.runs)

    @property
    def accuracy_range(self) -> tuple[float, float] | None:
        """The least and the greatest of the runs'."""
        known = [run.figures.accuracy for run in self.runs if run.figures.accuracy is not None]
        return (min(known), max(known)) if known else None

    @cached_property
    def answered_by_deadline(self) -> float | None:
        """The share of frames with an answer in time."""
        return _mean((run.figures.answered_by_deadline, run.figures.frames) for run in self.runs)

    @cached_property
    def ap50(self) -> float | None:
        """AP50 of the boxes in time: the runs' mean."""
        return _mean((run.figures.ap50, run.figures.labelled_frames) for run in self.runs)

    @property
    def by_source(self) -> dict[str, int]:
        """Frames by the half that answered them."""
        counts: Counter[str] = Counter()
        for run in self.runs:
            counts.update(run.figures.by_source)
        return dict(sorted(counts.items()))

    @cached_property
    def bytes_per_frame(self) -> float | None:
        """Bytes sent, the mean over the frames."""
        return _mean((run.figures.bytes_per_frame, run.figures.frames) for run in self.runs)

    @cached_property
    def energy_per_frame_J(self) -> float | None:
        """Joules of the device above idling, the mean over the frames."""
        return _mean((run.figures.energy_per_frame_J, run.figures.frames) for run in self.runs)

    @cached_property
    def battery_h(self) -> float | None:
        """The hours that a battery lasts, the mean over the frames; None where the runs tell of none."""
        hours = ((battery_h(r.header, r.figures.energy_per_frame_J), r.figures.frames) for r in self.runs)
        return _mean(hours)

    def latency_s(self, quantile: float) -> float | None:
        """A quantile of the times from capture to answer, or to the deadline where there was none."""
        together = np.concatenate([run.latency_s for run in self.runs])
        return float(np.quantile(together, quantile)) if len(together) else None

    def accuracy_by_seed(self) -> dict[int | None, float]:
        """The accuracy of the runs of each seed, where it is known."""
        seeds = {
            run.header.seed: Entry(tuple(r for r in self.runs if r.header.seed == run.header.seed)) for run in self.runs
        }
        return {seed: entry.accuracy for seed, entry in seeds.items() if entry.accuracy is not None}


class Comparison:
    """Every player in every setting."""

    def __init__(self, digests: Sequence[Digest]) -> None:
        grouped: dict[RunConditions, dict[Player, list[Digest]]] = defaultdict(lambda: defaultdict(list))
        for digest in digests:
            who = Player(digest.header.policy, digest.header.kind)
            grouped[RunConditions.of(digest.header)][who].append(digest)
        self.digests = tuple(digests)
        self.entries = {
            setting: {who: Entry(tuple(runs)) for who, runs in playing.items()} for setting, playing in grouped.items()
        }
        self.settings = tuple(self.entries)
        self.kinds = tuple(sorted({digest.header.kind for digest in digests}))
        self.players = tuple(sorted({who for playing in self.entries.values() for who in playing}, key=self._rank))
        self._distinguishing = _distinguishing(self.settings)

    def name(self, who: Player) -> str:
        """What to call a player here: the kind is said only where there are several."""
        return who.policy if len(self.kinds) == 1 else f"{who.policy} ({who.kind})"

    def label(self, setting: RunConditions) -> str:
        """What sets this setting apart from the others."""
        return setting.words(self._distinguishing) or setting.words(("scenario", "trace"))

    @property
    def common(self) -> str:
        """What all settings have in common, for people."""
        return self.settings[0].words(field for field in _SHOWN if field not in self.varying)

    @property
    def varying(self) -> list[str]:
        """The fields, of those that mean something to people, in which settings differ."""
        return [field for field in _SHOWN if len({getattr(setting, field) for setting in self.settings}) > 1]

    def together(self, who: Player) -> Entry:
        """All runs of a player, whatever their setting."""
        return Entry(tuple(d for d in self.digests if Player(d.header.policy, d.header.kind) == who))

    def values(self, who: Player, figure: Callable[[Entry], float | None]) -> list[float]:
        """A figure of one player in each setting where it is known."""
        known = (figure(playing[who]) for playing in self.entries.values() if who in playing)
        return [value for value in known if value is not None]

    def mean(self, who: Player, figure: Callable[[Entry], float | None]) -> float | None:
        """Over the settings where it is known, each counting once."""
        values = self.values(who, figure)
        return sum(values) / len(values) if values else None

    def spread(self, who: Player, figure: Callable[[Entry], float | None]) -> list[float]:
        """What `values` gives, or, where there is but one setting, the figure of each of its runs."""
        if len(self.settings) > 1:
            return self.values(who, figure)
        known = (figure(Entry((run,))) for run in self.together(who).runs)
        return [value for value in known if value is not None]

    @property
    def yardstick(self) -> str:
        """The bound that shares are of: the fair one, or the clairvoyant where only that has played."""
        fair = any(who.policy == TRACE_CLAIRVOYANT for who in self.players)
        return TRACE_CLAIRVOYANT if fair else CLAIRVOYANT

    def recovered(self, setting: RunConditions, who: Player, bound: str | None = None) -> float | None:
        """The share of a bound's gain over local-only, on the seeds that all three have played; of the yardstick's gain.

        None where one of them is missing, or where the bound gains less than LEAST_GAIN.
        """
        gain = self._gain(setting, who, bound or self.yardstick)
        return gain[0] / gain[1] if gain else None

    def recovered_in_each(self, who: Player, bound: str | None = None) -> list[float]:
        """The share in each setting where it is known."""
        return [mine / most for mine, most in self._gains(who, bound or self.yardstick)]

    def recovered_in_all(self, who: Player, bound: str | None = None) -> float | None:
        """The share of what there was to gain in all those settings together."""
        gains = self._gains(who, bound or self.yardstick)
        return sum(mine for mine, _ in gains) / sum(most for _, most in gains) if gains else None

    def _gains(self, who: Player, bound: str) -> list[tuple[float, float]]:
        known = (self._gain(setting, who, bound) for setting, playing in self.entries.items() if who in playing)
        return [gain for gain in known if gain]

    def _gain(self, setting: RunConditions, who: Player, bound: str) -> tuple[float, float] | None:
        """What a player, and what the bound, was more often right than local-only."""
        playing = self.entries[setting]
        three = [playing.get(w) for w in (who, Player(LOCAL_ONLY, who.kind), Player(bound, who.kind))]
        by_seed = [entry.accuracy_by_seed() for entry in three if entry is not None]
        seeds = set.intersection(*map(set, by_seed)) if len(by_seed) == 3 else set()
        if not seeds:
            return None
        mine, floor, most = (sum(accuracies[seed] for seed in seeds) / len(seeds) for accuracies in by_seed)
        return (mine - floor, most - floor) if most - floor >= LEAST_GAIN else None

    def agreement(self, setting: RunConditions, a: Player, b: Player) -> float | None:
        """The share of the frames that both saw and answered in the same way: source, width, exit, step, layers.

        None when no seed was played by both or they share no frame.
        """
        first, second = (self.entries[setting][who].runs for who in (a, b))
        same: list[bool] = []
        for run in first:
            other = next((r for r in second if r.header.seed == run.header.seed), None)
            if other is not None:
                _, mine, its = np.intersect1d(run.frame_id, other.frame_id, return_indices=True)
                same += (run.decision[mine] == other.decision[its]).tolist()
        return sum(same) / len(same) if same else None

    def _rank(self, who: Player) -> tuple[bool, float, str, str]:
        """The bounds first, then by what was right and on time, or at least on time."""
        worth = self.values(who, lambda entry: entry.accuracy) or self.values(who, lambda e: e.answered_by_deadline)
        return who.policy not in BOUNDS, -float(np.mean(worth)) if worth else 0.0, who.policy, who.kind


def trace_name(header: RunHeader) -> str | None:
    """A trace's name without the folders of the machine that played it."""
    return Path(header.trace).stem if header.trace else None


def _distinguishing(settings: Sequence[RunConditions]) -> list[str]:
    """The fewest fields, in the order of `_WORDS`, in which all settings differ."""
    chosen: list[str] = []
    for field in _WORDS:
        if len({s.words((*chosen, field)) for s in settings}) > len({s.words(chosen) for s in settings}):
            chosen.append(field)
    return chosen


def _mean(weighted: Iterable[tuple[float | None, int]]) -> float | None:
    known = [(value, weight) for value, weight in weighted if value is not None and weight]
    return sum(v * w for v, w in known) / sum(w for _, w in known) if known else None
