"""`isthmus demo`: server, shaped link and agent as real processes on this machine, watched live, then reported.

Nothing here takes part in the run: it starts the same commands that a user would, reads the agent's answers, and counts.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import msgspec
import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.live import Live
from rich.table import Table

from isthmus.cli import processes, report
from isthmus.cli.demo_view import View
from isthmus.cli.demonstration.footage import Scenes, ShippedClips, on_pictures
from isthmus.cli.options import Format, require, seconds
from isthmus.device.capture.sources.clips import Clips
from isthmus.device.executor import Executor
from isthmus.emulation import run_summary, traces
from isthmus.emulation.realtime.relay import LIMITS
from isthmus.emulation.reports.link_stamp import LinkStamp
from isthmus.emulation.run_summary import Summary
from isthmus.emulation.sequences.rows import found
from isthmus.models import bundle as bundles
from isthmus.proto import record
from isthmus.proto.record import FrameRecord, Run
from isthmus.proto.vocabulary import Guess

BUNDLE, GENERATED_FPS = "skywatch", 15.0
AGENT_LOG, PREVIEW = "agent.log", "preview.png"
ENDED = (0, 130, -signal.SIGTERM)
"""How an agent ends that has nothing to complain of: by itself, by Ctrl-C, or by our word while it was still closing."""
NICER = 5
"""The viewer shares its processor with what it shows, and must not disturb it."""
DRAW_EVERY_S = 0.1
"""Faster than anybody reads; drawing takes milliseconds of the processor that the demo shows."""
PLAIN_EVERY = 75
"""A line of progress is printed after so many frames where there is no terminal."""


@dataclass(frozen=True)
class DemoPlan:
    """What the demo runs."""

    source: str
    trace: str
    deadline_s: float
    fps: float
    frames: int
    policy: str
    page: str
    """HOST:PORT of the live page."""
    bundle: str = BUNDLE


def demo(
    camera: int | None = typer.Option(None, help="Use this camera instead of the shipped video."),
    trace: str = typer.Option("demo", help="A network trace: a file, or the name of a shipped one."),
    deadline: str = typer.Option("150ms", help="From capture to answer."),
    fps: float | None = typer.Option(None, help="Frames a second [a clip's own; 15 otherwise]."),
    duration: str | None = typer.Option(None, help="How long to run [once through the trace]."),
    seed: int = typer.Option(7, help="Which clip comes first, or of the generated scenes."),
    bundle: str = typer.Option(
        BUNDLE, help="The bundle: one that finds boxes, on real clips; signs, on generated scenes."
    ),
    policy: str = typer.Option("expected-utility", help="The agent's policy."),
    page: str | None = typer.Option(None, help="HOST:PORT of the live page [this machine's, on a free port]."),
    open_page: bool = typer.Option(False, "--open", help="Open the live page in a browser."),
    format_: Format = typer.Option("json", "--format", help="On standard output: the summary as JSON, or as text."),
) -> None:
    """Watch one network run in two halves over a link that is cut for 10 s; every frame answered by its deadline."""
    require("server", "emulation")
    length_s = seconds(duration, "--duration") or traces.find(trace).length_s
    boxes = bundles.load(bundle).manifest.task == "detection"
    footage = f"clips:{seed}" if boxes else f"generated:{seed}"
    fps = fps or (Clips().fps if boxes else None) or GENERATED_FPS
    scenario = DemoPlan(
        source=footage if camera is None else f"camera:{camera}",
        trace=trace,
        deadline_s=seconds(deadline, "--deadline") or 0.15,
        fps=fps,
        frames=max(1, int(length_s * fps)),
        policy=policy,
        bundle=bundle,
        page=page or f"127.0.0.1:{_free_port()}",
    )
    folder = report.new_folder()
    code, began_s, lag = _run(scenario, folder, open_page=open_page)
    if not _answered(folder / report.RECORDS):
        typer.echo(processes.last_words(folder / AGENT_LOG), err=True)
        shutil.rmtree(folder)
        raise typer.Exit(code)
    path, precision = _complete(scenario, folder, began_s, lag)
    _show(run_summary.summary(record.read(folder / report.RECORDS)[1]), path, precision, format_)
    if code not in ENDED:  # what was answered until then is in the report all the same
        typer.echo(processes.last_words(folder / AGENT_LOG), err=True)
        raise typer.Exit(code)


def _free_port() -> int:
    """A port of this machine that nobody has now."""
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])


def _run(scenario: DemoPlan, folder: Path, *, open_page: bool) -> tuple[int, float, str]:
    """Run the three processes to the end of the scenario.

    The agent's exit code or 130 after Ctrl-C, when the trace began, and what the relay says of its lag.
    """
    with contextlib.ExitStack() as stack:

        def start(*arguments: str) -> subprocess.Popen[str]:
            return stack.enter_context(processes.started(*arguments, log=folder / f"{arguments[0]}.log"))

        def address(process: subprocess.Popen[str], role: str) -> str:
            return processes.address_in(processes.first_line(process, role, folder / f"{role}.log"))

        server = start("serve", "--bundle", scenario.bundle, "--insecure", "--listen", "127.0.0.1:0")
        shape = ["--listen", "127.0.0.1:0", "--to", address(server, "serve"), "--trace", scenario.trace]
        relay = start("relay", *shape)
        near_end = address(relay, "relay")
        began_s = time.monotonic()
        observe = ["--bundle", scenario.bundle, "--source", scenario.source, "--server", near_end, "--insecure"]
        observe += [
            "--deadline",
            f"{scenario.deadline_s}s",
            "--fps",
            f"{scenario.fps}",
            "--frames",
            f"{scenario.frames}",
        ]
        observe += ["--policy", scenario.policy, "--record", str(folder / report.RECORDS)]
        observe += ["--page", scenario.page, *(["--open"] if open_page else [])]
        if sys.stderr.isatty() and _footage(scenario) is None:
            observe += ["--preview", str(folder / PREVIEW)]
        agent = start("agent", *observe)
        interrupted = False
        try:
            _watch(scenario, processes.output(agent), folder / PREVIEW, began_s)
        except KeyboardInterrupt:  # of which the agent may or may not have heard, and how far it had come then
            interrupted = True
        (folder / PREVIEW).unlink(missing_ok=True)
        code = processes.end(agent)
        processes.end(relay)
        lag = processes.output(relay).read().strip()
    return 130 if interrupted else code, began_s, lag


def _answered(records: Path) -> bool:
    """Whether there is an answer to report: a line after the header."""
    return records.is_file() and records.read_bytes().count(b"\n") > 1


def _watch(scenario: DemoPlan, answers: Iterable[str], preview: Path, began_s: float) -> None:
    """Show the agent's answers as they come: a live view on a terminal, a line now and then elsewhere."""
    os.nice(NICER)
    console = Console(stderr=True, highlight=False)
    manifest = bundles.load(scenario.bundle).manifest
    title = f"isthmus demo · {manifest.name} · trace {scenario.trace} · deadline {scenario.deadline_s * 1000:.0f} ms"
    size = console.size
    view = View(manifest.labels, deadline_s=scenario.deadline_s, title=title, columns=size.width, rows=size.height)
    view.page = f"http://{scenario.page}/"
    console.print(f"  the same in a browser: {view.page}")
    trace, footage = _rates(scenario.trace), _footage(scenario)
    # Drawn from here alone: a thread of the library's own would draw what is being changed, and die of it.
    live = Live(view, console=console, screen=True, auto_refresh=False) if console.is_terminal else None
    drawn_s = -math.inf
    with live or contextlib.nullcontext():
        for n, line in enumerate(answers, start=1):
            answer = msgspec.json.decode(line, type=FrameRecord)
            seen = None
            if live is not None:
                seen = _newest(preview) if footage is None else footage.picture(answer.frame_id)
            view.show(
                answer if footage is None else footage.judged(answer),
                seen,
                float(trace.up_Bps[trace.row_at(answer.captured_s - began_s)]),
            )
            if live is not None and (now := time.monotonic()) - drawn_s >= DRAW_EVERY_S:
                live.refresh()
                drawn_s = now
            if live is None and n % PLAIN_EVERY == 0:
                console.print(f"  {n} of {scenario.frames} frames, {view.progress}")


