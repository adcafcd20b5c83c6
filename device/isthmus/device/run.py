"""From an agent's configuration to a running agent: opens the bundle, the source, the records and the transport."""

from __future__ import annotations

import asyncio
import contextlib
import platform
import sys
from collections.abc import Coroutine, Iterator
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import grpc
import msgspec

from isthmus.device.agent import Agent, Told
from isthmus.device.catalogue import Catalogue
from isthmus.device.compute import StageTimes
from isthmus.device.config import AgentConfig
from isthmus.device.executor import Executor, measure_stages
from isthmus.device.scheduler import POLICIES
from isthmus.device.session import Session
from isthmus.device.sources import open_source
from isthmus.device.transport import Transport
from isthmus.models import bundle as bundles
from isthmus.models.bundle import Bundle
from isthmus.proto import wire
from isthmus.proto.codec import CODEC_VERSION
from isthmus.proto.errors import ConfigError, SecurityError
from isthmus.proto.messages import Hello
from isthmus.proto.plan import Answer, Frame, Guess
from isthmus.proto.record import FrameRecord, Recorder, RunHeader
from isthmus.proto.security import channel_credentials


async def run_agent(config: AgentConfig, *, command: str = "") -> None:
    """Run an agent to the end of its source, writing one line of JSON for every answer to standard output.

    Raises ConfigError, BundleError, SourceError, SecurityError, HandshakeError: each names the thing and the way out.
    """
    if config.policy not in POLICIES:
        raise ConfigError(f"policy: '{config.policy}' is not one of {', '.join(POLICIES)}")
    credentials = _credentials(config)
    bundle = bundles.load(config.bundle, half="head")
    executor = Executor(bundle, threads=config.threads)
    source = open_source(config.source, bundle.manifest.labels)
    with contextlib.closing(source), _answers(config, bundle, command) as write:
        agent = Agent(_session(config, bundle, executor), executor, write)
        answering = agent.run(source, deadline_s=config.deadline_s, fps=config.fps, frames=config.frames)
        await _beside(answering, _transport(config, bundle, agent, credentials))


def _session(config: AgentConfig, bundle: Bundle, executor: Executor) -> Session:
    catalogue = Catalogue.from_manifest(bundle.manifest)
    measured = measure_stages(executor, bundle)
    profile_s = [[measured[stage, width] for width in catalogue.widths] for stage in range(catalogue.stages)]
    return Session(catalogue, POLICIES[config.policy](catalogue), StageTimes(profile_s))


def _credentials(config: AgentConfig) -> grpc.ChannelCredentials | None:
    if config.server is None or config.insecure:
        return None
    if config.certs is None:
        raise SecurityError(
            f"{config.server}: no certificates named; give --certs FOLDER (see `isthmus certs init`), "
            "or --insecure for plaintext"
        )
    return channel_credentials(config.certs)


def _transport(
    config: AgentConfig, bundle: Bundle, agent: Agent, credentials: grpc.ChannelCredentials | None
) -> Transport | None:
    if config.server is None:
        return None
    hello = Hello(bundle.manifest.name, bundle.sha256, CODEC_VERSION, config.client_id)
    limit = wire.max_message_bytes(bundle.codec)
    transport = Transport(config.server, hello, agent, max_message_bytes=limit, credentials=credentials)
    agent.uplink = transport
    return transport


async def _beside(answering: Coroutine[None, None, None], transport: Transport | None) -> None:
    """Answer to the end, with the transport at work beside; its refusal of the first hello ends the agent."""
    main = asyncio.ensure_future(answering)
    tasks: set[asyncio.Future[None]] = {main}
    if transport is not None:
        tasks.add(asyncio.ensure_future(transport.run()))
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.contextmanager
def _answers(config: AgentConfig, bundle: Bundle, command: str) -> Iterator[Told]:
    """Writes answers to standard output and, if it is configured, to the record."""
    encoder = msgspec.json.Encoder()
    with contextlib.ExitStack() as stack:
        recorder = None
        if config.record is not None:
            recorder = stack.enter_context(Recorder(Path(config.record), _header(config, bundle, command)))

        def write(frame: Frame, picture: str, answer: Answer, local: Guess | None) -> None:
            name = None if answer.label is None else bundle.manifest.name_of(answer.label)
            row = FrameRecord.from_answer(frame, answer, local, picture=picture, answer_name=name)
            sys.stdout.buffer.write(encoder.encode(row) + b"\n")
            sys.stdout.buffer.flush()
            if recorder is not None:
                recorder.write(row)

        yield write


def _header(config: AgentConfig, bundle: Bundle, command: str) -> RunHeader:
    return RunHeader(
        kind="live",
        bundle=bundle.manifest.name,
        bundle_sha256=bundle.sha256.hex(),
        policy=config.policy,
        deadline_s=config.deadline_s,
        fps=config.fps or 0.0,
        command=command,
        version=metadata.version("isthmus"),
        started=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        host={"machine": platform.machine(), "system": platform.system(), "python": platform.python_version()},
    )
