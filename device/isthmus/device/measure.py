"""Measures the machine it runs on, as a profile needs it: every stage of a bundle's head, the codec, memory, sensors.

An adapter: it reads the clock. Times are medians of calls in turn, so that a moment's load meets all of them alike.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from isthmus.device import sensors
from isthmus.device.executor import Executor, measure_stages
from isthmus.device.sensors import Reading
from isthmus.models import work
from isthmus.models.bundle import Bundle
from isthmus.models.profiles import Cost, Observation, Power, Threads, Timing
from isthmus.proto.codec import Codec

CORES = os.cpu_count() or 1
COPIED_BYTES = 64 << 20
"""Far beyond any cache of these machines."""


@dataclass(frozen=True)
class Measured:
    """What one bundle's head costs and takes here, and what the machine showed meanwhile."""

    workloads: dict[str, Cost]
    timings: tuple[Timing, ...]
    readings: tuple[Reading, ...]


def thread_counts() -> tuple[Threads, ...]:
    """The numbers of threads that differ on this machine."""
    return ("all", "one") if CORES > 1 else ("all",)


def head(bundle: Bundle, *, repeats: int, source: str, counted: str) -> Measured:
    """Time every stage at every width, on all cores and on one; `source` and `counted` explain times and work."""
    workloads, timings, readings = {}, [], []
    amounts = work.of_head(bundle)
    for (stage, width), w in amounts.items():
        workloads[_name(bundle, stage, width)] = Cost(
            flops=w.flops, traffic_bytes=w.traffic_bytes, ops=w.ops, source=counted, confidence="estimate"
        )
    for threads in thread_counts():
        executor = Executor(bundle, threads=CORES if threads == "all" else 1)
        for (stage, width), seconds in measure_stages(executor, bundle, repeats=repeats).items():
            timing = Timing(
                workload=_name(bundle, stage, width),
                threads=threads,
                int8=amounts[stage, width].int8,
                seconds=_rounded(seconds),
                source=source,
                confidence="measured",
            )
            timings.append(timing)
        readings.append(sensors.read())
    return Measured(workloads, tuple(timings), tuple(readings))


def _name(bundle: Bundle, stage: int, width: float) -> str:
    return f"{bundle.manifest.name}-{bundle.stage(stage, width).signature}"


def codec(bundle: Bundle, *, repeats: int) -> tuple[float, float]:
    """Median seconds to encode and to decode one frame's features at the middle step; Laplacian features of two steps."""
    config = bundle.codec
    step = len(config.steps) // 2
    rng = np.random.default_rng(0)
    shape = (config.height, config.width, config.channels)
    features = (rng.laplace(0, 2 * config.steps[step], shape) + np.asarray(config.zero_point)).astype(np.float32)
    it = Codec(config)
    payloads = it.encode(features, step)
    return _median_s(lambda: it.encode(features, step), repeats), _median_s(lambda: it.decode(payloads), repeats)


def memory_Bps(repeats: int = 5) -> float:
    """Bytes read and written a second by one thread that copies: the best of a few."""
    source, target = np.ones(COPIED_BYTES, np.uint8), np.empty(COPIED_BYTES, np.uint8)
    return 2 * COPIED_BYTES / min(_timed(lambda: np.copyto(target, source)) for _ in range(repeats))


def observations(bundle: Bundle, readings: tuple[Reading, ...], *, repeats: int, source: str) -> dict[str, Observation]:
    """Codec, memory, size in memory, and the worst of what the sensors showed."""
    encode_s, decode_s = codec(bundle, repeats=repeats)
    found: dict[str, float | None] = {
        "codec_encode_s": encode_s,
        "codec_decode_s": decode_s,
        "memory_Bps": memory_Bps(),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "temperature_C": max((r.temperature_C for r in readings if r.temperature_C is not None), default=None),
        "lowest_clock_share": min((r.clock_share for r in readings if r.clock_share is not None), default=None),
    }
    return {
        name: Observation(value=_rounded(value), source=source, confidence="measured")
        for name, value in found.items()
        if value is not None
    }


def power(idle: Reading, readings: tuple[Reading, ...], *, source: str) -> Power | None:
    """Power before and while measuring, where the machine shows it."""
    active = [r.power_W for r in readings if r.power_W is not None]
    if idle.power_W is None or not active:
        return None
    active_W = max(_rounded(float(np.mean(active))), idle.power_W)
    return Power(idle_W=_rounded(idle.power_W), active_W=active_W, source=source, confidence="measured")


def _median_s(call: Callable[[], Any], repeats: int) -> float:
    return float(np.median([_timed(call) for _ in range(repeats)]))


def _timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
