"""Policies from outside the package: `module:Class`, a class that is called with the bundle's catalogue.

The module is looked for where Python looks, then in the current folder.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

from isthmus.device.catalogue import Catalogue
from isthmus.device.scheduler import POLICIES, Policy
from isthmus.proto.errors import ConfigError

METHODS = ("width", "after_exit")


def is_outside(name: str) -> bool:
    """Whether a policy's name is that of a class in some module."""
    return ":" in name


def factory(name: str) -> Callable[[Catalogue], Policy]:
    """What makes the policy called `name`, one of the shipped or `module:Class`. Raises ConfigError with the way out."""
    if not is_outside(name):
        if name not in POLICIES:
            raise ConfigError(f"policy: '{name}' is not one of {', '.join(POLICIES)}; or name your own as module:Class")
        return POLICIES[name]
    module, _, attribute = name.partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, ValueError, AttributeError) as error:
        raise ConfigError(f"policy: '{name}': {error}; name a class of an importable module as module:Class") from error
    except Exception as error:  # whatever somebody's module does while it is imported
        raise ConfigError(f"policy: '{name}': importing it failed: {type(error).__name__}: {error}") from error
    lacking = [method for method in METHODS if not callable(getattr(found, method, None))]
    if not callable(found) or lacking:
        raise ConfigError(
            f"policy: '{name}': has no {lacking[0] if lacking else 'constructor'}; a policy has {METHODS}"
        )
    made: Callable[[Catalogue], Policy] = found
    return made


def source(name: str) -> bytes:
    """The source of the module that an outside policy is in, as far as it is a file: what its results depend on."""
    factory(name)
    file = getattr(importlib.import_module(name.partition(":")[0]), "__file__", None)
    return Path(file).read_bytes() if file else b""
