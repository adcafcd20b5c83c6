"""The link that a run of real processes had, written into its header afterwards: an agent cannot know who shapes its way.

With it a report sets the run beside the virtual one of the same trace, device, bundle and pace.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from isthmus.emulation import traces
from isthmus.proto import record
from isthmus.proto.record import RunHeader


@dataclass(frozen=True)
class LinkStamp:
    """A shaped link."""

    trace: str
    """A file, or the name of a shipped one."""
    began_s: float
    """When the trace began, on the clock of the frames' times: CLOCK_MONOTONIC of the agent's machine."""
    start_s: float = 0.0
    """Where in the trace it began."""
    notes: tuple[str, ...] = ()
    """The back end's limits, and how late it was."""

    def header(self, live: RunHeader) -> RunHeader:
        """The header of a run over this link, from the one that its agent wrote."""
        return msgspec.structs.replace(
            live,
            kind="emulated",
            trace=self.trace,
            trace_sha256=traces.find(self.trace).sha256,
            trace_began_s=self.began_s,
            trace_start_s=self.start_s,
            notes=(*live.notes, *self.notes),
        )

    def write_into(self, path: Path) -> None:
        """Write this into the newest run of the record at `path`. Raises DataError when it is none."""
        *before, run = record.load_all(path)
        record.save(path, *before, run._replace(header=self.header(run.header)))
