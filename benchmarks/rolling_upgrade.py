"""Two servers are upgraded one after the other under fifty devices, then the devices' bundle: what becomes of every frame.

The servers are real processes that are told to end (SIGTERM) and started again, each once; then the next version of the bundle
is pushed to both, and five devices at a time come back with it. The devices are real sessions, hosts and transports of
this process. Their heads are replayed, since they all see the same few pictures: what crosses was
computed once by the bundle's head, and every answer is compared with what its tail, run here, says of the same bytes.

    python benchmarks/rolling_upgrade.py [--devices 50] [--fps 2] [--deadline 1] [--svg docs/images/rolling-upgrade.svg]

Prints one JSON object; with --svg also draws it. It measures no speed: what it counts must not depend on the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from matplotlib.figure import Figure

from isthmus.device.capture.sources import Picture
from isthmus.device.catalogue import Catalogue
from isthmus.device.executor import Executor
from isthmus.device.host import AnsweredFrame, Host
from isthmus.device.scheduler import AlwaysOffload
from isthmus.device.servers.servers import Servers
from isthmus.device.servers.uplinks import Uplinks
from isthmus.device.session import Session
from isthmus.device.stage_times import StageTimes
from isthmus.device.transport import Listener, Transport
from isthmus.edge_server.engines import Tail
from isthmus.emulation.reports import figure_style
from isthmus.emulation.reports.figure_style import Sheet
from isthmus.models import bundle as bundles
from isthmus.models.bundle import Bundle
from isthmus.models.scenes import Drive
from isthmus.proto import wire
from isthmus.proto.codec import CODEC_VERSION, Codec
from isthmus.proto.messages import Hello
from isthmus.proto.operations import heap
from isthmus.proto.vocabulary import Answer, AnswerSource, LinkState, OperatingPoint, StageResult

PICTURES = 8
BIN_S = 0.5
TOGETHER = 5
"""Devices that are given the next bundle at a time."""
BEFORE_S, AFTER_S = 3.0, 3.0
WAIT_S = 60.0
"""How long anything is waited for."""


@dataclass(frozen=True)
class Seen:
    """What the head gives for one picture, and the only right answers to it."""

    stages: tuple[StageResult, ...]
    payloads: tuple[bytes, ...]
    remote: tuple[int, ...]
    """By how many layers the tail had."""

    def right(self, answer: Answer) -> bool:
        """Whether an answer is what the half that gave it says of this picture; none at all is said honestly."""
        if answer.source is AnswerSource.SERVER:
            return answer.point is not None and answer.label == self.remote[answer.point.layers - 1]
        if answer.point is None or answer.point.exit is None:
            return answer.label is None
        said = self.stages[answer.point.exit].guess
        return said is not None and answer.label == said.label


class ReplayedHead:
    """Stands in for an `Executor`, whose methods these are: gives what the head gave for the picture."""

    def __init__(self, seen: list[Seen]) -> None:
        self._seen, self._of = seen, dict[int, Seen]()

    def hold(self, frame_id: int, pixels: Any) -> None:
        """Keep a picture, which says its own number."""
        self._of[frame_id] = self._seen[int(pixels[0, 0, 0])]

    def job(self, frame_id: int, stage: int, width: float) -> Callable[[], StageResult]:
        """What a stage gives."""
        return partial(msgspec.structs.replace, self._of[frame_id].stages[stage], frame_id=frame_id)

    def refer(self, frame_id: int, reference: Any) -> None:
        """Nothing is coded against anything here."""

    def coding_job(self, frame_id: int, step: int) -> None:
        """Everything is coded already."""

    def encode(self, frame_id: int, step: int, layer: int) -> bytes:
        """One payload."""
        return self._of[frame_id].payloads[layer]

    def forget(self, frame_id: int) -> None:
        """Let a picture go."""
        del self._of[frame_id]


@dataclass
class Upgrade:
    """What happened: times in seconds since the devices began."""

    servers: tuple[str, ...]
    asked: int = 0
    answers: list[tuple[float, str]] = field(default_factory=list)
    """(when, which server or "device") of every answer."""
    ids: Counter[tuple[int, int]] = field(default_factory=Counter)
    """How many answers each (device, frame) got."""
    reasons: Counter[str] = field(default_factory=Counter)
    late: list[tuple[float, float, float]] = field(default_factory=list)
    """When each late frame was captured, due and answered, on the machine's clock."""
    wrong: int = 0
    away: dict[str, tuple[float, float]] = field(default_factory=dict)
    """When each server was told to end, and when it was ready again."""
    bundle_s: tuple[float, float] = (0.0, 0.0)
    """When the first device got the next bundle, and the last one was back with it."""
    length_s: float = 0.0

    def figures(self) -> dict[str, Any]:
        """All of it as numbers."""
        by = Counter(who for _, who in self.answers)
        return {
            "frames": self.asked,
            "answered_once": sum(count == 1 for count in self.ids.values()),
            "late": len(self.late),
            "wrong": self.wrong,
            "by": {
                **{f"server {index + 1}": by[name] for index, name in enumerate(self.servers)},
                "device": by["device"],
            },
            "reasons": dict(sorted(self.reasons.items())),
            "away_s": [[round(t, 1) for t in self.away[name]] for name in self.servers],
            "bundle_s": [round(t, 1) for t in self.bundle_s],
            "length_s": round(self.length_s, 1),
        }


