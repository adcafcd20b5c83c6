"""Opens what an agent's configuration names (bundle, source, writers, sinks, transport) and runs the agent."""

from __future__ import annotations

import asyncio
import contextlib
import platform
import random
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from isthmus.device.capture.gate import Gate
from isthmus.device.capture.reader import opened
from isthmus.device.capture.sources import Source, Wish
from isthmus.device.capture.sources.address import public
from isthmus.device.capture.sources.previewed import Previewed
from isthmus.device.catalogue import Catalogue
from isthmus.device.config import AgentConfig, size_of
from isthmus.device.deciding import outside
from isthmus.device.deciding.energy import EnergyCost
from isthmus.device.deciding.kept_share import KeptShare
from isthmus.device.executor import Executor, measure_coding, measure_stages
from isthmus.device.host import AnsweredFrame, Host
from isthmus.device.monitoring.insight import Insight
from isthmus.device.neural_filter import NeuralFilter
from isthmus.device.output.configured import sinks_of
from isthmus.device.output.history import History, Limits
from isthmus.device.output.sinks import AnsweredPicture, Sink, Sinks
from isthmus.device.output.writers import StandardOutput, Writer, Writers
from isthmus.device.servers.servers import Servers
from isthmus.device.session import Session
from isthmus.device.signals import handle
from isthmus.device.stage_times import StageTimes
from isthmus.device.tracking.choice import policy_called
from isthmus.device.tracking.tracker import Tracker
from isthmus.models import bundle as bundles
from isthmus.models import filters, profiles
from isthmus.models.bundle import Bundle, Manifest
from isthmus.proto.errors import ConfigError
from isthmus.proto.fates import RunEnd
from isthmus.proto.operations import heap
from isthmus.proto.operations.notify import service_manager
from isthmus.proto.operations.version import version
from isthmus.proto.record import FrameRecord, RunHeader
from isthmus.proto.tasks import WITHOUT_CLASSES
from isthmus.proto.vocabulary import Answer, Reason

if TYPE_CHECKING:
    from isthmus.device.certificates import Certificates
    from isthmus.device.servers.uplinks import Uplinks

DEFAULT_FPS = 10.0
"""The pace of a source that has none, as a folder of pictures."""
SWITCH_S = 0.0005
"""How long a thread that computes in Python may keep the event loop waiting; the interpreter's 5 ms are a deadline's guard."""

OnRecord = Callable[[FrameRecord], None]
OnEnd = Callable[[RunEnd], None]
Answering = Callable[[Host], Coroutine[None, None, None]]
"""What gives a host its pictures until they end."""


@dataclass(frozen=True)
class Opened:
    """A device that is ready to answer: configuration, certificates, bundle and head."""

    config: AgentConfig
    certificates: Certificates | None
    bundle: Bundle
    executor: Executor
    energy: EnergyCost | None


def open_device(config: AgentConfig) -> Opened:
    """Load and warm up all that an agent needs. Raises ConfigError, SecurityError, BundleError."""
    outside.factory(config.policy)
    energy = None
    if config.watts is not None:
        energy = EnergyCost.of(profiles.load(config.watts), config.radio, config.energy_weight)
    certificates = _certificates(config)
    bundle = bundles.load(config.bundle, half="head")
    neural_filter = None
    if config.filter is not None:
        neural_filter = NeuralFilter(filters.load(Path(config.filter)), bundle.manifest, threads=config.threads)
    if config.as_device is None:
        executor = Executor(bundle, threads=config.threads, neural_filter=neural_filter)
    else:
        from isthmus.device.as_device import PacedExecutor  # reads graphs, which not every runtime brings the means for

        executor = PacedExecutor.of(bundle, config.as_device, threads=config.threads, neural_filter=neural_filter)
    return Opened(config, certificates, bundle, executor, energy)


def wish_of(config: AgentConfig) -> Wish:
    """What a configuration asks of its source."""
    return Wish(None if config.size is None else size_of(config.size), config.fps)


