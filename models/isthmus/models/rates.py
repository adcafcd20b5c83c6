"""Fits a profile's rates on its timings: non-negative least squares of the relative error, and its leave-one-out error.

Pure; numpy only. Overheads and bandwidths are physical: a negative one would only be noise that helps the fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import msgspec
import numpy as np
from numpy.typing import NDArray

from isthmus.models.profiles import Int8, Profile, Rates, Threads
from isthmus.proto.errors import DataError

DEVICE_TERMS, SERVER_TERMS = ("op_s", "flop_s", "byte_s"), ("call_s", "flop_s")
"""A call's constant would fit a board's large networks by tens of milliseconds, which no small stage takes; a server's
calls differ in their batch, which tells the constant apart."""


def non_negative(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """The x >= 0 with the least |a x - b|^2; `a` (N, K), `b` (N,), of like magnitudes, K small.

    Exact: the best of all sets of positive unknowns (Lawson and Hanson 1974 search the same sets, one at a time).
    """
    k = a.shape[1]
    best, least = np.zeros(k), float(b @ b)
    for chosen in (list(c) for n in range(1, k + 1) for c in combinations(range(k), n)):
        x = np.linalg.lstsq(a[:, chosen], b, rcond=None)[0]
        error = float(np.sum((a[:, chosen] @ x - b) ** 2))
        if (x >= 0).all() and error < least - 1e-12:
            best, least = np.zeros(k), error
            best[chosen] = x
    return best


def left_out(work: NDArray[np.float64], seconds: NDArray[np.float64], workloads: Sequence[str]) -> dict[str, float]:
    """The relative error (predicted / true - 1) of each workload in a fit without it; its worst timing counts."""
    errors: dict[str, float] = {}
    for name in dict.fromkeys(workloads):
        out = np.array([w == name for w in workloads])
        if out.all():
            raise DataError(f"timings: only '{name}' was timed; a fit needs at least two workloads")
        x = _fitted(work[~out], seconds[~out])
        off = work[out] @ x / seconds[out] - 1
        errors[name] = float(off[np.abs(off).argmax()])
    return errors


def _fitted(work: NDArray[np.float64], seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    scale = np.maximum(np.abs(work).max(axis=0), 1e-300)  # FLOPs in the thousands of millions beside a count of one
    found: NDArray[np.float64] = non_negative(work / scale / seconds[:, None], np.ones(len(seconds))) / scale
    return found


def table(
    profile: Profile, threads: Threads, terms: Sequence[str], *, int8: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.float64], list[str]]:
    """The timings on so many threads: work (N, len(terms)), seconds (N,), workloads."""
    timings = [t for t in profile.timings if t.threads == threads and t.int8 == int8]
    rows = []
    for t in timings:
        cost = profile.cost(t.workload)
        units = {
            "call_s": 1,
            "op_s": cost.ops,
            "flop_s": t.batch * cost.flops,
            "byte_s": t.batch * cost.traffic_bytes,
        }
        rows.append([units[term] for term in terms])
    return np.array(rows, float), np.array([t.seconds for t in timings]), [t.workload for t in timings]


def fit(profile: Profile, *, source: str) -> tuple[Profile, dict[Threads, dict[str, float]]]:
    """`profile` with rates fitted on its timings, and the left-out error of each workload by number of threads.

    `source` is the key of `sources` that says what made the fit. Raises DataError when too little was timed.
    """
    terms = SERVER_TERMS if profile.kind == "server" else DEVICE_TERMS
    fitted, errors = [], {}
    for threads in dict.fromkeys(t.threads for t in profile.timings if not t.int8):
        work, seconds, workloads = table(profile, threads, terms)
        errors[threads] = left_out(work, seconds, workloads)
        off = np.abs(list(errors[threads].values()))
        found = {term: float(f"{x:.4g}") for term, x in zip(terms, _fitted(work, seconds), strict=True)}
        rates = Rates(
            threads=threads,
            flop_s=found.pop("flop_s"),
            left_out_median=round(float(np.median(off)), 3),
            left_out_worst=round(float(off.max()), 3),
            source=source,
            confidence="estimate",
            **found,
        )
        fitted.append(rates)
    if not fitted:
        raise DataError(f"profile {profile.name}: no float32 timings to fit rates on")
    return msgspec.structs.replace(profile, rates=tuple(fitted)), errors


def int8_factors(profile: Profile, *, source: str) -> tuple[Int8, ...]:
    """The factors of int8's time over what the fitted float32 rates say, by number of threads: medians of what was timed."""
    found = []
    for threads in dict.fromkeys(t.threads for t in profile.timings if t.int8):
        work, seconds, _ = table(profile, threads, DEVICE_TERMS, int8=True)
        rates = next(r for r in profile.rates if r.threads == threads)
        ratios = seconds / (work @ [getattr(rates, term) for term in DEVICE_TERMS])
        factor = float(f"{np.median(ratios):.3g}")
        found.append(Int8(threads=threads, factor=factor, source=source, confidence="estimate"))
    return tuple(found)