def seen_by(bundle: Bundle) -> list[Seen]:
    """What head and tail make of a few pictures."""
    catalogue, codec = Catalogue.from_manifest(bundle.manifest), Codec(bundle.codec)
    executor, tail, drive = Executor(bundle), Tail(bundle, 1), Drive(3)
    width, rows = catalogue.widths[-1], list[Seen]()
    for index in range(PICTURES):
        executor.hold(index, drive.frame(7 * index).image)
        stages = tuple(executor.job(index, stage, width)() for stage in range(catalogue.stages))
        payloads = tuple(executor.encode(index, 0, layer) for layer in range(bundle.codec.layers))
        remote = []
        for layers in range(1, len(payloads) + 1):
            known = catalogue.known(OperatingPoint(width, None, 0, layers))
            packed = tail.run([codec.decode(payloads[:layers])])[0]
            assert packed is not None
            remote.append(catalogue.task.guess(packed, temperature=known.temperature, accuracy=known.accuracy).label)
        rows.append(Seen(stages, payloads, tuple(remote)))
    return rows


@dataclass(frozen=True)
class Device:
    """One device at work."""

    host: Host
    session: Session
    line: asyncio.Task[None]

    def is_up(self) -> bool:
        """Whether it has a server."""
        return self.session.state is LinkState.UP

    async def close(self) -> None:
        """Answer what is away, and hang up."""
        self.host.stop()
        await self.host.serve()
        self.line.cancel()
        await asyncio.gather(self.line, return_exceptions=True)


