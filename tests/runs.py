"""Runs made up for tests of reports and sweeps: what was right, and when, is an argument."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from isthmus.emulation.virtual.scenario import Scenario
from isthmus.proto.errors import DataError
from isthmus.proto.record import FrameRecord, Recorder, Run, RunHeader
from isthmus.proto.vocabulary import AnswerSource, Reason

FPS, DEADLINE_S = 10.0, 0.1


def made_run(
    policy: str,
    right: int,
    *,
    of: int = 100,
    trace: str | None = "demo",
    seed: int | None = 1,
    kind: Literal["live", "emulated", "simulated"] = "simulated",
    server: int = 0,
    missed: int = 0,
    deadline_s: float = DEADLINE_S,
    energy_J: float | None = None,
    **header: object,
) -> Run:
    """`right` of `of` frames right: the first `server` frames answered by the server, the last `missed` not at all."""
    made = RunHeader(
        kind=kind, bundle="cifar10", bundle_sha256="ab" * 32, policy=policy, trace=trace, deadline_s=deadline_s, fps=FPS,
        seed=seed, version="0.1.0", command="isthmus sweep few.toml", **header,  # type: ignore[arg-type]
    )  # fmt: skip
    records = []
    for i in range(of):
        captured_s, none = i / FPS, i >= of - missed
        latency_s = deadline_s if none else 0.05 if i < server else 0.01
        records.append(
            FrameRecord(
                frame_id=i,
                captured_s=captured_s,
                deadline_s=captured_s + deadline_s,
                truth=1,
                label=None if none else int(i < right),
                confidence=0.5,
                source=AnswerSource.NONE if none else AnswerSource.SERVER if i < server else AnswerSource.EXIT,
                reason=Reason.RETURNED if i < server else Reason.CONFIDENT,
                width=0.5,
                exit=None if i < server else 1,
                answered_s=captured_s + latency_s,
                latency_s=latency_s,
                on_time=not none,
                bytes_up=400 if i < server else 0,
                energy_J=energy_J,
                local_label=1,
            )
        )
    return Run(made, records, 0)


def saved(run: Run, path: Path) -> Path:
    """A run written as a file of records."""
    with Recorder(path, run.header) as recorder:
        for record in run.records:
            recorder.write(record)
    return path


def play_made(scenario: Scenario) -> list[Run]:
    """In place of a world: a run for each session, as many of its frames right as its seed says."""
    return [made_run(scenario.policy, scenario.seed, of=20, trace=scenario.trace)] * scenario.sessions


def play_or_fail(scenario: Scenario) -> list[Run]:
    """As `play_made`, but seed 2 is a scenario that cannot be played, and seed 3 one that shows a bug."""
    if scenario.seed == 2:
        raise DataError("drive.csv: line 7: not a number")
    if scenario.seed == 3:
        raise ZeroDivisionError("division by zero")
    return play_made(scenario)


def play_killed(scenario: Scenario) -> list[Run]:
    """A process that the system ends."""
    os._exit(9)
