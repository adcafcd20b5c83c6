"""One row per frame and the header of a run: the same for live, real-time emulated and simulated runs.

JSON Lines: the header first, then one record a line, each written whole, so that a run that is cut off leaves a file
that reads; a further run may follow in the same file, with its own header. A damaged line is refused with file and line;
only a last line that was cut short is forgiven, and counted. A finished run may also be kept compressed (`.jsonl.zst`).
"""

from __future__ import annotations

import os
from io import FileIO
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import zstandard

from isthmus.proto.errors import DataError
from isthmus.proto.fates import END_BEGINS, RunEnd
from isthmus.proto.files import Lines, unfolded, write_whole
from isthmus.proto.vocabulary import (
    NONE_SKIPPED,
    Answer,
    AnswerSource,
    Box,
    Depth,
    Embedding,
    Frame,
    Guess,
    Mask,
    Pose,
    Reason,
    Skipped,
    Values,
)

SCHEMA = 1
"""The form of files of records; another one is refused."""
HEADER_BEGINS = b'{"schema":'
"""By this a header is told from a record, in a file of several runs."""


class Battery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a device lives on, and what it takes of it even if it does nothing."""

    capacity_Wh: float
    idle_W: float

    def lasts_h(self, above_idle_W: float) -> float:
        """The hours that it lasts at a mean power of so much above idling."""
        return self.capacity_Wh / (self.idle_W + above_idle_W)


class RunHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a run was made: enough to make it again."""

    schema: int = SCHEMA
    kind: Literal["live", "emulated", "simulated"]
    """Live: a real link; emulated: real time and a shaped link; simulated: virtual time."""
    bundle: str
    bundle_sha256: str
    policy: str
    profile: str | None = None
    """The device's table of latency and power that the run lived by; None on a device that is just itself."""
    battery: Battery | None = None
    scenario: str | None = None
    """The named scenario that it is of, if any."""
    trace: str | None = None
    trace_sha256: str | None = None
    """The hash of the trace as it was found."""
    trace_swapped: bool = False
    """Its downlink was played as the uplink."""
    trace_scale: float = 1.0
    """Its rates were played times this."""
    trace_began_s: float = 0.0
    """When the trace began, on the clock of the frames' times."""
    trace_start_s: float = 0.0
    """Where in the trace it began."""
    deadline_s: float
    """The span from capture to deadline."""
    fps: float
    seed: int | None = None
    command: str = ""
    version: str = ""
    started: str = ""
    """ISO 8601, given by the caller."""
    host: dict[str, str | int | float] = {}
    notes: tuple[str, ...] = ()
    """What a reader must know to judge the run: limits of a back end, the lag that was measured."""


class FrameRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """One frame and its one answer, flat. Times in seconds on the device's clock; None is unknown or not applicable."""

    frame_id: int
    captured_s: float
    deadline_s: float
    """The moment, not the span."""
    truth: int | None = None
    label: int | None = None
    confidence: float
    source: AnswerSource
    reason: Reason
    width: float | None = None
    exit: int | None = None
    step: int | None = None
    layers: int = 0
    answered_s: float
    latency_s: float
    on_time: bool
    bytes_up: int = 0
    energy_J: float | None = None
    """What the frame cost the device above idling, computing and radio together; None where nothing measured it."""
    wait_s: float = 0.0
    head_s: float = 0.0
    encode_s: float = 0.0
    network_s: float = 0.0
    server: str | None = None
    """Which server gave the answer, by the name that the device dials."""
    server_receive_s: float = 0.0
    server_queue_s: float = 0.0
    server_tail_s: float = 0.0
    server_send_s: float = 0.0
    local_label: int | None = None
    """What the last early exit on the device said: the answer that local-only would have given."""
    local_confidence: float | None = None
    goodput_Bps: float | None = None
    """The device's estimate of its uplink when it decided."""
    picture: str | None = None
    """What the source calls the frame: a file's name, say."""
    answer: str | None = None
    """The name of `label`."""
    mask: Mask | None = None
    """A class for each pixel, where the task is segmentation; its bytes are in base 64."""
    boxes: tuple[Box, ...] | None = None
    """What was found, surest first, where the task is detection."""
    pose: Pose | None = None
    depth: Depth | None = None
    embedding: Embedding | None = None
    values: Values | None = None
    age_s: float = 0.0
    """How much older the picture is that a repeated answer is really of, or the newest detection behind tracked boxes."""
    promised: float | None = None
    """With what probability the features that were sent would be answered in time, as the scheduler saw it then."""
    captured_unix_s: float | None = None
    """When the picture was captured by the wall clock, in seconds since 1970 (UTC)."""
    skipped_stale: int = 0
    """Pictures let go since the frame before this: newer ones came while the device was occupied."""
    skipped_rate: int = 0
    """And those that came sooner than was asked for."""
    things: tuple[Box, ...] | None = None
    """What is in the frame, where its true boxes are known; their scores are 1."""
    found: bool | None = None
    local_found: bool | None = None
    """Whether the boxes are right, each thing by its class and place; and the last early exit's. None: not known."""

    @classmethod
    def from_answer(
        cls,
        frame: Frame,
        answer: Answer,
        local: Guess | None = None,
        *,
        goodput_Bps: float | None = None,
        energy_J: float | None = None,
        picture: str | None = None,
        answer_name: str | None = None,
        captured_unix_s: float | None = None,
        skipped: Skipped = NONE_SKIPPED,
    ) -> FrameRecord:
        """The record of `frame` and its `answer`; `local` is the last early exit's guess, None if no exit had run."""
        point, timings = answer.point, answer.timings
        return cls(
            frame_id=frame.id,
            captured_s=frame.captured_s,
            deadline_s=frame.deadline_s,
            truth=frame.label,
            label=answer.label,
            confidence=answer.confidence,
            source=answer.source,
            reason=answer.reason,
            width=point.width if point else None,
            exit=point.exit if point else None,
            step=point.step if point else None,
            layers=point.layers if point else 0,
            answered_s=answer.answered_s,
            latency_s=answer.latency_s,
            on_time=answer.on_time,
            bytes_up=answer.bytes_up,
            energy_J=energy_J,
            wait_s=timings.wait_s,
            head_s=timings.head_s,
            encode_s=timings.encode_s,
            network_s=timings.network_s,
            server=answer.server,
            server_receive_s=timings.server.receive_s,
            server_queue_s=timings.server.queue_s,
            server_tail_s=timings.server.tail_s,
            server_send_s=timings.server.send_s,
            local_label=local.label if local else None,
            local_confidence=local.confidence if local else None,
            goodput_Bps=goodput_Bps,
            picture=picture,
            answer=answer_name,
            mask=answer.detail if isinstance(answer.detail, Mask) else None,
            boxes=answer.detail if isinstance(answer.detail, tuple) else None,
            pose=answer.detail if isinstance(answer.detail, Pose) else None,
            depth=answer.detail if isinstance(answer.detail, Depth) else None,
            embedding=answer.detail if isinstance(answer.detail, Embedding) else None,
            values=answer.detail if isinstance(answer.detail, Values) else None,
            age_s=answer.age_s,
            promised=None if answer.promised is None else round(answer.promised, 4),
            captured_unix_s=captured_unix_s,
            skipped_stale=skipped.stale,
            skipped_rate=skipped.rate,
        )

    @property
    def right(self) -> bool | None:
        """Right *and* on time; None when the truth is unknown."""
        found = self.found if self.found is not None or self.truth is None else self.label == self.truth
        return found and self.on_time

    @property
    def local_right(self) -> bool | None:
        """Whether local-only would have been right; its time is the exit's, which comes before any deadline kept."""
        same = self.local_label == self.truth
        return self.local_found if self.local_found is not None or self.truth is None else same


