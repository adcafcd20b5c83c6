"""A head that takes as long as another machine would: a laptop that behaves like a Raspberry Pi, for emulation.

Answers are the real ones; only time is another's. Each stage waits out the rest of what the profile says of it. A machine
slower than the profile cannot be hurried: it says so once, and the figures are then its own.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

from msgspec.structs import replace

from isthmus.device.executor import Executor
from isthmus.device.neural_filter import NeuralFilter
from isthmus.models import filters, flatbuffer, profiles, work
from isthmus.models.bundle import Bundle
from isthmus.proto.vocabulary import FilterResult, StageResult

log = logging.getLogger(__name__)

Made = TypeVar("Made", StageResult, FilterResult)
Given = TypeVar("Given")


class PacedExecutor(Executor):
    """An executor whose stages take `stage_s[stage, width]` seconds, or their own time where that is longer."""

    def __init__(
        self,
        bundle: Bundle,
        stage_s: Mapping[tuple[int, float], float],
        *,
        threads: int = 1,
        neural_filter: NeuralFilter | None = None,
        filter_s: float = 0.0,
        coding_s: float = 0.0,
    ) -> None:
        """`filter_s` is what the neural filter takes, `coding_s` what coding a picture does."""
        super().__init__(bundle, threads=threads, neural_filter=neural_filter)
        self._stage_s, self._filter_s, self._coding_s = dict(stage_s), filter_s, coding_s
        self._told = False

    @classmethod
    def of(
        cls, bundle: Bundle, profile: str, *, threads: int = 1, neural_filter: NeuralFilter | None = None
    ) -> PacedExecutor:
        """The executor that is as fast as the machine of a profile: a shipped one's name, or a TOML file. Raises ConfigError."""
        how_many: profiles.Threads = "one" if threads == 1 else "all"
        machine = profiles.load(profile)
        times = work.stage_times(machine, bundle, threads=how_many)
        widths = sorted(bundle.manifest.widths)
        return cls(
            bundle,
            {(i, w): t for i, row in enumerate(times) for w, t in zip(widths, row, strict=True)},
            threads=threads,
            neural_filter=neural_filter,
            filter_s=0.0
            if neural_filter is None
            else work.signature_s(
                machine, flatbuffer.signatures(neural_filter.path)[filters.SIGNATURE], threads=how_many
            ),
            coding_s=work.coding_s(machine, bundle),
        )

    def filter_job(self, frame_id: int) -> Callable[[], FilterResult]:
        """See `Executor`."""
        return partial(self._wait_out, super().filter_job(frame_id), self._filter_s, "the filter")

    def coding_job(self, frame_id: int, step: int) -> Callable[[], object] | None:
        """See `Executor`."""
        job = super().coding_job(frame_id, step)
        return None if job is None else partial(self._fill, job, self._coding_s, "coding a picture")

    def job(self, frame_id: int, stage: int, width: float) -> Callable[[], StageResult]:
        """See `Executor`."""
        return partial(
            self._wait_out, super().job(frame_id, stage, width), self._stage_s[stage, width], f"stage {stage}"
        )

    def _wait_out(self, run: Callable[[], Made], stage_s: float, what: str) -> Made:
        began_s = time.perf_counter()
        result = self._fill(run, stage_s, what)
        return replace(result, compute_s=time.perf_counter() - began_s)

    def _fill(self, run: Callable[[], Given], stage_s: float, what: str) -> Given:
        """What `run` gives, not before `stage_s` are over."""
        began_s = time.perf_counter()
        result = run()
        rest_s = began_s + stage_s - time.perf_counter()
        if rest_s > 0:
            time.sleep(rest_s)
        elif not self._told:
            self._told = True
            log.warning(
                "%s took %.1f ms longer than the profile says; this machine is slower",
                what,
                -rest_s * 1e3,
            )
        return result
