"""A target for every parser: bytes in; an IsthmusError comes out, or a value whose form is checked. Anything else is a finding.

Imports are within the functions: only what is under test is watched, and only it is paid for.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import struct
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.proto.errors import IsthmusError

Target = Callable[[bytes], None]


@dataclass(frozen=True)
class Fuzzed:
    """A parser: what is done with the bytes, what the search begins with."""

    run: Target
    seeds: Callable[[], Iterator[bytes]]
    longest_bytes: int = 4096


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="fuzz")


def _scratch() -> Path:
    """A folder for what is read from files; gone with this process."""
    return Path(_folder().name)


def _file(name: str, content: bytes) -> Path:
    path = _scratch() / name
    path.write_bytes(content)
    return path


# --- codec ---


@cache
def _codecs() -> list[Any]:
    """Static, static of five layers, zstd, spectral: every backend and both packings."""
    from isthmus.models import bundle
    from isthmus.proto.codec import Codec, fit

    rng = np.random.default_rng(0)

    def fitted(*shape: int, layers: int = 2) -> Any:
        samples = rng.normal(size=(16, *shape)).astype(np.float32)
        return Codec(fit(samples, (0.0,) * shape[-1], (0.5, 1.0), layers=layers))

    shipped = [Codec(bundle.load(name, half="head").codec) for name in ("signs", "cifar10")]
    return [*shipped, fitted(4, 4, 8), fitted(6, 6, 3, layers=5), fitted(40, 40, 24), _spectral()]


def _spectral() -> Any:
    from isthmus.proto.codec import Codec, fit
    from isthmus.proto.spectrum import Spectrum

    shape, steps = (4, 4, 3), (0.25, 1.0)
    samples = np.random.default_rng(1).normal(size=(32, *shape)).astype(np.float32)
    spectrum = Spectrum(
        tilt=0.5,
        order="".join(f"{(i // 3) % 16:x}" for i in range(48)),
        bands=(((12, 5), (20, 3), (16, 3)),) * 2,
        floor=(-4.0,) * 3,
        spread=(1.0,) * 3,
        restored=(((1.0, 0.0),) * 3,) * 2,
    )
    return Codec(fit(samples, (0.0,) * 3, steps, spectrum=spectrum))


def codec(data: bytes) -> None:
    """First byte: which codec. Then payloads, each behind its length."""
    from isthmus.proto.errors import CodecError

    coder = _codecs()[data[0] % len(_codecs())] if data else _codecs()[0]
    payloads, rest = [], data[1:]
    while rest:
        size = int.from_bytes(rest[:2], "little")
        payloads.append(rest[2 : 2 + size])
        rest = rest[2 + size :]
    try:
        features = coder.decode(payloads)
    except CodecError:
        return
    config = coder.config
    assert features.shape == (config.height, config.width, config.channels)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()


def codec_seeds() -> Iterator[bytes]:
    rng = np.random.default_rng(2)
    for number, coder in enumerate(_codecs()):
        config = coder.config
        features = rng.normal(size=(config.height, config.width, config.channels)).astype(np.float32)
        for step in range(len(config.steps)):
            payloads = coder.encode(features, step)
            for count in range(1, len(payloads) + 1):
                yield bytes([number]) + b"".join(len(p).to_bytes(2, "little") + p for p in payloads[:count])


# --- wire ---


def wire(data: bytes) -> None:
    """First byte: who speaks."""
    from google.protobuf.message import DecodeError

    from isthmus.proto import edge_pb2 as pb
    from isthmus.proto import wire

    from_device = not data or data[0] % 2 == 0
    try:
        message: Any = (pb.DeviceMessage if from_device else pb.ServerMessage).FromString(data[1:])
    except DecodeError:
        message = None
    with contextlib.suppress(IsthmusError):
        if hasattr(wire, "read_server") and not from_device:
            _sane(wire.read_server(data[1:], wire.Expected(layers=2, max_layer_bytes=100)))
        if message is not None:
            read = wire.from_device_pb(message) if from_device else wire.from_server_pb(message)
            back: Any = wire.to_device_pb if from_device else wire.to_server_pb
            assert type(wire.from_device_pb(back(read)) if from_device else wire.from_server_pb(back(read))) is type(
                read
            )


def _sane(message: Any) -> None:
    """Every number of a message is one that a session can count with."""
    for name in message.__struct_fields__:
        value = getattr(message, name)
        if isinstance(value, float):
            assert 0 <= value < 1e5, (name, value)


def wire_seeds() -> Iterator[bytes]:
    from isthmus.proto import messages as m
    from isthmus.proto import wire
    from isthmus.proto.vocabulary import Load, ServerTimings

    load = Load(3, 0.01, 0.002)
    device: list[m.DeviceMessage] = [
        m.Hello("signs", bytes(32), 1, "cam0"),
        m.Layer(7, 1, True, 0.1, b"abc", 5),
        m.Cancel(7),
        m.Heartbeat(1),
    ]
    server: list[m.ServerMessage] = [
        m.Welcome("edge", 8, 65_536, load),
        m.Ack(7, 1, load),
        m.Result(7, 2, (0.5, -1.0), ServerTimings(0.1, 0.2, 0.3, 0.4), load),
        m.Result(7, 1, b"packed", ServerTimings(), load),
        m.Late(7, load),
        m.Busy(7, 0.1, m.Hint.NARROWER, load),
        m.Invalid(7, 1, "why", load),
        m.Drain(5.0, load),
        m.ServerHeartbeat(3, load),
    ]
    yield from (b"\0" + wire.to_device_pb(message).SerializeToString() for message in device)
    yield from (b"\1" + wire.to_server_pb(message).SerializeToString() for message in server)


# --- tasks ---


@cache
def _tasks() -> list[tuple[str, Any]]:
    from isthmus.proto.tasks import TASKS

    return list(TASKS.items())


def tasks(data: bytes) -> None:
    """First byte: which task, and whether plain numbers or packed bytes come."""
    if not data:
        return
    made = _tasks()
    task: Any = made[data[0] % len(made)][1]
    try:
        task = task(classes=5)
    except TypeError:
        task = task()
    body = data[1:]
    floats = struct.unpack(f"<{len(body) // 4}f", body[: len(body) // 4 * 4])
    for packed in (body, floats):
        try:
            guess = task.guess(packed, temperature=0.7, accuracy=0.5)
        except (ValueError, IsthmusError):
            continue
        assert isinstance(guess.label, int)
        assert math.isfinite(guess.confidence)
        task.agreement(guess, guess)


def tasks_seeds() -> Iterator[bytes]:
    rng = np.random.default_rng(3)
    classes, many = rng.normal(size=5).astype(np.float32), rng.normal(size=1000).astype(np.float32)
    boxes = [rng.random((6, 4), np.float32), np.arange(6.0, dtype=np.float32), rng.random(6, np.float32)]
    outputs: dict[str, list[list[Any]]] = {
        "segmentation": [[rng.integers(0, 3, (8, 8)).astype(np.uint8)]],
        "detection": [boxes, [*boxes, np.array([2.0])]],
    }
    for number, (name, make) in enumerate(_tasks()):
        for each in outputs.get(name, [[classes], [many]]):
            packed = make().pack(each)
            yield bytes([number]) + (packed if isinstance(packed, bytes) else struct.pack(f"<{len(packed)}f", *packed))


# --- bundle ---


def bundle(data: bytes) -> None:
    """A bundle.toml, as far as a device and a server use it."""
    from isthmus.device.catalogue import Catalogue
    from isthmus.models.bundle import Bundle, _parse
    from isthmus.proto.codec import Codec

    with contextlib.suppress(IsthmusError):
        opened = Bundle(_scratch(), _parse(_scratch() / "bundle.toml", data), bytes(32))
        catalogue = Catalogue.from_manifest(opened.manifest)
        assert catalogue.stages == len(opened.manifest.stages)
        _ = opened.manifest.answers, opened.manifest.name_of(0)
        coder = Codec(opened.codec)
        assert coder.max_layer_bytes > 0


def bundle_seeds() -> Iterator[bytes]:
    from isthmus.models import bundle

    for name in ("signs", "cifar10"):
        yield (bundle.find(name) / "bundle.toml").read_bytes()
    yield _small_bundle()


def _small_bundle() -> bytes:
    """The shortest that there is, where every mutation meets something that matters."""
    from isthmus.proto.codec import fit

    rng = np.random.default_rng(4)
    config = fit(rng.normal(size=(8, 2, 2, 2)).astype(np.float32), (0.0, 0.0), (0.5,))
    tables = [["".join(f"{length:x}" for length in table) for table in row] for row in config.tables]
    return f"""schema = 3