def _newest(preview: Path) -> NDArray[np.uint8] | None:
    """What a camera saw last, RGB."""
    picture = cv2.imread(str(preview)) if preview.is_file() else None
    return None if picture is None else np.asarray(picture[:, :, ::-1], np.uint8)


def _rates(name: str) -> traces.Trace:
    trace = traces.find(name)
    return trace if isinstance(trace, traces.Trace) else trace.binned()


def _footage(scenario: DemoPlan) -> Scenes | ShippedClips | None:
    """What the frames show, once more; None of a camera's."""
    kind, _, number = scenario.source.partition(":")
    if kind == "generated":
        return Scenes(int(number), scenario.fps)
    if kind == "clips":
        return ShippedClips(int(number), bundles.load(scenario.bundle).manifest.labels)
    return None


def _complete(scenario: DemoPlan, folder: Path, began_s: float, lag: str) -> tuple[Path, tuple[float, float] | None]:
    """Add to the records what the agent could not know: the truth, the link and the device alone. Draw the report.

    Its path, and the AP50 of answers and device alone, where they are boxes.
    """
    path = folder / report.RECORDS
    header, answers = record.read(path)
    header = LinkStamp(scenario.trace, began_s, notes=(LIMITS, *([lag] if lag else []))).header(header)
    how = {"command": shlex.join(["isthmus", *sys.argv[1:]]), "scenario": asdict(scenario), "agent": header}
    (folder / "manifest.json").write_bytes(msgspec.json.format(msgspec.json.encode(how), indent=2) + b"\n")
    alone, footage = _alone(scenario, [a.frame_id for a in answers]), _footage(scenario)
    answers = [_beside(answer if footage is None else footage.judged(answer), alone, footage) for answer in answers]
    record.save(path, Run(header, answers, 0))
    if not isinstance(footage, ShippedClips):
        return report.write_report(path, folder), None
    labels = bundles.load(scenario.bundle).manifest.labels
    return report.write_report(path, folder, pictures=on_pictures(footage, answers, labels)), footage.ap50(
        answers, alone
    )


