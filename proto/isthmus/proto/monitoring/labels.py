"""Names that peers give themselves, as labels of metrics: a bounded number of them. Pure."""

from __future__ import annotations

from isthmus.proto.printable import printable

OTHER = "other"
MOST_NAMES = 64
"""As many devices as a server serves by default. Every name is a time series of its own in each metric that has it."""


class Names:
    """The first so many different names stay what they are; all that come later are OTHER."""

    def __init__(self, most: int = MOST_NAMES) -> None:
        self._most, self._known = most, dict[str, str]()

    def label(self, name: str) -> str:
        """The label for a name, without characters that nobody can see; whoever calls himself OTHER shares it."""
        if (label := self._known.get(name)) is not None:
            return label
        if name == OTHER or len(self._known) >= self._most:
            return OTHER
        return self._known.setdefault(name, printable(name) or OTHER)
