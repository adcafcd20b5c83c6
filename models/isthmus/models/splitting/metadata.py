"""What a `.tflite` says of itself: the normalisation of its input and the names of its classes, in TensorFlow Lite's metadata.

The metadata is a flatbuffer of its own in a buffer of the file (`metadata_schema.fbs` of tflite-support, identifier M001);
files that it names lie in a zip archive behind the model. Every offset is checked here: a damaged one is a word, no crash.
"""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from isthmus.models.flatbuffer import Graph

ENTRY, IDENTIFIER = "TFLITE_METADATA", b"M001"
NORMALISATION = 1
"""The number of `NormalizationOptions` among what a process unit may be."""
AXIS_LABELS, VALUE_LABELS = 2, 3
"""Kinds of files: names of what an output's places are, or of what its values are."""
MOST_BYTES = 4 << 20
"""Far more than a file of names takes, unpacked."""
MOST_ENTRIES = 10_000
"""Of a vector: more tensors, units or files than that no model has."""
Levels = tuple[float, float, float]


@dataclass(frozen=True)
class Metadata:
    """What a model says of itself, as far as it can be read."""

    normalisation: tuple[Levels, Levels] | None = None
    """Mean and deviation of each channel, of pixels from 0 to 1."""
    labels: tuple[str, ...] = ()
    file: str = ""
    """The name of the file that `labels` stand in."""
    fault: str = ""
    """Why some of it cannot be read."""


def of(graph: Graph) -> Metadata:
    """The metadata of a graph; empty where it has none."""
    try:
        raw = _entry(graph.model)
        if raw is None:
            return Metadata()
        normalisation, files = _contents(raw)
    except (ValueError, struct.error) as error:
        return Metadata(fault=f"its metadata is damaged ({error}), and is not used")
    try:
        found = _labels(graph, files) if files else Metadata()
    except (ValueError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error, EOFError, KeyError) as error:
        found = Metadata(fault=f"names {files[0]}, which cannot be read from it ({error})")
    return Metadata(normalisation, found.labels, found.file, found.fault)


def _entry(model: Any) -> bytes | None:
    """The flatbuffer that is a file's metadata; None where it has none."""
    for entry in (model and model.metadata) or []:
        name = entry.name.decode(errors="replace") if isinstance(entry.name, bytes) else entry.name
        if name != ENTRY:
            continue
        if not 0 <= entry.buffer < len(model.buffers):
            raise ValueError(f"buffer {entry.buffer} is not there")
        data = model.buffers[entry.buffer].data
        return b"" if data is None else bytes(bytearray(data))
    return None


def _contents(raw: bytes) -> tuple[tuple[Levels, Levels] | None, list[str]]:
    """The normalisation of the first input, and the files that name what the outputs say."""
    if raw[4:8] != IDENTIFIER:
        raise ValueError(f"begins with {raw[4:8]!r}, expected {IDENTIFIER!r}")
    root = _Table(raw, _unsigned(raw, 0))
    normalisation, files = None, []
    for subgraph in root.tables(3)[:1]:
        for tensor in subgraph.tables(2)[:1]:
            normalisation = next(filter(None, map(_normalisation, tensor.tables(4))), None)
        for tensor in subgraph.tables(3):
            files += [file.text(0) for file in tensor.tables(6) if file.byte(2) in (AXIS_LABELS, VALUE_LABELS)]
    return normalisation, files


def _normalisation(unit: _Table) -> tuple[Levels, Levels] | None:
    """Mean and deviation (x - mean) / std of pixels from 0 to 255, as of pixels from 0 to 1."""
    options = unit.table(1)
    if unit.byte(0) != NORMALISATION or options is None:
        return None
    mean, std = (_three(options.floats(field)) for field in (0, 1))
    if min(std) <= 0:
        raise ValueError(f"normalises by {std}")
    return mean, std


def _three(values: Sequence[float]) -> Levels:
    if len(values) not in (1, 3) or not all(map(math.isfinite, values)):
        raise ValueError(f"normalises by {tuple(values)}")
    first, second, third = (value / 255 for value in (list(values) * 3)[:3])
    return first, second, third


def _labels(graph: Graph, files: Sequence[str]) -> Metadata:
    """The names in the first of these files, which lies in the archive behind the model."""
    with zipfile.ZipFile(graph.path) as archive:
        info = archive.getinfo(files[0])
        if info.file_size > MOST_BYTES:
            raise ValueError(f"{info.file_size:,} bytes")
        lines = archive.read(info).decode("utf-8-sig").rstrip().splitlines()
    return Metadata(labels=tuple(line.strip() for line in lines), file=files[0])


@dataclass(frozen=True)
class _Table:
    """A table of a flatbuffer: fields by number, each where the table's own list of offsets says, or absent."""

    raw: bytes
    at: int

    def _field(self, number: int) -> int | None:
        """Where a field stands; None where it is absent."""
        listed = self.at - _unsigned(self.raw, self.at, "<i")
        slot = 4 + 2 * number
        if slot + 2 > _unsigned(self.raw, listed, "<H"):
            return None
        offset = _unsigned(self.raw, listed + slot, "<H")
        return self.at + offset if offset else None

    def byte(self, number: int) -> int:
        where = self._field(number)
        return 0 if where is None else _unsigned(self.raw, where, "<B")

    def table(self, number: int) -> _Table | None:
        where = self._field(number)
        return None if where is None else _Table(self.raw, where + _unsigned(self.raw, where))

    def text(self, number: int) -> str:
        start, count = self._vector(number, 1)
        return self.raw[start : start + count].decode("utf-8")

    def floats(self, number: int) -> tuple[float, ...]:
        start, count = self._vector(number, 4)
        return struct.unpack_from(f"<{count}f", self.raw, start)

    def tables(self, number: int) -> list[_Table]:
        return list(self._tables(number))

    def _tables(self, number: int) -> Iterator[_Table]:
        start, count = self._vector(number, 4)
        for place in range(start, start + 4 * count, 4):
            yield _Table(self.raw, place + _unsigned(self.raw, place))

    def _vector(self, number: int, size: int) -> tuple[int, int]:
        """Where a vector's entries of `size` bytes begin, and how many there are; none where it is absent."""
        where = self._field(number)
        if where is None:
            return 0, 0
        start = where + _unsigned(self.raw, where)
        count = _unsigned(self.raw, start)
        if start + 4 + size * count > len(self.raw) or count > MOST_ENTRIES * 4 // size:
            raise ValueError(f"{count} entries at {start}")
        return start + 4, count


def _unsigned(raw: bytes, at: int, form: str = "<I") -> int:
    """The number at a place, which must lie in `raw`: Python would count a negative one from the end."""
    if not 0 <= at <= len(raw) - struct.calcsize(form):
        raise ValueError(f"leads to byte {at} of {len(raw)}")
    return int(struct.unpack_from(form, raw, at)[0])
