"""The settings of `policies.py`: constants are chosen on `TUNING` alone, `HELD_OUT` judges.

No trace is in both. The later settings, in which width, server or deadline bind, have no device in common either.
"""

from __future__ import annotations

from typing import NamedTuple

LOAD, HEAT, SERVER_LOAD = "load", "throttling", "server-load"


class Event(NamedTuple):
    """Something that happens from a time on, for a while."""

    what: str
    at_s: float
    for_s: float
    factor: float = 1.0
    state: str = "none"

    @property
    def table(self) -> dict[str, object]:
        """As a scenario has it."""
        return {k: v for k, v in self._asdict().items() if (k, v) not in (("factor", 1.0), ("state", "none"))}


class Setting(NamedTuple):
    """One row of the table."""

    trace: str
    bundle: str
    profile: str
    deadline_ms: float
    fps: float
    scale: float = 1.0
    start_s: float = 0.0
    swap: bool = False
    threads: str = "all"
    sessions: int = 1
    share: str = "own"
    jitter_ms: float = 0.0
    events: tuple[Event, ...] = ()

    @property
    def name(self) -> str:
        """How the table calls it."""
        scaled = f" x{self.scale:g}" if self.scale != 1 else ""
        device = self.profile + (", one thread" if self.threads == "one" else "")
        who = f"{self.sessions} x {device} in a cell" if self.sessions > 1 else device
        what = "".join(f", {event.what}" for event in self.events)
        return f"{self.trace}{scaled}, {self.bundle} on {who}, {self.deadline_ms:g} ms, {self.fps:g}/s{what}"


def _beside(factor: float) -> tuple[Event, ...]:
    """Other work on the device in the middle half of a minute."""
    return (Event(LOAD, 15.0, 30.0, factor),)


