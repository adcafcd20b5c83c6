"""Traces that are made, not recorded: five generators, and the recipes of the traces that are shipped. Pure and seeded.

Every file in `shipped/` is `to_csv` of its recipe below, and a test makes them all again and compares. They have the
shape of their kind of link (see each recipe); for claims about a real network use recordings of it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from isthmus.emulation.traces import BYTES_PER_MBIT, Floats, Trace


def constant(*, up_mbps: float, down_mbps: float, rtt_ms: float, length_s: float = 60.0, loss: float = 0.0) -> Trace:
    """One rate and one delay throughout."""
    return steps([(length_s, up_mbps, down_mbps, rtt_ms)], loss=loss)


def steps(rows: Sequence[tuple[float, float, float, float]], *, loss: float = 0.0) -> Trace:
    """Rows of (seconds that it holds, up Mbit/s, down Mbit/s, rtt ms), cut into equal parts of at most a second."""
    table = np.array(rows, dtype=float)
    parts = np.ceil(table[:, 0]).astype(int)
    if table[-1, 0] != parts[-1]:
        parts[-1] = max(2, parts[-1])  # a trace's last row holds as long as the row before it
    table[:, 0] /= parts
    seconds, up, down, rtt_ms = np.repeat(table, parts, axis=0).T
    return _trace(seconds, up, down, rtt_ms, loss)


def sinusoid(
    *,
    mean_mbps: float,
    swing: float,
    period_s: float,
    rtt_ms: float,
    length_s: float,
    step_s: float = 0.5,
    loss: float = 0.0,
    noise: float = 0.0,
    seed: int = 0,
) -> Trace:
    """Up swings by `swing` (0 to 1) of its mean, down is four times that: a cell whose load comes and goes.

    `noise` is the standard deviation of a Gaussian, as a share of the mean, added to each step; no rate is below 0.
    """
    time_s = np.arange(0.0, length_s, step_s)
    rng = random.Random(seed)
    wander = np.array([rng.gauss(0.0, noise) if noise else 0.0 for _ in time_s])
    up = np.maximum(mean_mbps * (1 + swing * np.sin(2 * math.pi * time_s / period_s) + wander), 0.0)
    return _trace(np.full_like(time_s, step_s), up, 4 * up, np.full_like(time_s, rtt_ms), loss)


def on_off(
    *,
    up_mbps: float,
    down_mbps: float,
    on_s: float,
    off_s: float,
    rtt_ms: float,
    length_s: float,
    seed: int,
    step_s: float = 0.1,
    loss: float = 0.0,
) -> Trace:
    """A link that is there for `on_s` in the mean and gone for `off_s`: a two-state Markov chain in steps of `step_s`."""
    rng = random.Random(seed)
    leave = {True: min(1.0, step_s / on_s), False: min(1.0, step_s / off_s)}
    on, states = True, []
    for _ in range(round(length_s / step_s)):
        states.append(on)
        on = on != (rng.random() < leave[on])
    there = np.array(states, dtype=float)
    return _trace(np.full_like(there, step_s), there * up_mbps, there * down_mbps, np.full_like(there, rtt_ms), loss)


def markov(
    states_mbps: Sequence[float],
    *,
    stay: float,
    rtt_ms: tuple[float, float],
    length_s: float,
    seed: int,
    step_s: float = 0.1,
    loss: float = 0.0,
) -> Trace:
    """Up walks between neighbouring states, staying with probability `stay` a step, and wanders ±20 % within one.

    Down is four times up. The delay lies between `rtt_ms`'s two, the longer the lower the rate.
    """
    rows = round(length_s / step_s)
    rng = random.Random(seed)  # its sequence is promised for ever, numpy's is not
    keep, turn, strength, lateness = np.array([[rng.random() for _ in range(rows)] for _ in range(4)])
    moves = np.where(keep < stay, 0, np.where(turn < 0.5, -1, 1)).tolist()
    state, last = len(states_mbps) // 2, len(states_mbps) - 1
    walk = np.array([state := min(max(state + move, 0), last) for move in moves])
    up = np.array(states_mbps)[walk] * (0.8 + 0.4 * strength)
    slowness = np.clip(1 - walk / max(1, last) + 0.4 * (lateness - 0.5), 0, 1)
    delay = rtt_ms[0] + (rtt_ms[1] - rtt_ms[0]) * slowness
    return _trace(np.full(rows, step_s), up, 4 * up, delay, loss)


def joined(*traces: Trace) -> Trace:
    """One after the other, each for its whole length."""
    starts = np.cumsum([0.0, *(trace.length_s for trace in traces[:-1])])

    def column(name: str) -> Floats:
        return np.concatenate([getattr(trace, name) for trace in traces])

    time_s = np.concatenate([trace.time_s + start for trace, start in zip(traces, starts, strict=True)])
    return Trace("joined", time_s, *(column(name) for name in ("up_Bps", "down_Bps", "rtt_s", "loss")))


def demo() -> Trace:
    """72 s in five acts: wide, narrow (60–120 kbit/s), a 10-s outage both ways, recovery, and a jittery cell."""
    wide = steps([(15, 8, 20, 20)])
    narrow = steps([(2, 0.12, 0.6, 45), (3, 0.06, 0.4, 60), (3, 0.09, 0.5, 55), (2, 0.06, 0.4, 60), (2, 0.11, 0.6, 45)])
    outage = steps([(10, 0, 0, 60)])
    recovery = steps([(2, 1, 4, 40), (3, 4, 12, 30), (5, 8, 20, 20)])
    cell = markov((0.1, 0.3, 0.8, 2, 5), stay=0.85, rtt_ms=(25, 60), length_s=25, seed=3, step_s=0.25)
    return joined(wide, narrow, outage, recovery, cell)


def lte_drive() -> Trace:
    """120 s of a car in an LTE cell: 0.2–12 Mbit/s up, changing each 100 ms, two handovers of 1 s without a link."""
    states = (0.2, 0.8, 2, 5, 9, 12)
    legs = [markov(states, stay=0.9, rtt_ms=(35, 110), length_s=t, seed=s) for t, s in ((45, 11), (38, 12), (35, 13))]
    handover = steps([(1, 0, 0, 110)])
    return joined(legs[0], handover, legs[1], handover, legs[2])


def wifi_roam() -> Trace:
    """90 s of a walk away from an access point and over to the next: wide, fading, 2 s without a link, wide again."""
    fading = [
        (3.0, rate, 2 * rate, 5 + 60 / rate) for rate in (40, 38, 30, 22, 15, 9, 5, 3, 2, 1.2, 0.8, 0.5, 0.4, 0.3)
    ]
    return steps([(20, 40, 80, 5), *fading, (2, 0, 0, 60), (26, 40, 80, 5)])


def nb_iot() -> Trace:
    """120 s of a narrow-band meter's link: 16–60 kbit/s up, half a second and more of delay."""
    return markov((0.016, 0.03, 0.045, 0.06), stay=0.7, rtt_ms=(500, 1500), length_s=120, seed=21, step_s=1.0)


