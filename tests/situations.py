"""What a policy is asked, in numbers that can be worked out on paper: a link beyond doubt, a head that takes its time.

The operating points are `pair.catalogue()`'s: two widths, two stages with an exit each, two steps of two layers.
"""

from __future__ import annotations

from isthmus.device.link_estimator import Outlook
from isthmus.device.scheduler import Situation
from isthmus.device.stage_times import StageTimes
from isthmus.proto.vocabulary import Guess, StageResult
from pair import LABEL_LOCAL

STAGES_S = ((0.010, 0.040), (0.010, 0.040))
"""[stage][width]: the head takes 20 ms narrow and 80 ms wide, a tenth more to be on the safe side."""
SIZES = ((150, 180), (80, 160))
"""[step][layer]: what is predicted for these features is what `pair.catalogue()` has as means."""


def link(
    rate_Bps: float = 1e6, *, round_trip_s: float = 0.020, queue_s: float = 0.0, server_s: float = 0.005
) -> Outlook:
    """Of `size` bytes the answer is back after (size + 30) / rate + round trip + server, and what is queued before."""
    return Outlook(
        ahead_s=queue_s + round_trip_s,
        queue_s=queue_s,
        slowness=1 / rate_Bps,
        prior_slowness=1 / rate_Bps,
        stall_s=0.0,
        server_s=server_s,
        memory=1.0,
        ratios=[],
        weights=[0.0],
        paces=[],
    )


def situation(
    outlook: Outlook | None, budget_s: float = 0.150, *, period_s: float | None = None, times: StageTimes | None = None
) -> Situation:
    """`outlook` None: nothing can be sent."""
    return Situation(budget_s, outlook, times or StageTimes(STAGES_S), period_s)


def after_stage(
    stage: int,
    confidence: float = 0.6,
    *,
    width: float = 1.0,
    sizes: tuple[tuple[int, ...], ...] | None = SIZES,
) -> StageResult:
    """An exit has spoken; sizes are known after the last stage only."""
    return StageResult(0, stage, width, Guess(LABEL_LOCAL, confidence), 0.010, sizes if stage == 1 else None)