class Crowd:
    """All devices."""

    def __init__(self, bundle: Bundle, servers: tuple[str, ...], devices: int, deadline_s: float, seed: int) -> None:
        self.upgrade, self._deadline_s = Upgrade(servers), deadline_s
        self._seen, self._bundle, self._servers, self._seed = seen_by(bundle), bundle, servers, seed
        self._next: dict[int, Bundle] = {}
        """Devices that are to come back with another bundle."""
        self._loop = asyncio.get_running_loop()
        self._began_s = self._loop.time()
        self.devices = [self._opened(number, bundle) for number in range(devices)]

    @property
    def now_s(self) -> float:
        """Seconds since the devices began."""
        return self._loop.time() - self._began_s

    def standing_by(self, server: str) -> int:
        """How many devices have a stream to this server."""
        return sum(device.session.servers.is_up(server) for device in self.devices)

    async def upgrade_devices(self, bundle: Bundle) -> None:
        """Bring every device back with another bundle, a few at a time."""
        began_s = self.now_s
        for first in range(0, len(self.devices), TOGETHER):
            self._next |= dict.fromkeys(range(first, min(first + TOGETHER, len(self.devices))), bundle)
            await until(lambda: not self._next)
        self.upgrade.bundle_s = began_s, self.now_s

    def _opened(self, number: int, bundle: Bundle) -> Device:
        catalogue = Catalogue.from_manifest(bundle.manifest)
        times = StageTimes([[0.0005] * len(catalogue.widths)] * catalogue.stages)
        servers = Servers(self._servers, chance=random.Random(f"{self._seed}/{number}"))
        session = Session(catalogue, AlwaysOffload(catalogue), times, servers=servers)
        head: Any = ReplayedHead(self._seen)
        host = Host(session, head, partial(self._told, number))
        hello = Hello(bundle.manifest.name, bundle.sha256, CODEC_VERSION, f"device-{number}")

        def transport(address: str, listener: Listener) -> Transport:
            expected = wire.Expected(bundle.codec.layers, bundle.codec.max_layer_bytes)
            most = wire.max_message_bytes(bundle.codec)
            return Transport(address, hello, listener, expected=expected, max_message_bytes=most, certificates=None)

        host.uplink = uplinks = Uplinks(transport, host, listed=len(self._servers))
        host.connect()
        return Device(host, session, asyncio.ensure_future(uplinks.run()))

    def _told(self, number: int, answered: AnsweredFrame) -> None:
        answer, up = answered.answer, self.upgrade
        up.ids[number, answer.frame_id] += 1
        if not answer.on_time:
            up.late.append((answered.taken.frame.captured_s, answered.taken.frame.deadline_s, answer.answered_s))
        up.wrong += not self._seen[answer.frame_id % PICTURES].right(answer)
        up.answers.append((self.now_s, answer.server or "device"))
        up.reasons[answer.reason.value] += 1

    async def ask(self, number: int, period_s: float, stop: asyncio.Event) -> None:
        """Show one device a picture every `period_s`."""
        due_s, frame = self._loop.time() + period_s * random.Random(number).random(), 0
        shape = (*self._bundle.manifest.input.shape, 3)
        while not stop.is_set():
            await asyncio.sleep(max(0.0, due_s - self._loop.time()))
            if number in self._next:
                await self.devices[number].close()
                self.devices[number] = self._opened(number, self._next.pop(number))
                await until(self.devices[number].is_up)
                due_s = self._loop.time()
            pixels = np.full(shape, frame % PICTURES, np.uint8)
            self.upgrade.asked += 1
            self.devices[number].host.take(Picture(f"{frame}", pixels), frame, deadline_s=self._deadline_s)
            due_s, frame = due_s + period_s, frame + 1

    async def close(self) -> None:
        """Answer what is away, and hang up."""
        await asyncio.gather(*(device.close() for device in self.devices))


async def server(models: Path, listen: str) -> tuple[asyncio.subprocess.Process, str]:
    """A server process that is ready, and where it listens."""
    words = ("serve", "--models", str(models), "--listen", listen, "--insecure", "--push", "--max-streams", "256")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "isthmus.cli", *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert process.stdout is not None
    line = (await asyncio.wait_for(process.stdout.readline(), WAIT_S)).decode()
    return process, next(word.rstrip(",") for word in line.split() if word.rstrip(",").rpartition(":")[2].isdecimal())


async def pushed(folder: Path, address: str) -> None:
    """Push a bundle to a server, as its operator does."""
    words = ("models", "push", str(folder), address, "--insecure", "--version", "2")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "isthmus.cli", *words, stdout=asyncio.subprocess.DEVNULL
    )
    assert await asyncio.wait_for(process.wait(), WAIT_S) == 0