async def run_agent(config: AgentConfig, *, command: str = "", text: bool = False) -> None:
    """Run an agent to the end of its source or to SIGTERM, one line of JSON (or `text`) for every answer on standard output.

    Raises ConfigError, BundleError, SourceError, SecurityError, HandshakeError, DataError: each names the thing and the
    way out.
    """
    sys.setswitchinterval(SWITCH_S)
    device = open_device(config)
    source = opened(config.source, device.bundle.manifest.labels, wish_of(config), config.rotate)
    if config.preview is not None:
        source = Previewed(source, Path(config.preview))
    period_s = _period_s(config, source)
    pace_fps = 1 / period_s if period_s else source.fps or 0.0
    own = [*recorded(device, pace_fps, command), StandardOutput(sys.stdout.fileno(), text=text)]
    with contextlib.closing(Writers(own)) as writers:
        fps = config.fps or source.fps or DEFAULT_FPS
        sinks = sinks_of(config, device.bundle.manifest, fps)
        await answer_all(device, source, writers.write, sinks=sinks, on_end=writers.end, signals=True)
        writers.check()


async def answer_all(
    device: Opened,
    source: Source,
    on_answer: OnRecord,
    *,
    sinks: Sequence[Sink] = (),
    on_end: OnEnd | None = None,
    signals: bool = False,
) -> None:
    """Answer every frame of `source`; with `signals`, SIGTERM ends it early and SIGHUP reads certificates anew.

    `on_answer` is waited for; what it raises (IsthmusError, OSError) is raised here too. `sinks` are not waited for.
    `on_end` is told how many pictures came and were skipped, however it ends.
    """
    config, period_s = device.config, _period_s(device.config, source)

    def answering(host: Host) -> Coroutine[None, None, None]:
        return host.run(source, deadline_s=config.deadline_s, period_s=period_s, frames=config.frames)

    await answer_with(device, answering, on_answer, sinks=sinks, on_end=on_end, signals=signals)


async def answer_with(
    device: Opened,
    answering: Answering,
    on_answer: OnRecord,
    *,
    sinks: Sequence[Sink] = (),
    on_end: OnEnd | None = None,
    signals: bool = False,
) -> None:
    """As `answer_all`, for whoever gives the host its pictures in another way than a source does: `answering`, to its end."""
    manifest, insight = device.bundle.manifest, _insight(device)
    shown = Sinks(sinks, insight)

    def tell(answered: AnsweredFrame) -> None:
        row = _record(answered, manifest)
        on_answer(row)
        pixels = answered.taken.picture.pixels
        shown.offer(AnsweredPicture(row, pixels, answered.link, answered.answer, answered.sent_crc))

    host, manager = Host(insight.session, device.executor, tell), service_manager()
    uplinks = _uplinks(device, host)

    def stop() -> None:
        manager.stopping()
        host.stop()

    if signals:
        handle(stop, _nothing if uplinks is None else uplinks.reload)
    try:
        async with shown, _looking(device, host):
            if signals:
                heap.freeze()
                manager.ready(f"answering with {manifest.name}")
            await _beside(answering(host), host, uplinks)
    finally:
        manager.close()
        if on_end is not None:
            on_end(_ended(host))


def _ended(host: Host) -> RunEnd:
    skipped = host.skipped
    return RunEnd(
        ended=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        captured=host.captured,
        skipped_stale=skipped.stale,
        skipped_rate=skipped.rate,
    )


def _nothing() -> None:
    """What there is to read anew without a server."""


def _period_s(config: AgentConfig, source: Source) -> float:
    if source.live and config.fps is None:
        return 0.0
    return 1 / (config.fps or source.fps or DEFAULT_FPS)


