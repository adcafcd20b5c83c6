"""A target for every parser: an IsthmusError comes out, or a value whose form is checked. Anything else is a finding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fuzz import crossing, files

Target = Callable[[bytes], None]


@dataclass(frozen=True)
class Fuzzed:
    """A parser: what is done with the bytes, what the search begins with."""

    run: Target
    seeds: Callable[[], Iterator[bytes]]
    longest_bytes: int = 4096


TARGETS: dict[str, Fuzzed] = {
    "codec": Fuzzed(crossing.codec, crossing.codec_seeds),
    "wire": Fuzzed(crossing.wire, crossing.wire_seeds),
    "tasks": Fuzzed(crossing.tasks, crossing.tasks_seeds),
    "bundle": Fuzzed(files.bundle, files.bundle_seeds, 40_000),
    "traces": Fuzzed(files.traces, files.traces_seeds),
    "flatbuffer": Fuzzed(files.flatbuffer, files.flatbuffer_seeds, 16_000),
    "records": Fuzzed(files.records, files.records_seeds),
    "configuration": Fuzzed(files.configuration, files.configuration_seeds),
}
