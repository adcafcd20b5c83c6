"""The rivals: each one small file, each one line here. `contestant(name, bundle)` gives one, ready for a session.

The clairvoyants are no policies, since they see what no policy may: they bound what any of these can reach.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from isthmus.device.deciding import outside
from isthmus.device.scheduler import AlwaysOffload, ExpectedUtility, LocalOnly
from isthmus.emulation.policies import contestant as contestants
from isthmus.emulation.policies.contestant import Contestant, PolicyFactory
from isthmus.emulation.policies.input_offload import InputOffload
from isthmus.emulation.policies.local_exit import LocalExit
from isthmus.emulation.policies.slimmable import Slimmable
from isthmus.emulation.policies.spinn import Spinn
from isthmus.emulation.policies.static_split import StaticSplit
from isthmus.emulation.policies.throughput_argmax import ThroughputArgmax
from isthmus.emulation.replay import Content
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


_RIVALS: dict[str, _Rival] = {
    "expected-utility": _Rival(ExpectedUtility),
    "local-first-exit": _Rival(partial(LocalExit, index=0)),
    "local-only": _Rival(LocalOnly),
    "always-offload": _Rival(AlwaysOffload),
    "always-jpeg": _Rival(InputOffload, partial(contestants.pictures, format_="jpeg")),
    "always-webp": _Rival(InputOffload, partial(contestants.pictures, format_="webp")),
    "static-split": _Rival(StaticSplit),
    "throughput-argmax": _Rival(ThroughputArgmax),
    "spinn": _Rival(Spinn),
    "slimmable": _Rival(Slimmable),
}
NAMES = tuple(_RIVALS)
"""All causal policies, the shipped one first."""


def contestant(name: str, bundle: Bundle) -> Contestant:
    """The policy called `name` on the tables of `bundle`.

    Or the class that `module:Class` names, on the bundle's own. Raises ConfigError listing the names, BundleError or DataError
    when the bundle lacks what the rival plays on.
    """
    if outside.is_outside(name):
        return Contestant(name, Content.of(bundle), outside.factory(name))
    if name not in _RIVALS:
        raise ConfigError(
            f"policy: '{name}' is not one of {', '.join((*NAMES, *BOUNDS))}; or name your own as module:Class"
        )
    rival = _RIVALS[name]
    return Contestant(name, rival.content(bundle), rival.policy)


def available(bundle: Bundle) -> tuple[str, ...]:
    """The names that this bundle has tables for.

    Those that send pictures need `isthmus models inputs` once, unless the bundle itself sends pictures of their format.
    """
    pictures, own = inputs.fault(bundle) is None, bundle.manifest.picture
    sends = () if own is None else (f"always-{own.format}",)
    return tuple(name for name, rival in _RIVALS.items() if pictures or rival.content == Content.of or name in sends)


def contents(bundle: Bundle) -> list[Content]:
    """Whatever any contestant on this bundle can replay, its own features first."""
    own = [Content.of(bundle)]
    if inputs.fault(bundle) is None:
        own += [contestants.pictures(bundle, format_=format_) for format_ in inputs.FORMATS]
    return own