def satellite() -> Trace:
    """120 s of a geostationary link shared with others: 0.5–3.5 Mbit/s up in a slow swing, 600 ms, 0.5 % loss."""
    return sinusoid(mean_mbps=2, swing=0.75, period_s=40, rtt_ms=600, length_s=120, loss=0.005)


def ble() -> Trace:
    """120 s of Bluetooth through a house: 8–100 kB/s up by distance and walls, two connection intervals of delay."""
    return markov((0.064, 0.16, 0.32, 0.56, 0.8), stay=0.9, rtt_ms=(30, 120), length_s=120, seed=31, step_s=0.5)


def lora() -> Trace:
    """300 s of a LoRa gateway whose spreading factor follows the distance (SF12 to SF7): 0.25–5.5 kbit/s up."""
    return markov(
        (0.00025, 0.00054, 0.00098, 0.00176, 0.0031, 0.0055),
        stay=0.9,
        rtt_ms=(400, 2500),
        length_s=300,
        seed=41,
        step_s=5.0,
    )


def mmwave() -> Trace:
    """90 s of a walk past a 5G mmWave site: 60–180 Mbit/s in sight, and bodies that block it wholly for half a second."""
    sight = markov((60, 110, 180), stay=0.9, rtt_ms=(12, 30), length_s=90, seed=51, step_s=0.1)
    there = on_off(up_mbps=1, down_mbps=1, on_s=4, off_s=0.5, rtt_ms=12, length_s=90, seed=52).up_Bps > 0
    return replace(sight, up_Bps=sight.up_Bps * there, down_Bps=sight.down_Bps * there)


def umts() -> Trace:
    """180 s of a bus in a 3G cell: 30 kbit/s to 1.4 Mbit/s up, a fifth of a second of delay, tunnels of 2 to 4 s."""
    states = (0.03, 0.1, 0.25, 0.5, 0.9, 1.4)
    legs = [markov(states, stay=0.92, rtt_ms=(90, 300), length_s=t, seed=s) for t, s in ((60, 61), (70, 62), (44, 63))]
    return joined(legs[0], steps([(4, 0, 0, 300)]), legs[1], steps([(2, 0, 0, 300)]), legs[2])


RECIPES: Mapping[str, Callable[[], Trace]] = {
    "ble": ble,
    "demo": demo,
    "lora": lora,
    "lte-drive": lte_drive,
    "mmwave": mmwave,
    "nb-iot": nb_iot,
    "satellite": satellite,
    "umts": umts,
    "wifi-roam": wifi_roam,
}


def _trace(seconds: Floats, up_mbps: Floats, down_mbps: Floats, rtt_ms: Floats, loss: float) -> Trace:
    time_s = np.concatenate([[0.0], np.cumsum(seconds)[:-1]])
    return Trace(
        "synthetic",
        time_s,
        up_mbps * BYTES_PER_MBIT,
        down_mbps * BYTES_PER_MBIT,
        rtt_ms / 1e3,
        np.full_like(time_s, loss, dtype=float),
    )
