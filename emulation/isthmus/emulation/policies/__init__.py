"""The rivals: each one small file, each one line here. `contestant(name, bundle)` gives one, ready for a session.

The clairvoyants are no policies, since they see what no policy may: they bound what any of these can reach.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from isthmus.device.deciding import outside
from isthmus.device.scheduler import AlwaysOffload, ExpectedUtility, LocalOnly
from isthmus.device.tracking.choice import policy_called
from isthmus.emulation.policies import contestant as contestants
from isthmus.emulation.policies.approxdet import ApproxDet
from isthmus.emulation.policies.contestant import Contestant, PolicyFactory
from isthmus.emulation.policies.input_offload import InputOffload
from isthmus.emulation.policies.local_exit import LocalExit
from isthmus.emulation.policies.slimmable import Slimmable
from isthmus.emulation.policies.spinn import Spinn
from isthmus.emulation.policies.static_split import StaticSplit
from isthmus.emulation.policies.throughput_argmax import ThroughputArgmax
from isthmus.emulation.replay import Content
from isthmus.emulation.sequences import table as sequences
from isthmus.emulation.sequences.clips import Clips, as_webp
from isthmus.models import inputs
from isthmus.models.bundle import Bundle
from isthmus.proto.errors import ConfigError

TRACE_CLAIRVOYANT = "trace-clairvoyant"
"""How reports call the fair bound: it knows the network, and of a picture what the device can see."""
CLAIRVOYANT = "clairvoyant"
"""How reports call the ceiling: it knows which answers are right as well."""
BOUNDS = (TRACE_CLAIRVOYANT, CLAIRVOYANT)


@dataclass(frozen=True)
class _Rival:
    policy: PolicyFactory
    content: Callable[[Bundle], Content] = Content.of
    clips: Callable[[Bundle], Content] | None = Clips.of
    """What it replays of clips; None: it does not play on them."""


_RIVALS: dict[str, _Rival] = {
    "expected-utility": _Rival(partial(policy_called, "expected-utility")),
    "local-first-exit": _Rival(partial(LocalExit, index=0)),
    "local-only": _Rival(LocalOnly),
    "always-offload": _Rival(AlwaysOffload),
    "always-jpeg": _Rival(InputOffload, partial(contestants.pictures, format_="jpeg"), None),
    "always-webp": _Rival(InputOffload, partial(contestants.pictures, format_="webp"), as_webp),
    "static-split": _Rival(StaticSplit),
    "throughput-argmax": _Rival(ThroughputArgmax),
    "spinn": _Rival(Spinn),
    "slimmable": _Rival(Slimmable),
}
_TRACKERS: dict[str, PolicyFactory] = {"tracker-only": LocalOnly, "approxdet": ApproxDet}
"""Those that carry on what the device finds, and play on clips alone."""
UNTRACKED = "untracked"
"""The shipped policy without a tracker: on clips, a detector on every frame, here or on the server."""
NAMES = tuple(_RIVALS)
"""All causal policies, the shipped one first."""
ON_CLIPS = (*(name for name, rival in _RIVALS.items() if rival.clips is not None), UNTRACKED, *_TRACKERS)
"""Those that play on clips."""


def contestant(name: str, bundle: Bundle, *, clips: bool = False) -> Contestant:
    """The policy called `name` on the tables of `bundle`: of its validation samples, or of `clips`.

    Or the class that `module:Class` names, on the bundle's own. Raises ConfigError listing the names, BundleError or DataError
    when the bundle lacks what the rival plays on.
    """
    if outside.is_outside(name):
        return Contestant(name, Clips.of(bundle) if clips else Content.of(bundle), outside.factory(name))
    names = ON_CLIPS if clips else NAMES
    if name not in names:
        raise ConfigError(
            f"policy: '{name}' is not one of {', '.join((*names, *BOUNDS))}{_where(clips)}; or name your own as module:Class"
        )
    if name in _TRACKERS:
        return Contestant(name, Clips.of(bundle), _TRACKERS[name], tracks=True)
    if name == UNTRACKED:
        return Contestant(name, Clips.of(bundle), ExpectedUtility)
    rival = _RIVALS[name]
    if not clips or rival.clips is None:
        return Contestant(name, rival.content(bundle), rival.policy)
    tracks = name == NAMES[0] and bundle.manifest.ageing is not None
    return Contestant(name, rival.clips(bundle), rival.policy, tracks=tracks)


def _where(clips: bool) -> str:
    return ", which play on clips" if clips else f"; {UNTRACKED}, {', '.join(_TRACKERS)} play on clips (clips = true)"


def available(bundle: Bundle, *, clips: bool = False) -> tuple[str, ...]:
    """The names that this bundle has tables for.

    Those that send pictures need `isthmus models inputs` once, unless the bundle itself sends pictures of their format.
    """
    if clips:
        return tuple(name for name in ON_CLIPS if name != "always-webp" or sequences.load(bundle).picture_bytes.size)
    pictures, own = inputs.fault(bundle) is None, bundle.manifest.picture
    sends = () if own is None else (f"always-{own.format}",)
    return tuple(name for name, rival in _RIVALS.items() if pictures or rival.content == Content.of or name in sends)


def contents(bundle: Bundle, *, clips: bool = False) -> list[Content]:
    """Whatever any contestant on this bundle can replay, its own features first."""
    if clips:
        return [Clips.of(bundle), *([as_webp(bundle)] if "always-webp" in available(bundle, clips=True) else [])]
    own = [Content.of(bundle)]
    if inputs.fault(bundle) is None:
        own += [contestants.pictures(bundle, format_=format_) for format_ in inputs.FORMATS]
    return own