name = "tiny"
task = "classification"
labels = ["a", "b"]
widths = [1.0]
stages = [[{{width = 1.0, signature = "s", flops = 3}}]]
tail_flops = 0
confidence_edges = [0.5]
points = [{{width = 1.0, exit = 0, accuracy = 0.5, accuracy_given = [[0.5, 0.6]]}},
 {{width = 1.0, step = 0, layers = 1, accuracy = 0.6, accuracy_given = [[0.5, 0.6]]}},
 {{width = 1.0, step = 0, layers = 2, accuracy = 0.7, accuracy_given = [[0.5, 0.6]]}}]
[input]
size = 8
mean = [0.0, 0.0, 0.0]
std = [1.0, 1.0, 1.0]
[bottleneck]
height = 2
width = 2
channels = 2
zero_point = [0.0, 0.0]
steps = [0.5]
tables = {json.dumps(tables)}
size_fit = {json.dumps(config.size_fit)}
[files]
"tail.onnx" = "{"0" * 64}"
""".encode()


# --- traces ---

SUFFIXES = (".csv", ".up", ".down", ".json", ".txt", ".trace", "")


def traces(data: bytes) -> None:
    """First byte: what the file is called."""
    from isthmus.emulation import traces
    from isthmus.emulation.traces import PacketTrace

    path = _file(f"trace{SUFFIXES[data[0] % len(SUFFIXES)] if data else '.csv'}", data[1:])
    try:
        trace = traces.find(path)
    except IsthmusError:
        return
    finally:
        path.unlink()
    if isinstance(trace, PacketTrace):
        assert trace.up_ms is not None or trace.down_ms is not None
    else:
        assert trace.length_s > 0
        assert np.isfinite(trace.time_s).all()


def traces_seeds() -> Iterator[bytes]:
    csv = b"time_s,up_mbps,down_mbps,rtt_ms,loss\n0,8,8,20,0\n1.5,,4,30,0.1\n3,0,1,40,1\n"
    pairs = b"0 1.25\n1 3\n2.5 0\n"
    iperf = {"start": {}, "intervals": [{"sum": {"start": i, "end": i + 1, "bits_per_second": 1e6}} for i in range(3)]}
    rows: list[tuple[int, bytes]] = [
        (0, csv),
        (0, csv.replace(b",", b";")),
        (0, b"\xef\xbb\xbf" + csv),
        (0, b"# c\n" + csv),
    ]
    rows += [(0, b"timestamp,up_kbps\n2024-01-01T00:00:00Z,5\n2024-01-01T00:00:01Z,6\n"), (6, pairs), (4, pairs)]
    rows += [(number, b"0\n1\n1\n5\n12\n") for number in (1, 2, 4, 5, 6)]
    rows += [(1, b"1432003200000\n1432003200010\n"), (3, json.dumps(iperf).encode())]
    yield from (bytes([number]) + content for number, content in rows)


# --- flatbuffer ---

TRIAL_S = 3
"""Well under the search's own limit for one input: LiteRT does not come to an end with every file."""
DEADLY = (signal.SIGALRM, signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE)