OLD_TUNING = (
    Setting("nb-iot", "signs", "pi-zero-2w", 1500, 2),
    Setting("nb-iot", "cifar10", "pi4", 1000, 4),
    Setting("ble", "signs", "pi-zero-2w", 250, 10),
    Setting("lte-drive", "signs", "pi4", 100, 15, scale=0.02),
    Setting("mm-att-lte-driving", "signs", "pi4", 150, 15),
    Setting("mm-att-lte-driving", "cifar10", "pi4", 150, 15, scale=0.05, start_s=120),
    Setting("mm-att-lte-driving", "signs", "pi4", 300, 30, scale=0.05, start_s=300),
    Setting("mm-tmobile-umts-driving", "signs", "pi3b-plus", 300, 15, scale=0.1, start_s=60),
    Setting("mm-tmobile-umts-driving", "cifar10", "pi4", 150, 10, scale=0.05, start_s=300),
    Setting("nu-mmw-drive-2", "signs", "pi5", 100, 30, scale=0.001, start_s=30),
    Setting("umn-ul-tmobile-sa-1", "signs", "pi4", 150, 15, scale=0.002, start_s=200),
    Setting("nu-lte-drive-1", "cifar10", "pi4", 100, 30, scale=0.001),
)
NEW_TUNING = (
    # Steady and narrow: 100 to 200 bytes a frame.
    Setting("nu-lte-walk-away", "signs", "pi4", 150, 15, scale=0.00026),
    Setting("oboe-100", "cifar10", "pi4", 150, 20, scale=0.0052, swap=True),
    Setting("nu-mmw-walk-toward", "signs", "pi-zero-2w", 150, 15, scale=0.0002),
    # Heads that fill the period: few cores, many frames, other work, heat.
    Setting("ny-wifi-12-1", "signs", "pi-zero-2w", 100, 30, scale=0.01, swap=True, threads="one", events=_beside(3)),
    Setting("umn-ul-verizon-default-1", "cifar10", "pi-zero-2w", 150, 30, scale=0.001, threads="one", events=_beside(4)),
    Setting("lumos-4g-1", "signs", "pi-zero-2w", 80, 60, scale=0.01, swap=True, threads="one"),
    Setting(
        "kr-5g-ul-static-3", "cifar10", "jetson-nano", 60, 60, scale=0.002, threads="one",
        events=(Event(LOAD, 5.0, 15.0, 3.0), Event(SERVER_LOAD, 12.0, 8.0, 10.0)),
    ),
    Setting("nu-mmw-walk-away", "signs", "pi4", 50, 60, scale=0.002, threads="one",
            events=(Event(LOAD, 5.0, 15.0, 4.0), Event(HEAT, 20.0, 10.0, state="throttled"))),
    # A crowded cell; a busy server; loss; deadlines shorter than some round trips.
    Setting("nu-lte-drive-3", "signs", "pi4", 150, 10, scale=0.002, sessions=8, share="cell"),
    Setting("oboe-0", "signs", "jetson-nano", 120, 15, scale=0.03, swap=True, events=(Event(SERVER_LOAD, 15.0, 30.0, 40.0),)),
    Setting("ucc-5g-drive-1", "signs", "pi4", 200, 15, scale=0.001, swap=True),
    Setting("ucc-5g-drive-5", "cifar10", "jetson-nano", 130, 15, scale=0.01, swap=True, jitter_ms=10),
)  # fmt: skip
OLD_HELD_OUT = (
    Setting("umts", "cifar10", "pi3b-plus", 300, 15, scale=0.1),
    Setting("wifi-roam", "signs", "pi4", 100, 15, scale=0.005),
    Setting("lora", "signs", "pi-zero-2w", 8000, 0.2),
    Setting("mm-att-lte-driving-2016", "signs", "pi4", 150, 15, scale=0.02),
    Setting("mm-verizon-lte-short", "cifar10", "pi4", 100, 30, scale=0.01),
    Setting("mm-tmobile-lte-short", "signs", "pi4", 200, 15, scale=0.003),
    Setting("nu-mmw-drive-3", "signs", "pi5", 100, 30, scale=0.001, start_s=100),
    Setting("nu-lte-drive-2", "signs", "pi4", 100, 15, scale=0.001),
    Setting("umn-ul-tmobile-sa-2", "cifar10", "pi4", 150, 15, scale=0.001, start_s=100),
    Setting("kr-5g-ul-downtown-1", "signs", "pi4", 100, 30, scale=0.001),
    Setting("no-hsdpa-bus-1", "signs", "pi4", 150, 15, scale=0.05, swap=True),
    Setting("no-hsdpa-train-12", "cifar10", "pi4", 200, 15, scale=0.05, swap=True),
    Setting("gophers-drive-1-tmobile", "signs", "pi4", 100, 15, scale=0.002, swap=True),
    Setting("ny-cell-7-3", "cifar10", "pi4", 150, 10, scale=0.01, swap=True),
)
NEW_HELD_OUT = (
    Setting("ny-wifi-11-2", "signs", "pi5", 150, 15, scale=0.00023, swap=True),
    Setting("nu-lte-walk-toward", "signs", "pi3b-plus", 150, 15, scale=0.00026),
    Setting("nu-lte-static-toward-p2", "cifar10", "pi3b-plus", 100, 20, scale=0.0004),
    Setting("umn-ul-verizon-default-2", "signs", "pi5", 150, 15, scale=0.0003),
    Setting("ny-wifi-7-1", "signs", "pi3b-plus", 100, 30, scale=0.01, swap=True, threads="one", events=_beside(5)),
    Setting("no-hsdpa-tram-19", "cifar10", "pi3b-plus", 150, 30, scale=0.1, swap=True, threads="one", events=_beside(5)),
    Setting("lumos-4g-2", "signs", "pi3b-plus", 60, 120, scale=0.01, swap=True, threads="one"),
    Setting("kr-5g-ul-static-2", "cifar10", "pi3b-plus", 80, 60, scale=0.002, threads="one",
            events=(Event(HEAT, 10.0, 15.0, state="throttled"),)),
    Setting("nu-lte-walk-lateral", "signs", "pi5", 40, 120, scale=0.002, threads="one",
            events=(Event(LOAD, 3.0, 9.0, 6.0),)),
    Setting("nu-mmw-walk-lateral", "cifar10", "pi5", 50, 120, scale=0.004, threads="one",
            events=(Event(LOAD, 3.0, 9.0, 6.0), Event(SERVER_LOAD, 8.0, 4.0, 10.0))),
    Setting("gophers-walk", "signs", "pi3b-plus", 70, 60, scale=0.0003, swap=True, threads="one",
            events=(Event(LOAD, 5.0, 20.0, 3.0),)),
    Setting("umn-ul-tmobile-nsalte-2", "signs", "pi5", 150, 10, scale=0.001, sessions=8, share="cell"),
    Setting("no-hsdpa-metro-2", "signs", "pi5", 120, 15, scale=0.06, swap=True, events=(Event(SERVER_LOAD, 15.0, 30.0, 40.0),)),
    Setting("ucc-5g-drive-3", "signs", "pi5", 200, 15, scale=0.01, swap=True),
    Setting("ucc-5g-drive-4", "cifar10", "pi3b-plus", 90, 15, scale=0.003, swap=True, jitter_ms=5),
)  # fmt: skip
TUNING, HELD_OUT = OLD_TUNING + NEW_TUNING, OLD_HELD_OUT + NEW_HELD_OUT
SETTINGS = {"tuning": TUNING, "held-out": HELD_OUT}
OLD = {"tuning": OLD_TUNING, "held-out": OLD_HELD_OUT}