class Recorder:
    """Appends a run to `path`: its header at once, then one whole line for each record. Raises DataError."""

    def __init__(self, path: Path, header: RunHeader):
        self._encoder, self._path = msgspec.json.Encoder(), path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = FileIO(path, "w" if path.exists() and not path.is_file() else "a")  # a device has no end
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}; name another place for the record") from error
        self._lines = Lines(self._file.fileno())  # at once: a line is on its way before the next, and Ctrl-C loses none
        try:
            self._line(header)
        except DataError:
            self._file.close()
            raise

    @property
    def size_bytes(self) -> int:
        """How large the file is."""
        return os.fstat(self._file.fileno()).st_size

    def write(self, record: FrameRecord) -> None:
        """Append one record. Raises DataError on a full disk; what was written before is whole, and a later one may fit."""
        self._line(record)

    def end(self, end: RunEnd) -> None:
        """Append how the run ended. Raises DataError."""
        self._line(end)

    def close(self) -> None:
        """Close the file; further writes raise ValueError."""
        self._file.close()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _line(self, value: msgspec.Struct) -> None:
        if self._file.closed:
            raise ValueError(f"{self._path}: closed")
        line = self._encoder.encode(value) + b"\n"
        try:
            self._lines.write(line)
        except OSError as error:
            raise DataError(f"{self._path}: {error.strerror}") from error


def save(path: Path, *runs: Run) -> None:
    """Write finished runs at once, whole or not at all; compressed where `path` ends in `.zst`. Raises DataError."""
    rows = [row for run in runs for row in (run.header, *run.records, *([run.end] if run.end else []))]
    lines = msgspec.json.Encoder().encode_lines(rows)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, zstandard.compress(lines) if path.suffix == ".zst" else lines)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; name another place for the record") from error


class Run(NamedTuple):
    """A run as it was found in a file of records."""

    header: RunHeader
    records: list[FrameRecord]
    cut_lines: int
    """1 when the last line was cut short and left out."""
    end: RunEnd | None = None
    """How the run ended; None where it was cut off, and for runs that lose no frame before it is taken."""


def read(path: Path) -> tuple[RunHeader, list[FrameRecord]]:
    """The header and the records of a file's newest run; see `load_all`."""
    run = load(path)
    return run.header, run.records


def load(path: Path) -> Run:
    """A file's newest run; see `load_all`."""
    return load_all(path)[-1]


def load_all(path: Path) -> list[Run]:
    """The runs of a file, oldest first: an agent that is started again goes on in the same file, with a header of its own.

    Raises DataError with file and line for any damage but a last line that was cut off.
    """
    try:
        content = path.read_bytes()
        lines = (unfolded(content) if path.suffix == ".zst" else content).split(b"\n")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    except zstandard.ZstdError as error:
        raise DataError(
            f"{path}: damaged ({error}); it was written whole, so that none of it can be trusted"
        ) from error
    cut = bool(lines.pop())  # every whole line ends in a newline
    if not lines:
        raise DataError(f"{path}: line 1: has no header; is it a record of a run?")
    runs: list[Run] = []
    for number, line in enumerate(lines, start=1):
        where = f"{path}: line {number}"
        if not runs or line.startswith(HEADER_BEGINS):
            runs.append(Run(_header(line, where), [], 0))
        elif line.startswith(END_BEGINS):
            runs[-1] = runs[-1]._replace(end=_decoded(line, RunEnd, where))
        else:
            runs[-1].records.append(_decoded(line, FrameRecord, where))
    runs[-1] = runs[-1]._replace(cut_lines=int(cut))
    return runs


def _header(line: bytes, where: str) -> RunHeader:
    header: RunHeader = _decoded(line, RunHeader, where)
    if header.schema != SCHEMA:
        raise DataError(f"{where}: schema {header.schema}, and this version reads {SCHEMA}")
    return header


def _decoded(line: bytes, kind: type[Any], where: str) -> Any:
    try:
        return msgspec.json.decode(line, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{where}: not a {kind.__name__} ({error})") from error