def next_version(folder: Path, target: Path) -> Bundle:
    """The same networks under another hash."""
    shutil.copytree(folder, target)
    manifest = target / "bundle.toml"
    manifest.write_text(manifest.read_text() + "# the next version\n")
    (target / "bundle.sha256").write_text(f"{hashlib.sha256(manifest.read_bytes()).hexdigest()}  bundle.toml\n")
    return bundles.load(str(target))


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something true. Raises TimeoutError when it does not come."""

    async def wait() -> None:
        while not condition():
            await asyncio.sleep(0.05)

    await asyncio.wait_for(wait(), WAIT_S)


async def upgraded(folder: Path, devices: int, fps: float, deadline_s: float, scratch: Path, seed: int = 1) -> Upgrade:
    """Upgrade two servers one after the other, as soon as each device has the one before back; then the bundle in `folder`."""
    processes: dict[str, asyncio.subprocess.Process] = {}
    models: dict[str, Path] = {}
    for number in range(2):
        shutil.copytree(folder, scratch / f"{number}" / "bundle" / "1")
        process, address = await server(scratch / f"{number}", "127.0.0.1:0")
        processes[address], models[address] = process, scratch / f"{number}"
    newer = next_version(folder, scratch / "next")
    try:
        crowd = Crowd(bundles.load(str(folder)), tuple(processes), devices, deadline_s, seed)
        await until(lambda: all(crowd.standing_by(address) == devices for address in processes))
        heap.freeze()  # as an agent does when it is ready
        stop = asyncio.Event()
        asking = [asyncio.ensure_future(crowd.ask(number, 1 / fps, stop)) for number in range(devices)]
        await asyncio.sleep(BEFORE_S)
        for address in list(processes):
            told_s = crowd.now_s
            processes[address].send_signal(signal.SIGTERM)
            await asyncio.wait_for(processes[address].wait(), WAIT_S)
            processes[address], _ = await server(models[address], address)
            crowd.upgrade.away[address] = told_s, crowd.now_s
            await until(lambda: all(crowd.standing_by(each) == devices for each in processes))
            await asyncio.sleep(AFTER_S)
        for address in processes:
            await pushed(scratch / "next", address)
        await crowd.upgrade_devices(newer)
        await asyncio.sleep(AFTER_S)
        crowd.upgrade.length_s = crowd.now_s
        stop.set()
        await asyncio.gather(*asking)
        await crowd.close()
        return crowd.upgrade
    finally:
        for process in processes.values():
            if process.returncode is None:
                process.kill()
                await process.wait()


def draw(up: Upgrade, sheet: Sheet) -> Figure:
    """Answers a second by who gave them, over time; grey where a server was away."""
    figure = figure_style.blank(sheet, 3.4)
    axis = figure.add_subplot()
    figure_style.plain(axis)
    edges = np.arange(0.0, up.length_s + BIN_S, BIN_S)
    who = [*up.servers, "device"]
    rates = [np.histogram([t for t, by in up.answers if by == name], edges)[0] / BIN_S for name in who]
    colours = (figure_style.BLUE, figure_style.ORANGE, figure_style.VERMILLION)
    axis.stackplot(edges[:-1], *rates, colors=colours, step="post", linewidth=0)
    top = 1.12 * max(np.sum(rates, axis=0))
    for index, name in enumerate(up.servers):
        begin_s, end_s = up.away[name]
        axis.axvspan(begin_s, end_s, color=figure_style.SHADE, alpha=0.5, linewidth=0, zorder=0)
        words = f"{index + 1} away" if sheet.narrow else f"server {index + 1} is upgraded"
        axis.annotate(words, ((begin_s + end_s) / 2, top), ha="center", va="top", fontsize=8.5, color=figure_style.SOFT)
    axis.set(xlim=(edges[0], edges[-2]), ylim=(0, top), xlabel="seconds", ylabel="answers a second")
    begin_s, end_s = up.bundle_s
    axis.axvspan(begin_s, end_s, color=figure_style.SHADE, alpha=0.5, linewidth=0, zorder=0)
    words = "bundle" if sheet.narrow else "devices get the next bundle"
    axis.annotate(words, ((begin_s + end_s) / 2, top), ha="center", va="top", fontsize=8.5, color=figure_style.SOFT)
    names = ("server 1", "server 2", "the device")
    figure_style.key(axis, *zip(names, colours, strict=True))
    return figure


def main() -> None:
    """Run, print, draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--bundle", default="signs")
    parser.add_argument("--devices", type=int, default=50)
    parser.add_argument("--fps", type=float, default=2.0)
    parser.add_argument("--deadline", type=float, default=1.0)
    parser.add_argument("--svg", type=Path)
    options = parser.parse_args()
    folder = bundles.find(options.bundle)
    with tempfile.TemporaryDirectory() as scratch:
        up = asyncio.run(upgraded(folder, options.devices, options.fps, options.deadline, Path(scratch)))
    print(json.dumps({"devices": options.devices, "fps": options.fps, "deadline_s": options.deadline, **up.figures()}))
    if options.svg is not None:
        title = "two servers are upgraded one after the other under fifty devices"
        plot = figure_style.plot("rolling-upgrade", title, "", partial(draw, up))
        options.svg.write_text(figure_style.standalone(plot))


if __name__ == "__main__":
    main()
