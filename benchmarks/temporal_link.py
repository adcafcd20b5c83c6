"""Time in the codec on a narrow link: which steps the shipped rule sends, with deltas and without. Prints one JSON object.

    python benchmarks/temporal_link.py BUNDLE CLIP … [--kbits 16] [--fps 10] [--deadline 0.3]

Virtual time: the real session, rule, codec and server's streams around a shaped link; the head's features of each clip, in
times that the tail and the head are said to take. "full" is the share of frames that are answered in time by the server, from
all layers at the finest step; "by_step" the same for every step, "sent" all that it answers in time, "bytes" what a frame takes
without framing.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from isthmus.models import bundle as bundles
from isthmus.models.bundling.films import FeatureHead, film
from isthmus.proto.vocabulary import Answer, AnswerSource
from pair import Pair, catalogue

HEAD_S = ((0.005, 0.010), (0.005, 0.010))
"""[stage][width], as a Pi 4 takes for the detector that this was written for."""
BEGINNING_S = 4.0
"""Until then the link is learnt."""


def shares(answers: list[Answer], steps: tuple[float, ...]) -> dict[str, object]:
    """What became of frames."""
    back = [a for a in answers if a.source is AnswerSource.SERVER and a.on_time]
    whole = Counter(a.point.step for a in back if a.point is not None and a.point.layers == 2)
    size = sum(a.bytes_up for a in answers) / max(1, sum(a.bytes_up > 0 for a in answers))
    return {
        "full": round(whole[0] / len(answers), 3),
        "by_step": {f"{step:.3g}": round(whole[i] / len(answers), 3) for i, step in enumerate(steps)},
        "sent": round(len(back) / len(answers), 3),
        "bytes": round(size),
    }


def main() -> None:
    """Every clip once with deltas, once without; all together."""
    options = _options()
    bundle = bundles.load(options.bundle)
    if bundle.codec.deltas is None:
        raise SystemExit(f"{options.bundle}: codes no deltas; see `isthmus models deltas`")
    head = FeatureHead(bundle, max(bundle.manifest.widths))
    config, every = replace(bundle.codec, picture=None), max(1, round(30 / options.fps))
    known = catalogue(steps=len(config.steps))
    found: dict[str, list[Answer]] = {"with deltas": [], "whole frames": []}
    for clip in options.clips:
        features = film(clip, head, every=every, most=options.frames).features
        for name, delta_steps in (("with deltas", len(config.steps)), ("whole frames", 0)):
            pair = Pair(
                (3600.0, options.kbits / 1000, options.kbits / 1000, 60.0),
                fps=options.fps,
                deadline_s=options.deadline,
                stages_s=HEAD_S,
                known=replace(known, delta_steps=delta_steps),
                config=config,
                features=lambda i, features=features: features[i % len(features)],
            ).connected()
            end_s = len(features) / options.fps
            found[name] += pair.run(end_s + 1).between(min(BEGINNING_S, end_s / 2), end_s)
    print(json.dumps({name: shares(answers, config.steps) for name, answers in found.items()}, indent=1))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("bundle")
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--kbits", type=float, default=16.0, help="the link's rate, both ways")
    parser.add_argument("--fps", type=float, default=10.0, help="of the clips' 30")
    parser.add_argument("--deadline", type=float, default=0.3, help="seconds")
    parser.add_argument("--frames", type=int, default=100, help="of each clip at most, once thinned out")
    return parser.parse_args()


if __name__ == "__main__":
    main()