def _beside(answer: FrameRecord, alone: dict[int, Guess], footage: Scenes | ShippedClips | None) -> FrameRecord:
    if (guess := alone.get(answer.frame_id)) is None:
        return answer
    answer = msgspec.structs.replace(answer, local_label=guess.label, local_confidence=guess.confidence)
    if not isinstance(footage, ShippedClips) or not isinstance(guess.detail, tuple):
        return answer
    return msgspec.structs.replace(answer, local_found=found(guess.detail, footage.truth(answer)))


def _alone(scenario: DemoPlan, frames: list[int]) -> dict[int, Guess]:
    """What the device would answer without a server: its last exit at full width, for every frame, as if always in time."""
    footage, guesses = _footage(scenario), dict[int, Guess]()
    if footage is None:
        return guesses
    bundle = bundles.load(scenario.bundle)
    executor = Executor(bundle)
    for frame in sorted(frames):
        if (pixels := footage.picture(frame)) is None:
            continue
        executor.hold(frame, pixels)
        for stage in range(len(bundle.manifest.stages)):
            if (guess := executor.job(frame, stage, bundle.manifest.widths[-1])().guess) is not None:
                guesses[frame] = guess
        executor.forget(frame)
    return guesses


def _show(summary: Summary, page: Path, precision: tuple[float, float] | None, format_: Format) -> None:
    """The summary for people, on standard error where programs are told it in the last line of standard output."""
    rows = Table.grid(padding=(0, 2))
    for name, value in (
        ("answered by the deadline", f"{summary.answered_by_deadline or 0:.2%} of {summary.frames} frames"),
        ("right and on time", _percent(summary.accuracy)),
        ("the device alone", _percent(summary.accuracy_local_only)),
        *([("AP50 on time, alone", f"{precision[0]:.3f}, {precision[1]:.3f}")] if precision else []),
        ("answers from", ", ".join(f"{k} {n}" for k, n in summary.by_source.items())),
        ("sent", f"{summary.bytes_per_frame or 0:.0f} bytes a frame"),
        ("report", str(page)),
    ):
        rows.add_row(f"[dim]{name}[/]", value)
    Console(stderr=format_ == "json", highlight=False).print(rows)
    if format_ == "text":
        return
    shown = {
        "frames": summary.frames,
        "answered_by_deadline": summary.answered_by_deadline,
        "accuracy": summary.accuracy,
        "accuracy_local_only": summary.accuracy_local_only,
        "by_source": summary.by_source,
        "bytes_per_frame": summary.bytes_per_frame,
        "report": str(page),
    }
    if precision is not None:
        shown |= {"ap50": round(precision[0], 4), "ap50_local_only": round(precision[1], 4)}
    typer.echo(json.dumps(shown))


def _percent(share: float | None) -> str:
    return "the truth is not known" if share is None else f"{share:.1%}"
