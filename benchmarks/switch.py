"""What it costs to switch the head's width between two frames, and what the executor adds to the bare interpreter.

Prints one JSON object. Every figure compares variants interleaved in this one run, by the time that the calling thread had
the processor: the difference of two p99s on the wall, each milliseconds of other people's work, decides nothing. It
runs on one thread: what LiteRT's further threads take is not the caller's.

    python benchmarks/switch.py [--bundle signs] [--rounds 400]
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from isthmus.device.executor import Executor
from isthmus.models import bundle as bundles
from isthmus.models.bundle import Bundle
from isthmus.models.litert import Signature

BLOCKS = 7


def timed(call: Callable[[], Any]) -> float:
    """Microseconds of the calling thread's processor time."""
    began = time.thread_time()
    call()
    return (time.thread_time() - began) * 1e6


def open_all(bundle: Bundle, threads: int) -> dict[tuple[int, float], Callable[[], Any]]:
    """Every signature of one interpreter, warm, each with an input of its own shape."""
    interpreter = Interpreter(str(bundle.head_path), num_threads=threads)
    calls: dict[tuple[int, float], Callable[[], Any]] = {}
    for i, stage in enumerate(bundle.manifest.stages):
        for s in stage:
            details = interpreter.get_signature_runner(s.signature).get_input_details()
            inputs = {k: np.random.default_rng(0).random(d["shape"], np.float32) for k, d in details.items()}
            calls[i, s.width] = partial(Signature(interpreter, s.signature).stored, **inputs)
    return calls


def switching(bundle: Bundle, rounds: int, threads: int) -> dict[str, float]:
    """What a first stage takes more (µs) after another width than after the same one: medians of blocks.

    Each block takes its quantiles of both on the same minute of the machine.
    """
    calls, order = open_all(bundle, threads), random.Random(0)
    gaps = [_block(bundle, calls, order, rounds) for _ in range(BLOCKS)]
    return {name: float(np.median([gap[name] for gap in gaps])) for name in gaps[0]}


def _block(
    bundle: Bundle, calls: dict[tuple[int, float], Callable[[], Any]], order: random.Random, rounds: int
) -> dict[str, float]:
    widths = bundle.manifest.widths
    same: dict[float, list[float]] = {w: [] for w in widths}
    after: dict[float, list[float]] = {w: [] for w in widths}
    before = widths[0]
    for _ in range(rounds * len(widths) * 2):
        width = order.choice([before, order.choice(widths)])
        (same if width == before else after)[width].append(timed(calls[0, width]))
        before = width
    gap = {q: float(np.mean([quantile(after[w], q) - quantile(same[w], q) for w in widths])) for q in (0.5, 0.99)}
    return {"p50_us": gap[0.5], "p99_us": gap[0.99]}


def reloading(bundle: Bundle, threads: int, rounds: int = 15) -> float:
    """What a frame costs more (µs, median) when its interpreter is loaded for it."""
    width, warm = bundle.manifest.widths[-1], open_all(bundle, threads)
    name = bundle.stage(0, width).signature
    size = bundle.manifest.input.size
    image = np.zeros((1, size, size, 3), np.float32)

    def reload() -> None:
        Interpreter(str(bundle.head_path), num_threads=threads).get_signature_runner(name)(image=image)

    extra = [timed(reload) - timed(warm[0, width]) for _ in range(rounds)]
    return float(np.median(extra))


def overhead(bundle: Bundle, rounds: int) -> dict[str, float]:
    """What the executor adds to each stage (µs, median): input, guess, size prediction and bookkeeping."""
    executor, bare = Executor(bundle), open_all(bundle, 1)
    size = bundle.manifest.input.size
    pixels = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    found: dict[str, float] = {}
    for width in (bundle.manifest.widths[0], bundle.manifest.widths[-1]):
        for stage in range(len(bundle.manifest.stages)):
            extra = []
            for _ in range(rounds):
                executor.hold(0, pixels)
                for earlier in range(stage):
                    executor.job(0, earlier, width)()
                job = executor.job(0, stage, width)
                extra.append((timed(job), timed(bare[stage, width])))
            full, base = np.array(extra).T  # side by side, so that both met the same machine
            found[f"stage{stage + 1}_w{width:g}"] = float(np.median(full - base))
    return found


def quantile(values: list[float], q: float) -> float:
    return float(np.quantile(values, q))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", default="signs")
    parser.add_argument("--rounds", type=int, default=400)
    arguments = parser.parse_args()
    bundle = bundles.load(arguments.bundle)
    switch, reload_us = switching(bundle, arguments.rounds, 1), reloading(bundle, 1)
    added = overhead(bundle, arguments.rounds // 2)
    share = switch["p50_us"] / reload_us
    result = {
        "bundle": arguments.bundle,
        "clock": "thread CPU time, one thread",
        "switch_us": switch,
        "reload_us": reload_us,
        "switch_share_of_reload": share,
        "executor_overhead_us": added,
        "met": {
            "switch_p99_below_100_us": switch["p99_us"] < 100,
            "switch_below_1_percent_of_reload": share < 0.01,
            "executor_overhead_at_most_60_us_a_stage": max(added.values()) <= 60,
        },
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