def flatbuffer(data: bytes) -> None:
    """A .tflite as `models split` reads it: what would kill LiteRT is refused before."""
    from isthmus.models import flatbuffer as parser

    trial: Any = import_module("isthmus.models.trial")
    trial.check = _forked_trial
    path = _file("graph.tflite", data)
    with contextlib.suppress(IsthmusError):
        graph = parser.read(path)
        assert graph.flops >= 0
        assert all(tensor.size_bytes >= 0 for tensor in graph.tensors)
        count = len(graph.tensors)
        assert all(0 <= index < count for op in graph.operators for index in (*op.inputs, *op.outputs))


def _forked_trial(path: Path) -> None:
    """The trial of a file in a process of its own, a hundred times quicker than with a new interpreter."""
    from isthmus.proto.errors import ModelError

    trial: Any = import_module("isthmus.models.trial")
    if (child := os.fork()) == 0:
        os.closerange(1, 3)
        for number in DEADLY:  # the search's own handlers would end the child with a code instead
            signal.signal(number, signal.SIG_DFL)
        signal.alarm(TRIAL_S)
        with contextlib.suppress(BaseException):
            trial._open(str(path))
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) < 0:
        raise ModelError(f"{path}: LiteRT dies of it, or never ends")


def flatbuffer_seeds() -> Iterator[bytes]:
    from graphs import MIDDLES, around, classifier

    yield classifier(_scratch() / "seed.tflite", size=4).read_bytes()
    for name in MIDDLES:
        yield around(_scratch() / "seed.tflite", MIDDLES[name]).read_bytes()


