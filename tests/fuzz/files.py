"""What is read from files, as a target of the search: bytes in; a value whose form is checked, or an IsthmusError.

Imports are within the functions: only what is under test is watched, and only it is paid for.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import tempfile
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.proto.errors import IsthmusError


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
    """A .tflite as `models split` reads it: what would kill LiteRT is refused before.

    From then on this process tries every file in a fork, which is only right for one that does nothing else.
    """
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
    from isthmus.emulation import run_summary
    from isthmus.proto import record

    path = _file("run.jsonl.zst" if data[:1] == b"\1" else "run.jsonl", data[1:])
    try:
        run = record.load(path)
    except IsthmusError:
        return
    summary = run_summary.summary(run.records)
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
