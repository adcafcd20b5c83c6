"""What a server offers of what lies in its folder. Pure: no clock, no IO.

A folder that changed is checked once it has been left alone for a moment, so that a bundle which is being copied is not taken
for a damaged one. What passes the check is offered, in the place of what the folder gave before; what does not pass is said
once, and what the folder gave before stays. A folder that is gone takes its bundle with it, for new devices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from msgspec import Struct

from isthmus.edge_server.repository.folder import Stamp
from isthmus.edge_server.repository.lane import Served, described
from isthmus.proto.printable import printable

SETTLE_S = 2.0
"""A folder that nothing changed in for so long is not being copied any more; one that is, is checked again anyway."""


class Check(Struct, frozen=True):
    """See whether the bundle in this place is whole and can be loaded, then call `on_checked`."""

    place: str
    stamp: Stamp


class Offer(Struct, frozen=True):
    """Devices may have this bundle."""

    served: Served


class Withdraw(Struct, frozen=True):
    """No new device may have this bundle."""

    sha256: bytes


class Say(Struct, frozen=True):
    """A line for the log."""

    line: str
    wrong: bool = False


Action = Check | Offer | Withdraw | Say


@dataclass
class _Place:
    """One folder: what was seen of it, and what it gives."""

    stamp: Stamp | None = None
    """As it was seen last; None: it is gone."""
    since_s: float = 0.0
    checked: Stamp | None = None
    """As it was when it was checked last."""
    checking: bool = False
    served: Served | None = None
    """What is offered from it."""
    fault: str | None = None
    """Why what lies in it now is not offered."""


class Catalogue:
    """One repository's. A place is `NAME` or `NAME/VERSION`."""

    def __init__(self) -> None:
        self._places: dict[str, _Place] = {}
        self._actions: list[Action] = []

    @property
    def faults(self) -> dict[str, str]:
        """Why what lies in a place is not offered, by place. May be asked for from another thread."""
        return {name: place.fault for name, place in list(self._places.items()) if place.fault is not None}

    @property
    def checking(self) -> bool:
        """Whether some place is being checked."""
        return any(place.checking for place in self._places.values())

    def actions(self) -> list[Action]:
        """What to do, in order; each action is handed out once."""
        actions, self._actions = self._actions, []
        return actions

    def look(self, found: Mapping[str, Stamp], *, now: float, again: bool = False) -> None:
        """What lies in the folder now; `again`: check at once what changed, and also what has failed before."""
        for name in sorted({*found, *self._places}):
            place = self._places.setdefault(name, _Place())
            if found.get(name) != place.stamp:
                place.stamp, place.since_s = found.get(name), now
            if again and place.fault is not None:
                place.checked = None
            if again or place.since_s + SETTLE_S <= now:
                self._settled(name, place)

    def refusal(self, place: str, served: Served) -> str | None:
        """Why a bundle cannot be offered from a place, though it is whole; None where it can."""
        for name, other in self._places.items():
            if name == place or other.served is None or other.served.sha256 == served.sha256:
                continue
            if (other.served.name, other.served.version) == (served.name, served.version):
                version = f"version {printable(served.version)}" if served.version else "no version"
                return (
                    f"{described(served)}, of {version}, has the name and version of {described(other.served)} in "
                    f"{printable(name)}, which stays; put each version into a folder of its own, NAME/VERSION"
                )
        return None

    def on_checked(self, name: str, stamp: Stamp, found: Served | str) -> None:
        """A place, as it was by this stamp, holds a bundle that can be served, or, in words, why it does not."""
        place = self._places.setdefault(name, _Place(stamp))
        place.checking, place.checked = False, stamp
        fault = found if isinstance(found, str) else self.refusal(name, found)
        if fault is not None:
            place.fault = fault
            stays = f"; {described(place.served)} stays" if place.served is not None else ""
            self._actions.append(Say(f"{printable(name)}: not served: {fault}{stays}", wrong=True))
        elif not isinstance(found, str):
            place.fault = None
            self._give(place, found)

    def _settled(self, name: str, place: _Place) -> None:
        if place.stamp is None:
            if not place.checking:
                del self._places[name]
                self._give(place, None)
        elif place.stamp != place.checked and not place.checking:
            place.checking = True
            self._actions.append(Check(name, place.stamp))

    def _give(self, place: _Place, served: Served | None) -> None:
        """A place gives this bundle from now on, and none that it gave before."""
        before, place.served = place.served, served
        offered = [other.served.sha256 for other in self._places.values() if other is not place and other.served]
        if served is not None and served != before and served.sha256 not in offered:
            self._actions += [Offer(served), Say(f"{described(served)}: served{_instead(served, before)}")]
        if before is None or (served is not None and before.sha256 == served.sha256):
            return
        if before.sha256 not in offered:
            self._actions.append(Withdraw(before.sha256))
            if served is None:
                self._actions.append(Say(f"{described(before)}: its folder is gone; devices that have it keep it"))
        for other in self._places.values():
            if other.fault is not None:
                other.checked = None  # what was in its way may be gone


def _instead(served: Served, before: Served | None) -> str:
    return f" in the place of {described(before)}" if before is not None and before.sha256 != served.sha256 else ""
