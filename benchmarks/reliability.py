"""What the scheduler promises of the link, and what of it is kept, in the settings of `policies.py`.

    python benchmarks/reliability.py [tuning|held-out] [--seeds 5] [--seconds 60]

Every frame that is sent is sent with a probability of being answered in time. By tenths of it: how many frames, the mean
that was promised, the share that the server answered in time. Nothing is fitted here. The last line is JSON: the error is the
mean distance of promised and kept over all frames, a tenth at a time.
"""

from __future__ import annotations

import argparse
import json

from policies import OURS, opened
from policy_settings import SETTINGS

from isthmus.emulation.run_summary import reliability, summary
from isthmus.emulation.simulate import simulate
from isthmus.proto.record import FrameRecord


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", nargs="?", choices=SETTINGS, default="tuning")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60.0)
    asked = parser.parse_args()

    sent: list[FrameRecord] = []
    print("| setting | sent | promised | kept |")
    print("|---|--:|--:|--:|")
    for setting in SETTINGS[asked.which]:
        runs = [
            run for seed in range(1, asked.seeds + 1) for run in simulate(opened(setting, OURS, asked.seconds, seed))
        ]
        own = [record for run in runs for record in run.records if record.promised is not None]
        figures = summary(own)
        print(
            f"| {setting.name} | {figures.promises} | {_percent(figures.promised)} | {_percent(figures.kept)} |",
            flush=True,
        )
        sent += own
    for tenth in reliability(sent):
        print(f"{tenth.frames:6} frames: {tenth.promised:.1%} promised, {tenth.kept:.1%} kept")
    whole = summary(sent)
    figures_ = {name: getattr(whole, name) for name in ("promises", "promised", "kept", "calibration_error")}
    print(json.dumps({name: round(value, 4) if value is not None else None for name, value in figures_.items()}))


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


if __name__ == "__main__":
    main()
