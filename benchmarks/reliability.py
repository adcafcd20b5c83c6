"""What the scheduler promises of the link, and what of it is kept, in the settings of `policies.py`.

    python benchmarks/reliability.py [tuning|held-out] [--seeds 5] [--seconds 60] [--on-time 0.9]

Every frame that is sent is sent with a probability of being answered in time. By tenths of it: how many frames, the mean that
was promised, the share that the server answered in time. Nothing is fitted here. With `--on-time` that share is asked for; what
it costs is what fewer frames are right in time than without. The last line is JSON: the calibration error is the mean distance
of promised and kept over all frames, a tenth at a time.
"""

from __future__ import annotations

import argparse
import json
from statistics import mean

import msgspec
from policies import OURS, opened
from policy_settings import SETTINGS, Setting

from isthmus.emulation.run_summary import reliability, summary
from isthmus.emulation.simulate import simulate
from isthmus.proto.record import FrameRecord

FEW = 200
"""Of fewer frames that are sent, no share is told from another."""


def played(setting: Setting, seeds: int, seconds: float, on_time: float | None) -> list[FrameRecord]:
    """All frames of all runs."""
    each = (opened(setting, OURS, seconds, seed) for seed in range(1, seeds + 1))
    scenarios = [msgspec.structs.replace(scenario, on_time=on_time) for scenario in each]
    return [record for scenario in scenarios for run in simulate(scenario) for record in run.records]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", nargs="?", choices=SETTINGS, default="tuning")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--on-time", type=float)
    asked = parser.parse_args()

    sent: list[FrameRecord] = []
    costs: list[float] = []
    shares: list[float] = []
    print("| setting | sent | promised | kept | right in time | without the share |")
    print("|---|--:|--:|--:|--:|--:|")
    for setting in SETTINGS[asked.which]:
        rows = played(setting, asked.seeds, asked.seconds, asked.on_time)
        free = rows if asked.on_time is None else played(setting, asked.seeds, asked.seconds, None)
        own, with_, without = [row for row in rows if row.promised is not None], summary(rows), summary(free)
        figures = summary(own)
        cells = (figures.promised, figures.kept, with_.accuracy, without.accuracy)
        print(f"| {setting.name} | {figures.promises} | {' | '.join(map(_percent, cells))} |", flush=True)
        sent += own
        costs.append((without.accuracy or 0.0) - (with_.accuracy or 0.0))
        if figures.promises >= FEW and figures.kept is not None:
            shares.append(figures.kept)
    for tenth in reliability(sent):
        print(f"{tenth.frames:6} frames: {tenth.promised:.1%} promised, {tenth.kept:.1%} kept")
    whole = summary(sent)
    told = {name: getattr(whole, name) for name in ("promises", "promised", "kept", "calibration_error")}
    told |= {"least_kept": min(shares, default=None), "costs": mean(costs)}
    print(json.dumps({name: round(value, 4) if value is not None else None for name, value in told.items()}))


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


if __name__ == "__main__":
    main()