# --- records ---


def records(data: bytes) -> None:
    """A run's file, plain or compressed."""
    from isthmus.proto import record

    path = _file("run.jsonl.zst" if data[:1] == b"\1" else "run.jsonl", data[1:])
    try:
        run = record.load(path)
    except IsthmusError:
        return
    summary = record.summary(run.records)
    assert summary.frames == len(run.records)


def records_seeds() -> Iterator[bytes]:
    import zstandard

    header = {"kind": "live", "bundle": "b", "bundle_sha256": "", "policy": "p", "deadline_s": 0.1, "fps": 10.0}
    row = {
        "frame_id": 0,
        "captured_s": 0.0,
        "deadline_s": 0.1,
        "truth": 3,
        "label": 3,
        "confidence": 0.9,
        "source": "server",
        "reason": "returned",
        "width": 0.5,
        "answered_s": 0.05,
        "latency_s": 0.05,
        "on_time": True,
        "bytes_up": 50,
        "boxes": [{"label": 1, "score": 0.5, "top": 0.0, "left": 0.0, "bottom": 1.0, "right": 1.0}],
        "mask": {"height": 1, "width": 1, "deflated": "eJxjAAAAAQAB", "covered": {"0": 1.0}},
    }
    lines = "".join(json.dumps(line) + "\n" for line in (header, row, row)).encode()
    yield from (b"\0" + lines, b"\0" + lines[:-20], b"\1" + zstandard.compress(lines))


# --- configuration ---


def configuration(data: bytes) -> None:
    """First byte: whose."""
    from isthmus.device.config import AgentConfig
    from isthmus.edge_server.config import ServerConfig
    from isthmus.proto import config

    path = _file("role.toml", data[1:])
    agent = not data or data[0] % 2 == 0
    with contextlib.suppress(IsthmusError):
        if agent:
            assert config.load(AgentConfig, path, {}, prefix="ISTHMUS_FUZZ").threads >= 1
        else:
            assert config.load(ServerConfig, path, {}, prefix="ISTHMUS_FUZZ").threads >= 1


def configuration_seeds() -> Iterator[bytes]:
    yield b'\0bundle = "signs"\nserver = "127.0.0.1:1"\ndeadline_s = 0.1\nfps = 10\nframes = 5\ngate = 2.0\nthreads = 1\n'
    yield b'\1bundle = "signs"\nlisten = "127.0.0.1:0"\nmetrics = "[::1]:9"\nmax_batch = 8\ngrace_s = 5\ninsecure = true\n'
    yield b'\1listen = "nowhere"\n'


TARGETS: dict[str, Fuzzed] = {
    "codec": Fuzzed(codec, codec_seeds),
    "wire": Fuzzed(wire, wire_seeds),
    "tasks": Fuzzed(tasks, tasks_seeds),
    "bundle": Fuzzed(bundle, bundle_seeds, 40_000),
    "traces": Fuzzed(traces, traces_seeds),
    "flatbuffer": Fuzzed(flatbuffer, flatbuffer_seeds, 16_000),
    "records": Fuzzed(records, records_seeds),
    "configuration": Fuzzed(configuration, configuration_seeds),
}
