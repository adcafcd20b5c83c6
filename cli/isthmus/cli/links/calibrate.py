"""`isthmus emulate calibrate`: what each back end is worth on this machine, measured."""

from __future__ import annotations

import json
from dataclasses import asdict

import typer

from isthmus.cli.options import FORMAT, Format, seconds
from isthmus.emulation import traces
from isthmus.emulation.realtime import calibrate as measuring
from isthmus.emulation.realtime.backends import BACKENDS
from isthmus.emulation.realtime.calibrate import Calibration
from isthmus.proto.errors import ConfigError, LagError


def calibrate(
    backend: list[str] = typer.Option(list(BACKENDS), help="Which; repeat it for several."),
    trace: str | None = typer.Option(None, help="A trace to replay up [a walk between 5 and 40 Mbit/s]."),
    length: str = typer.Option("10s", help="How long to saturate each link."),
    lag_budget: str = typer.Option("20ms", help="How late the 99th percentile of deliveries may be."),
    format_: Format = FORMAT,
) -> None:
    """Measure each back end's goodput error and added delay; what this machine does not allow says why."""
    length_s, budget_s = seconds(length, "--length") or 10.0, seconds(lag_budget, "--lag-budget") or 0.0
    if unknown := [name for name in backend if name not in BACKENDS]:
        raise ConfigError(f"--backend: '{unknown[0]}' is not one of {', '.join(BACKENDS)}")
    replayed = measuring.walk() if trace is None else traces.find(trace)
    done: list[Calibration] = []
    absent: dict[str, str] = {}
    late: list[LagError] = []
    for name in backend:
        try:
            done.append(measuring.calibrate(name, replayed, length_s=length_s, lag_budget_s=budget_s))
        except ConfigError as error:
            absent[name] = str(error)
        except LagError as error:
            late.append(error)
        if format_ != "json":
            typer.echo(_line(done[-1]) if done and done[-1].backend == name else f"{absent.get(name) or late[-1]}")
    if format_ == "json":
        typer.echo(
            json.dumps({"measured": [_shown(one) for one in done], "absent": absent, "late": [str(e) for e in late]})
        )
    if late:
        raise late[0]


def _shown(one: Calibration) -> dict[str, object]:
    target = measuring.TARGET_ERROR if one.backend == "relay" else None
    return {**asdict(one), "target_error": target, "within_target": None if target is None else one.error <= target}


def _line(one: Calibration) -> str:
    verdict = ""
    if one.backend == "relay":
        kept = "kept" if one.error <= measuring.TARGET_ERROR else "MISSED"
        verdict = f" (target {measuring.TARGET_ERROR:.0%} at 5 Mbit/s and more: {kept})"
    delay = "no delay"
    if one.delay_p50_s is not None and one.delay_p99_s is not None:
        delay = f"40 ms come out {one.delay_p50_s * 1e3:+.1f} ms, p99 {one.delay_p99_s * 1e3:+.1f} ms"
    return (
        f"{one.backend:6} goodput error {one.error:.2%} over 1-s bins{verdict}, worst {one.worst:.2%}, total {one.total:.3f}; "
        f"adds {one.added_p50_s * 1e3:.2f} ms, p99 {one.added_p99_s * 1e3:.2f} ms; {delay}; {one.lag}"
    )