def _insight(device: Opened) -> Insight:
    catalogue = Catalogue.from_manifest(device.bundle.manifest)
    measured = measure_stages(device.executor, device.bundle)
    profile_s = [[measured[stage, width] for width in catalogue.widths] for stage in range(catalogue.stages)]
    config = device.config
    if config.on_time is not None and catalogue.ageing is not None:
        raise ConfigError(
            f"on_time: {config.bundle} tracks what it sees, and late answers are of use there; leave it out"
        )
    times = StageTimes(profile_s, measure_coding(device.executor, device.bundle))
    session = Session(
        catalogue,
        policy_called(config.policy, catalogue),
        times,
        gate=None if config.gate is None else Gate(config.gate, config.gate_age_s),
        filtered=config.filter is not None,
        tracker=None if catalogue.ageing is None else Tracker(),
        servers=Servers(config.servers, chance=random.Random()),
        kept=KeptShare(config.on_time),
        energy=device.energy,
    )
    return Insight(session, times, catalogue)


def _certificates(config: AgentConfig) -> Certificates | None:
    if not (config.servers or config.discover):
        return None
    from isthmus.device.servers.reaching import certificates_of

    return certificates_of(config)


def _uplinks(device: Opened, host: Host) -> Uplinks | None:
    if not (device.config.servers or device.config.discover):
        return None
    from isthmus.device.servers.reaching import uplinks_of

    host.uplink = uplinks = uplinks_of(device.config, device.bundle, device.certificates, host)
    host.connect()
    return uplinks


def _looking(device: Opened, host: Host) -> AbstractAsyncContextManager[None]:
    """Finds more servers, where that is asked for. Raises ConfigError where it cannot."""
    if not device.config.discover:
        return contextlib.nullcontext()
    try:
        from isthmus.device.servers.discovery import looking
    except ImportError as error:
        raise ConfigError(f"discover: {error.name} is not installed; this needs the 'discovery' extra") from error
    return looking(device.bundle.sha256, host)


async def _beside(answering: Coroutine[None, None, None], host: Host, uplinks: Uplinks | None) -> None:
    """Answer to the end, with the uplinks at work beside; a refusal of the first hello, by all, ends the agent."""
    tasks: set[asyncio.Future[None]] = {asyncio.ensure_future(answering), host.broken}
    if uplinks is not None:
        tasks.add(asyncio.ensure_future(uplinks.run()))
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        host.stop()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _record(answered: AnsweredFrame, manifest: Manifest) -> FrameRecord:
    return FrameRecord.from_answer(
        answered.taken.frame,
        answered.answer,
        answered.local,
        goodput_Bps=answered.goodput_Bps,
        picture=answered.taken.picture.name,
        captured_unix_s=round(answered.taken.unix_s, 3),
        skipped=answered.taken.skipped,
        answer_name=_named(answered.answer, manifest),
    )


def _named(answer: Answer, manifest: Manifest) -> str | None:
    if answer.label is None:
        return "nothing of interest" if answer.reason is Reason.NOTHING else None
    return None if manifest.task in WITHOUT_CLASSES else manifest.name_of(answer.label)


def recorded(device: Opened, fps: float, command: str) -> list[Writer]:
    """The record, if one is configured; `fps` is the source's pace, 0 where it has none. Raises DataError."""
    config = device.config
    if config.record is None:
        return []
    limits = Limits(config.record_file_bytes, config.record_age_s, config.record_total_bytes)
    return [History(Path(config.record), _header(device, fps, command), limits)]


def _header(device: Opened, fps: float, command: str) -> RunHeader:
    config, bundle = device.config, device.bundle
    return RunHeader(
        kind="live",
        bundle=bundle.manifest.name,
        bundle_sha256=bundle.sha256.hex(),
        policy=config.policy,
        profile=config.as_device,
        deadline_s=config.deadline_s,
        fps=fps,
        command=public(command),
        version=version(),
        started=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        host={"machine": platform.machine(), "system": platform.system(), "python": platform.python_version()},
    )
